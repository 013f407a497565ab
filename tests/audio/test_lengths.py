"""Files are read to their real end, whatever their header states, or refused."""

import struct

import numpy as np
import pytest
import soundfile

from a2fjax.audio import io, mp3
from a2fjax.errors import InputError

RATE = 16_000
AUDIO = (0.1 * np.random.default_rng(0).normal(size=RATE)).astype(np.float32)
PCM = (AUDIO * 32767).astype("<i2").tobytes()
FORMAT = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)


def wav(data, riff=0, tag=b"RIFF", first=b"", body=PCM, last=b""):
    head = tag + struct.pack("<I", riff) + b"WAVE" + first + b"fmt " + struct.pack("<I", 16)
    return head + FORMAT + b"data" + struct.pack("<I", data) + body + last


def ds64(riff, data, samples):
    return b"ds64" + struct.pack("<IQQQI", 28, riff, data, samples, 0)


LIST = b"LIST" + struct.pack("<I", 4) + b"INFO"
UNKNOWN = 0xFFFFFFFF
WHOLE = {
    "right": wav(len(PCM)),
    "then a list": wav(len(PCM), last=LIST),
    "2e9": wav(2_000_000_000, 2_000_000_036),
    "2e9 less header": wav(2_000_000_000 - 36, 2_000_000_000),
    "1e9": wav(1_000_000_000),
    "all ones": wav(UNKNOWN, UNKNOWN),
    "all ones less header": wav(UNKNOWN - 36, UNKNOWN),
    "2^31": wav(1 << 31),
    "2^30": wav(1 << 30),
    "zero": wav(0),
    "zero, right RIFF": wav(0, len(PCM) + 36),
    "zero after junk": wav(0, first=b"JUNK" + struct.pack("<I", 28) + bytes(28)),
    "half a sample more": wav(len(PCM) + 1),
    "RF64": wav(UNKNOWN, UNKNOWN, b"RF64", ds64(72 + len(PCM), len(PCM), RATE)),
    "RF64 zero": wav(UNKNOWN, UNKNOWN, b"RF64", ds64(0, 0, 0)),
    "RF64 ones": wav(UNKNOWN, UNKNOWN, b"RF64", ds64((1 << 64) - 1, (1 << 64) - 1, 0)),
    "RF64 2e9": wav(UNKNOWN, UNKNOWN, b"RF64", ds64(2_000_000_036, 2_000_000_000, 10**9)),
    "BW64": wav(UNKNOWN, UNKNOWN, b"BW64", ds64(72 + len(PCM), len(PCM), RATE)),
    "BW64 zero": wav(0, UNKNOWN, b"BW64", ds64(0, 0, 0)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_wav_is_read_to_its_end(tmp_path, name):
    path = tmp_path / "a.wav"
    path.write_bytes(WHOLE[name])
    np.testing.assert_allclose(io.load(path), AUDIO, atol=1e-4)
    assert io.info(path) == (1.0, RATE, 1)


@pytest.mark.parametrize(
    "data",
    [
        wav(2 * len(PCM)),
        wav(199_999_998),  # a long recording of an ordinary length, cut
        wav(UNKNOWN, UNKNOWN, b"RF64", ds64(0, 2 * len(PCM), 2 * RATE)),
        wav(0, body=b"", last=LIST),
    ],
)
def test_a_wav_that_is_cut_or_empty_is_refused(tmp_path, data):
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(InputError, match="a.wav: (cut short|holds 0 samples)"):
        io.load(tmp_path / "a.wav")


def change(data, start, value):
    return data[:start] + value + data[start + len(value) :]


def test_other_formats_without_a_length(tmp_path):
    written = {}
    for form in ("AU", "CAF", "W64", "AIFF"):
        soundfile.write(tmp_path / form, AUDIO, RATE, format=form, subtype="PCM_16")
        written[form] = (tmp_path / form).read_bytes()
    caf = written["CAF"].index(b"data") + 4
    w64 = written["W64"].index(b"data") + 16
    aiff = written["AIFF"].index(b"SSND") + 4
    cases = {
        "a.au": change(written["AU"], 8, bytes(4)),
        "b.au": change(written["AU"], 8, b"\xff" * 4),
        "a.caf": change(written["CAF"], caf, b"\xff" * 8),
        "a.w64": change(written["W64"], w64, bytes(8)),
        "a.aiff": change(written["AIFF"], aiff, bytes(4)),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_allclose(io.load(tmp_path / name), AUDIO, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("form", ["AU", "CAF", "W64", "AIFF", "RF64", "NIST", "FLAC", "OGG", "MP3"])
def test_half_a_file_is_refused(tmp_path, form):
    path = tmp_path / "a"
    soundfile.write(path, AUDIO, RATE, format=form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cut short|holds 0 samples|not an audio file"):
        io.load(path)


def test_a_format_that_hides_its_length_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.voc", AUDIO, RATE, format="VOC", subtype="PCM_16")
    with pytest.raises(InputError, match="VOC does not show whether"):
        io.load(tmp_path / "a.voc")


def encoded(path, audio, **form):
    soundfile.write(path, audio, RATE, **form)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["FLAC", "OGG"])
def test_joined_streams_are_read_one_after_the_other(tmp_path, form):
    parts = [AUDIO, 0.5 * AUDIO[:5000], AUDIO[:7001]]
    data = [encoded(tmp_path / "a", part, format=form) for part in parts]
    alone = []
    for one in data:
        (tmp_path / "a").write_bytes(one)
        alone.append(io.load(tmp_path / "a"))
    (tmp_path / "b").write_bytes(b"".join(data))
    np.testing.assert_array_equal(io.load(tmp_path / "b"), np.concatenate(alone))
    assert io.info(tmp_path / "b") == (sum(map(len, parts)) / RATE, RATE, 1)
    other = encoded(tmp_path / "c", np.stack([AUDIO, AUDIO], 1), format=form)
    (tmp_path / "c").write_bytes(data[0] + other)
    expected = "16000 Hz with 1 channels and 16000 Hz with 2 channels"
    for read in (io.load, io.info):
        with pytest.raises(InputError, match=expected):
            read(tmp_path / "c")
    (tmp_path / "d").write_bytes(b"".join(data)[:-2000])
    with pytest.raises(InputError, match="cut short|holds 0 samples|damaged"):
        io.load(tmp_path / "d")


def without_length(data):
    return change(data, 21, bytes([data[21] & 0xF0, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    "samples, channels", [(4096, 1), (4097, 1), (9001, 2), (2, 2), (530_001, 1)]
)
def test_a_flac_without_a_length_is_read_to_its_end(tmp_path, samples, channels):
    """The last frame says where it ends: its number has one or two bytes here."""
    rng = np.random.default_rng(samples)
    audio = 0.1 * rng.normal(size=(samples, channels)) * (np.arange(samples)[:, None] % 999 > 99)
    data = encoded(tmp_path / "a.flac", audio, subtype="PCM_24")
    expected = io.load(tmp_path / "a.flac")
    for last in (b"", b"TAG" + bytes(125)):
        (tmp_path / "b.flac").write_bytes(without_length(data) + last)
        assert io.info(tmp_path / "b.flac") == (samples / RATE, RATE, channels)
        np.testing.assert_array_equal(io.load(tmp_path / "b.flac"), expected)
    tag = b"ID3\x03\x00\x00\x00\x00\x01\x00" + bytes(128)
    (tmp_path / "c.flac").write_bytes(tag + 2 * without_length(data))
    np.testing.assert_array_equal(io.load(tmp_path / "c.flac"), np.tile(expected, 2))
    (tmp_path / "d.flac").write_bytes(without_length(data)[:-1])
    with pytest.raises(InputError, match="states no length and ends within a frame: cut short"):
        io.load(tmp_path / "d.flac")


@pytest.mark.parametrize("form", ["WAV", "RF64", "AIFF", "AU", "CAF", "W64"])
def test_joined_files_of_other_formats_are_refused(tmp_path, form):
    """Programs play the first one; so did we, without a word."""
    for samples in (8000, 8001):
        data = encoded(tmp_path / "a", AUDIO[:samples], format=form, subtype="PCM_16")
        (tmp_path / "b").write_bytes(2 * data)
        assert len(io.load(tmp_path / "a")) == samples
        with pytest.raises(InputError, match="several files written one after the other"):
            io.load(tmp_path / "b")


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path, rate, mode):
    """The beginning is quiet: a guess from its bit rate would be wrong."""
    audio = 0.1 * np.random.default_rng(0).normal(size=3 * rate) * (np.arange(3 * rate) > rate)
    path = tmp_path / "a.mp3"
    with soundfile.SoundFile(path, "w", rate, 1, format="MP3", bitrate_mode=mode) as file:
        file.write(audio)
    data, found = path.read_bytes(), mp3.count_frames(path)
    assert found.stated == found.count and mp3.readable(path) is path
    assert len(io.load(path)) == 3 * RATE
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + b"\xff\xfb\x90\x64" * 32
    for name, content in {
        "bare": data[found.start :],
        "tagged": tag + data[found.start :],
        "two": data + data,
    }.items():
        path.write_bytes(content)
        expected = 6.1 if name == "two" else 3.05
        assert len(io.load(path)) / RATE == pytest.approx(expected, abs=0.25), name
        assert io.info(path)[0] == pytest.approx(len(io.load(path)) / RATE, abs=1e-3)
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match="cut short"):
        io.load(path)


def test_what_a_header_may_state(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    for rate in (1_000, 655_350):
        soundfile.write(path, AUDIO, rate)
        with pytest.raises(InputError, match=f"{rate} samples a second, expected 4000 to 384000"):
            io.load(path)
    soundfile.write(path, np.zeros((100, 65)), RATE)
    with pytest.raises(InputError, match="65 channels, expected 1 to 64"):
        io.load(path)
    soundfile.write(path, AUDIO, RATE)
    monkeypatch.setenv("A2F_BUDGET_AUDIO_HOURS_IN_MEMORY", "0.0001")
    with pytest.raises(InputError, match="at most 0.0001 h of a recording .*AUDIO_HOURS_IN_MEMORY"):
        io.load(path)
    assert len(next(io.blocks(path, 1.0))) == RATE
    monkeypatch.setenv("A2F_BUDGET_AUDIO_HOURS", "none")
    with pytest.raises(InputError, match="A2F_BUDGET_AUDIO_HOURS='none': expected a number"):
        io.blocks(path, 1.0)


def test_a_pipe_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(InputError, match="pipe"):
        io.load(tmp_path / "a.wav")
