import collections
import sys

import numpy as np
import pytest

from a2fjax.errors import InputError
from data_pipeline.demo import phones, sentence_list, voice
from data_pipeline.demo.voice import RATE, Voice
from data_pipeline.stages import splits


@pytest.fixture(autouse=True)
def needs_espeak():
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")


def decibels(audio, start, end):
    part = audio[int(start * RATE) : max(int(end * RATE), int(start * RATE) + 1)]
    return 10 * np.log10(np.mean(part.astype(float) ** 2) + 1e-12)


@pytest.mark.parametrize("language", sorted(voice.LANGUAGES))
def test_phones_fill_the_audio_and_match_its_energy(language):
    vowels, closures, pauses = [], [], []
    for sentence in sentence_list.sentences_in(language)[:6]:
        speech = voice.synthesize(sentence.text, Voice(language, "linda"))
        segments, _ = phones.segments(speech.phones)
        for one, two in zip(segments, segments[1:], strict=False):
            assert one.start < one.end == two.start
        assert segments[0].start == 0.0
        assert segments[-1].end == pytest.approx(len(speech.audio) / RATE)
        for s in segments:
            if s.phone.kind == "vowel":
                vowels.append(decibels(speech.audio, s.start, s.end))
            elif s.phone.kind == "silence" and s.end - s.start > 0.05:
                pauses.append(decibels(speech.audio, s.start + 0.01, s.end - 0.01))
            elif s.ipa in ("p", "t", "k") and s.release - s.start > 0.02 and s.release < s.end:
                closures.append(decibels(speech.audio, s.start + 0.004, s.release - 0.004))
    assert len(vowels) > 30 and len(closures) >= 3
    assert np.percentile(vowels, 5) > -45
    assert np.median(vowels) > np.median(pauses) + 30
    # The burst of a voiceless stop is where the audio says: silence before, none after.
    assert np.max(closures) < np.percentile(vowels, 5) - 15


@pytest.mark.slow
def test_every_phone_of_the_shipped_sentences_has_a_target():
    unknown, used = collections.Counter(), collections.Counter()
    for sentence in sentence_list.SENTENCES:
        segments, missing = phones.segments(
            voice.synthesize(sentence.text, Voice(sentence.language)).phones
        )
        unknown.update(missing)
        used.update(s.phone.name for s in segments)
    assert not unknown
    assert set(used) == set(phones.CLASSES)
    assert min(used[n] for n in ("P", "M", "F")) > 200


def test_sentences_have_unique_keys_and_enough_of_each_language():
    keys = [s.key for s in sentence_list.SENTENCES]
    assert len(set(keys)) == len(keys) == 474
    assert all(key.isascii() and " " not in key for key in keys)
    assert all(s.text == s.text.strip() and s.text[-1] in ".?!" for s in sentence_list.SENTENCES)
    assert len(sentence_list.sentences_in("en")) >= 150
    for language in voice.LANGUAGES:
        own = sentence_list.sentences_in(language)
        assert len(own) >= 75
        # Each language can be tested on sentences that training does not say.
        split = collections.Counter(splits.sentence_split(s.key) for s in own)
        assert split["val"] >= 3 and split["test_sentences"] >= 3
        assert split["val"] + split["test_sentences"] < 0.3 * len(own)


@pytest.mark.parametrize("sex", sorted(voice.VARIANTS))
def test_every_variant_speaks(sex):
    for variant in voice.VARIANTS[sex]:
        speech = voice.synthesize("Papa may move.", Voice("en", variant))
        assert 0.5 < len(speech.audio) / RATE < 3.0
        assert np.sqrt(np.mean(speech.audio**2)) > 0.02


def test_rate_and_language_change_what_is_said():
    slow, fast = (voice.synthesize("Bob may come.", Voice("en", "", rate=r)) for r in (120, 240))
    assert len(slow.audio) > 1.4 * len(fast.audio)
    with pytest.raises(InputError, match="no voice for language 'tlh'.*en, es"):
        voice.synthesize("nuqneH", Voice("tlh"))
    with pytest.raises(InputError, match="no voice variant 'anikka'; did you mean 'anika'"):
        voice.synthesize("hello", Voice("en", "anikka"))


def test_unknown_symbols_are_counted_and_move_like_a_reduced_vowel():
    said = (voice.Phone("ʘ", 0.0, 0.1, 0.0), voice.Phone("aɪ", 0.1, 0.3, 0.1, 2))
    segments, unknown = phones.segments(said)
    assert unknown == {"ʘ": 1}
    assert [s.phone.name for s in segments] == ["AX", "A", "IH"]
    assert segments[1].end == segments[2].start == pytest.approx(0.2)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys, tmp_path):
    from data_pipeline.demo.__main__ import main

    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(voice, "_library", voice._Library)
    with pytest.raises(InputError, match=r"pip install \"a2fjax\[demo\]\""):
        voice.synthesize("hello", Voice())
    assert main(["--out", str(tmp_path / "corpus")]) == 2
    message = capsys.readouterr().err
    assert "a2fjax[demo]" in message and message.count("\n") == 1
    assert not (tmp_path / "corpus").exists()
