import io
import itertools

import numpy as np
import pytest

from a2fjax.animation import emotion as emotion_lib
from a2fjax.audio import level
from a2fjax.infer import offline, progress, recording


def cut(audio, seconds):
    step = round(seconds * 16000)
    return [audio[i : i + step] for i in range(0, len(audio), step)]


def run(model, audio, block=1.0, **keywords):
    stats = recording.RecordingStats(cut(audio, block))
    return np.concatenate(list(offline.predict(model, cut(audio, block), stats, **keywords)))


@pytest.mark.parametrize("samples", [2, 300, 319, 320, 321, 16000, 16001, 16319, 40000])
def test_the_stats_measures_what_the_whole_recording_has(speech, samples):
    audio = speech(2.5)[:samples]
    stats = recording.RecordingStats(cut(audio, 0.4))
    assert stats.samples == samples and stats.frames == -(-samples // 320)
    assert stats.speech_level == level.speech_level(audio)
    assert len(stats.low) == len(stats.high) == stats.frames
    assert stats.high.max() == audio.max() and stats.low.min() == audio.min()


def test_short_recordings_are_predicted_whole(model, speech):
    audio = speech(5.0)
    assert np.array_equal(run(model, audio), model(audio))


@pytest.mark.parametrize("seconds", [3.5, 8.013, 9.0, 10.02, 14.0])
def test_chunks_join_to_what_the_whole_gives(model, speech, seconds):
    audio = speech(seconds)
    emotion = emotion_lib.EmotionTrack(np.array([0.0, seconds]), np.eye(5)[[1, 3]])
    whole = model(audio, emotion=emotion.sample(-(-len(audio) // 320)))
    joined = run(model, audio, emotion=emotion, chunk_seconds=2.0, context_seconds=1.0)
    assert joined.shape == whole.shape
    # Measured 1e-4 at worst with this network; a chunk put one frame aside would be 100 times more.
    assert np.abs(joined - whole).max() < 1e-3
    rolled = np.abs(whole[1:] - whole[:-1]).max()
    assert rolled > 0.05


def test_without_context_the_joins_are_wrong(model, speech):
    """The check above can fail: it is the context that makes chunks agree."""
    audio = speech(9.0)
    joined = run(model, audio, chunk_seconds=2.0, context_seconds=0.0)
    assert np.abs(joined - model(audio)).max() > 0.01


def test_one_program_serves_all_chunks(model, speech):
    lengths = []

    class Spy:
        config, most_frames, stride, streams = model.config, None, 1, False

        def __call__(self, audio, **keywords):
            lengths.append(len(audio))
            return model(audio, **keywords)

    run(Spy(), speech(20.0), chunk_seconds=3.0, context_seconds=0.5)
    assert len(lengths) == 7 and set(lengths) == {4 * 16000}


def test_an_hour_is_read_as_it_is_needed(speech):
    """A predictor that repeats its input proves order and count; memory is what is held."""
    held, block = [], speech(10.0)

    class Echo:
        most_frames, stride, streams = None, 1, False

        def __call__(self, audio, *, identity, emotion, speech_level, subject, sample_index, start):
            held.append(len(audio))
            frames = -(-len(audio) // 320)
            padded = np.pad(audio, (0, frames * 320 - len(audio)))
            return np.repeat(padded.reshape(frames, 320).mean(1)[:, None], 72, 1)

    def blocks(count=360):
        for i in range(count):
            yield block + np.float32(i)

    stats = recording.RecordingStats(blocks())
    stream, frames, read = blocks(), 0, itertools.count()
    counted = (b for b in stream if next(read) >= 0)
    for part in offline.predict(Echo(), counted, stats):
        first = frames // 500
        expected = block.reshape(-1, 320).mean(1)[frames % 500] + first
        assert part[0, 0] == pytest.approx(expected, abs=2e-3)
        frames += len(part)
    assert frames == stats.frames == 180_000
    assert max(held) <= 1536 * 320
    assert next(read) == 360


def test_progress_says_what_is_left():
    out = io.StringIO()
    line = progress.ProgressLine(out=out, after=0.0)
    line(90_000, 180_000)
    line._start -= 60
    line._shown -= 60
    line(90_000, 180_000)
    line(180_000, 180_000)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("30:00 of 1:00:00 done (50 %), 30 x real time, 1:00 left")
    assert len(lines) == 2 and "(100 %)" in lines[1]
