import numpy as np
import pytest
import soundfile
import soxr

from a2fjax.audio import SAMPLE_RATE, io
from a2fjax.errors import InputError


def noise(samples, channels=1, seed=0):
    shape = samples if channels == 1 else (samples, channels)
    return (np.random.default_rng(seed).normal(size=shape) * 0.1).astype(np.float32)


def refuses(path, *words, read=io.load):
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("rate", [7000, 8000, 11025, 16000, 22050, 44100, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_rate_and_channel_count_is_the_resampled_mean(tmp_path, rate, channels):
    path = tmp_path / "a.wav"
    audio = noise(rate // 2 + 13, channels)
    soundfile.write(path, audio, rate, subtype="FLOAT")
    mono = audio.reshape(len(audio), -1).mean(axis=1, dtype=np.float32)
    expected = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    got = io.load(path)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-7)
    assert io.info(path) == (len(audio) / rate, rate, channels)


@pytest.mark.parametrize(("extension", "error"), [("flac", 1e-4), ("ogg", 0.05), ("mp3", 0.05)])
def test_saved_formats_come_back(tmp_path, extension, error):
    seconds = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    audio = (0.5 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    path = tmp_path / f"a.{extension}"
    io.save(path, audio)
    got = io.load(path)
    assert len(got) == len(audio)
    assert np.abs(got - audio)[800:-800].max() < error
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("seconds", [0.02, 0.333, 1.0, 100.0])
def test_blocks_are_exactly_the_samples_of_load(tmp_path, rate, seconds):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(5 * rate + 77, 2), rate)
    whole = io.load(path)
    parts = list(io.blocks(path, seconds))
    size = round(seconds * SAMPLE_RATE)
    assert {len(p) for p in parts[:-1]} <= {size} and len(parts[-1]) <= size
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_an_hour_is_read_in_bounded_memory(tmp_path):
    import tracemalloc

    path = tmp_path / "hour.wav"
    second = (noise(8000) * 32767).astype(np.int16)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(3600):
            file.write(second)
    tracemalloc.start()
    count = sum(len(block) for block in io.blocks(path, 10.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3600 * SAMPLE_RATE
    assert peak < 8e6


def test_resampling_keeps_the_time_of_a_click(tmp_path):
    for rate in (7000, 44100):
        audio = np.zeros(rate, np.float32)
        audio[rate // 2] = 0.9
        soundfile.write(tmp_path / "a.wav", audio, rate)
        assert np.argmax(np.abs(io.load(tmp_path / "a.wav"))) == SAMPLE_RATE // 2


def test_files_that_are_no_audio_are_refused(tmp_path):
    folder = tmp_path / "folder.wav"
    folder.mkdir()
    refuses(folder, "folder")
    (tmp_path / "speech.wav").write_bytes(b"")
    refuses(tmp_path / "spech.wav", "no such file", "'speech.wav'")
    refuses(tmp_path / "nowhere" / "a.wav", "no such file")
    refuses(tmp_path / "speech.wav", "empty file")
    for name in ("text.wav", "text.txt", "text.raw", "text"):
        (tmp_path / name).write_bytes(b"this is not an audio file " * 40)
        refuses(tmp_path / name, "not an audio file")
        refuses(tmp_path / name, "not an audio file", read=io.info)


@pytest.mark.parametrize(
    ("extension", "samples"), [("wav", 0), ("wav", 1), ("aiff", 0), ("flac", 1), ("ogg", 1)]
)
def test_nothing_and_one_sample_are_refused(tmp_path, extension, samples):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, noise(samples), SAMPLE_RATE)
    refuses(path, f"holds {samples} samples")
    refuses(path, read=lambda p: io.blocks(p, 1.0))


def test_too_few_samples_at_a_high_rate_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(5), 192000)
    refuses(tmp_path / "a.wav", "too short")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_time(tmp_path, bad):
    audio = noise(3 * 44100, 2)
    audio[2 * 44100, 1] = bad
    soundfile.write(tmp_path / "a.wav", audio, 44100, subtype="FLOAT")
    refuses(tmp_path / "a.wav", "2.0000 s", "finite")


@pytest.mark.parametrize("extension", ["wav", "aiff", "flac", "mp3"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
def test_a_file_cut_short_is_refused(tmp_path, extension, share):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, noise(48000), SAMPLE_RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refuses(path)
    with pytest.raises(InputError, match="cut short|not an audio file|holds 0 samples"):
        list(io.blocks(path, 0.1))


def test_a_wav_of_unknown_length_is_read(tmp_path):
    path = tmp_path / "a.wav"
    audio = noise(1600)
    soundfile.write(path, audio, SAMPLE_RATE, subtype="FLOAT")
    data = bytearray(path.read_bytes())
    start = data.index(b"data") + 4
    data[start : start + 4] = b"\xff\xff\xff\xff"
    data[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    np.testing.assert_array_equal(io.load(path), audio)


def test_a_failed_save_leaves_nothing(tmp_path):
    refuses(tmp_path / "a.wave", "'wav'", read=lambda p: io.save(p, noise(10)))
    refuses(tmp_path / "no" / "a.wav", "does not exist", read=lambda p: io.save(p, noise(10)))
    with pytest.raises(ValueError, match="not finite"):
        io.save(tmp_path / "a.wav", np.array([0.0, np.nan]))
    refuses(tmp_path / "a.mp3", "written", read=lambda p: io.save(p, noise(10), 7001))
    assert list(tmp_path.iterdir()) == []


def test_loud_samples_are_clipped_not_wrapped(tmp_path):
    io.save(tmp_path / "a.wav", np.array([2.0, -2.0, 0.5]))
    np.testing.assert_allclose(io.load(tmp_path / "a.wav"), [1.0, -1.0, 0.5], atol=1e-4)


@pytest.mark.parametrize(("name", "rate"), [("a.wav", 44_100), ("a.flac", 8000), ("a.wav", 16_000)])
def test_native_blocks_return_the_recording_unchanged(tmp_path, name, rate):
    audio = noise(3 * rate + 5, 2)
    soundfile.write(tmp_path / name, audio, rate, "PCM_16")
    pieces = list(io.native_blocks(tmp_path / name))
    assert {rate_read for rate_read, _ in pieces} == {rate}
    whole = np.concatenate([piece for _, piece in pieces])
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, soundfile.read(tmp_path / name, dtype="float32")[0])


def test_native_refuses_what_load_refuses(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    refuses(path, "empty", read=lambda p: list(io.native_blocks(p)))
    refuses(tmp_path / "b.wav", "no such file", read=lambda p: list(io.native_blocks(p)))
    soundfile.write(path, noise(48_000), 16_000)
    path.write_bytes(path.read_bytes()[:50_000])
    refuses(path, "cut short", read=lambda p: list(io.native_blocks(p)))
