"""Audio tracks of MP4 and QuickTime files, written by PyAV and read back in sync."""

import datetime
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from a2fjax.audio import SAMPLE_RATE, io
from a2fjax.errors import InputError

av = pytest.importorskip("av")

RATE = 48_000


def sound(seconds=1.0, rate=RATE, channels=1, seed=0):
    """Band-limited noise with a click every quarter of a second; [n, channels]."""
    rng = np.random.default_rng(seed)
    wave = np.stack(
        [
            np.convolve(rng.normal(size=round(seconds * rate)) * 0.1, np.ones(9) / 9, "same")
            for _ in range(channels)
        ],
        axis=1,
    )
    wave[rate // 4 :: rate // 4] += 0.7
    return wave.clip(-1, 1).astype(np.float32)


def write(path, wave, rate=RATE, codec="aac", picture=True, timecode="", late=0, frame_rate=30):
    """Writes a video with audio `wave` [n, channels] that starts `late` samples in."""
    layout = {1: "mono", 2: "stereo"}[wave.shape[1]]
    form = "fltp" if codec == "aac" else {"pcm_s16le": "s16", "pcm_f32le": "flt"}[codec]
    with av.open(str(path), "w") as container:
        video = None
        if picture:
            video = container.add_stream("mpeg4", rate=frame_rate)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
            if timecode:
                video.metadata["timecode"] = timecode
        track = container.add_stream(codec, rate=rate)
        track.layout, track.format = layout, form
        if video is not None:
            for i in range(30):
                picture_frame = av.VideoFrame(32, 32, "yuv420p")
                picture_frame.pts = i
                for packet in video.encode(picture_frame):
                    container.mux(packet)
            for packet in video.encode():
                container.mux(packet)
        for i in range(0, len(wave), 1024):
            block = wave[i : i + 1024]
            if form == "s16":
                block = (block * 32767).astype(np.int16)
            block = block.T if form == "fltp" else block.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), form, layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, i + late, Fraction(1, rate)
            for packet in track.encode(frame):
                container.mux(packet)
        for packet in track.encode():
            container.mux(packet)
    return path


def lag(decoded, expected):
    """Returns the samples by which `decoded` is late, from the peak of their correlation."""
    size = 1 << (len(decoded) + len(expected) - 1).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(expected, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak - size if peak > size // 2 else peak


@pytest.mark.parametrize(("codec", "steps"), [("pcm_s16le", 32767), ("pcm_f32le", None)])
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_track_keeps_its_samples(tmp_path, codec, steps, channels):
    wave = sound(channels=channels)
    path = write(tmp_path / "a.mov", wave, codec=codec)
    expected = wave if steps is None else (wave * steps).astype(np.int16) / np.float32(32768)
    pieces = list(io.native_blocks(path))
    assert {rate for rate, _ in pieces} == {RATE}
    np.testing.assert_array_equal(np.concatenate([p for _, p in pieces]), expected)
    assert io.info(path) == (1.0, RATE, channels)
    soundfile.write(tmp_path / "a.wav", expected, RATE, subtype="FLOAT")
    np.testing.assert_allclose(io.load(path), io.load(tmp_path / "a.wav"), atol=1e-7)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.m4a"])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_encoder_priming_does_not_shift_audio(tmp_path, name, rate):
    wave = sound(rate=rate)
    path = write(tmp_path / name, wave, rate=rate, picture=name != "a.m4a")
    decoded = np.concatenate([p for _, p in io.native_blocks(path)])
    assert abs(lag(decoded[:, 0], wave[:, 0])) <= 1e-3 * rate
    assert len(decoded) == len(wave)
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype="FLOAT")
    plain = io.load(tmp_path / "a.wav")
    assert abs(lag(io.load(path), plain)) <= 1e-3 * SAMPLE_RATE
    assert np.corrcoef(io.load(path), plain[: len(io.load(path))])[0, 1] > 0.95


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_a_late_audio_track_begins_with_silence(tmp_path, codec):
    wave = sound()
    path = write(tmp_path / "a.mov", wave, codec=codec, late=RATE // 5)
    decoded = np.concatenate([p for _, p in io.native_blocks(path)])[:, 0]
    assert abs(lag(decoded, wave[:, 0]) - RATE // 5) <= 1e-3 * RATE
    assert not decoded[: RATE // 5 - 2048].any()
    assert abs(len(decoded) - len(wave) - RATE // 5) <= 1e-3 * RATE


def test_blocks_are_the_samples_of_load(tmp_path):
    path = write(tmp_path / "a.mp4", sound(1.7))
    whole = io.load(path)
    np.testing.assert_array_equal(np.concatenate(list(io.blocks(path, 0.3))), whole)
    assert len(whole) == round(1.7 * SAMPLE_RATE)


def test_content_identifies_the_format(tmp_path):
    path = write(tmp_path / "a.mp4", sound())
    named_wrong = tmp_path / "a.wav"
    path.rename(named_wrong)
    assert len(io.load(named_wrong)) == SAMPLE_RATE
    soundfile.write(tmp_path / "b.wav", sound(), RATE)
    (tmp_path / "b.wav").rename(tmp_path / "b.mov")
    assert len(io.load(tmp_path / "b.mov")) == SAMPLE_RATE


def test_files_without_an_audio_track_are_refused(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=30)
        video.width = video.height = 32
        for packet in [*video.encode(av.VideoFrame(32, 32, "yuv420p")), *video.encode()]:
            container.mux(packet)
    for read in (io.load, io.info, lambda p: next(io.native_blocks(p))):
        with pytest.raises(InputError, match="silent.mp4: has no audio track"):
            read(path)


@pytest.mark.parametrize("name", ["a.mov", "a.mp4", "a.m4a"])
@pytest.mark.parametrize("faststart", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, name, faststart):
    path = write(tmp_path / name, sound(0.6), picture=name != "a.m4a")
    if faststart:  # the index comes first, so that a cut file still opens
        first = tmp_path / f"first{path.suffix}"
        with (
            av.open(str(path)) as source,
            av.open(str(first), "w", options={"movflags": "faststart"}) as target,
        ):
            tracks = {s.index: target.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = tracks[packet.stream.index]
                    target.mux(packet)
        path = first
    data = path.read_bytes()
    cuts = np.random.default_rng(1).integers(1, len(data) - 1, 25)
    for cut in [1, 7, 8, 30, len(data) - 1, *cuts]:
        path.write_bytes(data[: int(cut)])
        with pytest.raises(InputError, match=path.name) as error:
            io.load(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mov", "pcm_s16le")])
def test_bytes_that_are_overwritten_raise_one_line_or_read(tmp_path, name, codec):
    path = write(tmp_path / name, sound(0.2), codec=codec, timecode="10:00:00:00")
    data = path.read_bytes()
    index = data.index(b"moov")  # the samples come before it; what is told about them matters
    rng = np.random.default_rng(2)
    refused = 0
    for n in range(120):
        damaged = bytearray(data)
        start = int(rng.integers(index if n % 3 else 8, len(data) - 8))
        size = int(rng.integers(1, 9))
        damaged[start : start + size] = rng.bytes(size)
        path.write_bytes(damaged)
        for read in (io.load, io.info, io.recording_start):
            try:
                decoded = read(path)
                assert decoded is None or np.isfinite(decoded).all()
            except InputError as error:
                refused += 1
                assert "\n" not in str(error) and name in str(error)
    assert refused > 10


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", sound(0.2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"extra `captures`: pip install 'a2fjax\[captures\]'"):
        io.load(path)


def broadcast(path, samples_since_midnight, rate=RATE):
    """A WAV with a bext chunk by EBU Tech 3285, in front of the samples."""
    soundfile.write(path, sound(), rate, "PCM_16")
    data = path.read_bytes()
    body = b"\0" * 320 + b"2026-10-06" + b"18:43:59"
    body += struct.pack("<QH", samples_since_midnight, 1) + b"\0" * 254
    chunk = b"bext" + struct.pack("<I", len(body)) + body
    whole = data[:12] + chunk + data[12:]
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])


def test_time_of_day_of_broadcast_wavs(tmp_path):
    path = tmp_path / "a.wav"
    seconds = datetime.timedelta(hours=18, minutes=43, seconds=58, milliseconds=250)
    broadcast(path, round(seconds.total_seconds() * RATE))
    assert io.recording_start(path) == pytest.approx(seconds.total_seconds(), abs=1e-9)
    assert len(io.load(path)) == SAMPLE_RATE
    broadcast(path, 0)
    assert io.recording_start(path) is None
    soundfile.write(tmp_path / "b.wav", sound(), RATE)
    assert io.recording_start(tmp_path / "b.wav") is None


@pytest.mark.parametrize(
    ("text", "rate", "seconds"),
    [
        ("18:43:58:29", 30, 67438 + 29 / 30),
        ("00:00:01:12", 24, 1.5),
        # SMPTE ST 12-1: the number after 00:00:59;29 is 00:01:00;02, one frame later.
        ("00:01:00;02", Fraction(30000, 1001), 1800 * 1001 / 30000),
        ("00:10:00;00", Fraction(30000, 1001), 17982 * 1001 / 30000),
        ("01:00:00;00", Fraction(60000, 1001), 215784 * 1001 / 60000),
    ],
)
def test_time_of_day_of_the_timecode(tmp_path, text, rate, seconds):
    path = write(tmp_path / "a.mov", sound(0.2), timecode=text, frame_rate=rate)
    assert io.recording_start(path) == pytest.approx(seconds, abs=1e-6)


def test_no_timecode_gives_no_time_of_day(tmp_path):
    assert io.recording_start(write(tmp_path / "a.mov", sound(0.2))) is None
