"""`a2fjax stream` as a user gives it."""

import io
import queue
import socket
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from a2fjax.animation import formats
from a2fjax.cli import main
from a2fjax.live import hub as hub_lib
from a2fjax.live import run as run_lib
from a2fjax.live import session as session_lib
from a2fjax.live import sources


@pytest.fixture(scope="module")
def wav(tmp_path_factory, speech):
    path = tmp_path_factory.mktemp("audio") / "in.wav"
    soundfile.write(path, speech(0.6), 16000, subtype="FLOAT")
    return path


class Input:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


def test_a_files_frames_are_those_of_infer(run, model, wav, tmp_path, capsys):
    expected = model.predict(wav).curves
    out = tmp_path / "out.npz"
    assert main.main(["stream", str(run), "--audio", str(wav), "--burst", "--out", str(out)]) == 0
    found = formats.read(out).motion
    np.testing.assert_array_equal(found, expected)
    printed = capsys.readouterr()
    assert "30 frames" in printed.out and "delay 120 ms" in printed.err


def test_raw_samples_reach_unreal_at_speed(run, speech, tmp_path, monkeypatch, capsys):
    pcm = (speech(0.4, rate=48_000) * 32767).astype("<i2").tobytes()
    monkeypatch.setattr(sys, "stdin", Input(pcm + b"\0"))  # A part of a sample at the end.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(5)
        target = f"127.0.0.1:{udp.getsockname()[1]}"
        out = tmp_path / "out.csv"
        start = time.monotonic()
        code = main.main(
            ["stream", str(run), "--audio", "-", "--rate", "48000", "--livelink", target]
            + ["--out", str(out), "--idle", "all", "--meter", "--smooth", "4"]
        )
        assert code == 0
        frames = [udp.recv(2000) for _ in range(20)]
    assert time.monotonic() - start > 0.4
    assert all(data[0] == 6 for data in frames)
    assert 20 <= len(formats.read(out).motion) <= 21
    assert "voice" in capsys.readouterr().err


class Feeder:
    """A pacer whose ticks bring two packets of 10 ms each, none for a while, then all at once."""

    moved = 0

    def __init__(self, samples):
        self.packets = list(samples.reshape(-1, 160))
        self.queue, self.ticks, self.asked = queue.Queue(), 0, threading.Semaphore(0)

    def blocks(self):
        while True:
            self.asked.release()  # The packet before has been heard.
            packet = self.queue.get()
            if packet is None:
                return
            yield packet

    def wait(self):
        self.ticks += 1
        held = 10 <= self.ticks < 16
        for packet in [] if held else self.packets[: 2 if self.ticks != 16 else 14]:
            self.asked.acquire()
            self.queue.put(packet)
            self.packets.pop(0)
        if not self.packets:
            self.queue.put(None)
        elif not held:
            self.asked.acquire()
            self.asked.release()


class Kept:
    lossless = True

    def __init__(self):
        self.audio = []

    def send(self, frame):
        self.audio.append(frame.audio)

    def close(self):
        pass


def test_a_paced_source_fills_gaps_with_silence_and_ends(streams, speech):
    """Packets come with a pause of 120 ms; frames do not stop meanwhile."""
    samples = speech(0.6)
    kept, feeder = Kept(), Feeder(samples)
    source = sources.Buffered(feeder.blocks(), 16_000, buffer_ms=20, waits=False)
    session = session_lib.Session(streams())
    summary = run_lib.paced(source.take, session, hub_lib.Hub([kept]), pacer=feeder)
    assert 80 * 16 < source.buffer.counts.gaps <= 120 * 16
    assert summary.frames == len(kept.audio) >= 34
    heard = np.concatenate(kept.audio)
    loud = np.sum(np.square(heard)), np.sum(np.square(samples))
    assert loud[0] == pytest.approx(loud[1], rel=0.02), "nothing is lost"


def test_bad_input_is_one_line_and_exit_2(run, wav, tmp_path, monkeypatch, capsys):
    def fails(*args, audio=wav):
        assert main.main(["stream", str(run), "--audio", str(audio), *args]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        lines = [line for line in lines if not line.startswith("delay ")]
        assert len(lines) == 1 and lines[0].startswith("a2fjax stream: error: ")
        return lines[0]

    out = str(tmp_path / "out.csv")
    assert "nobody listens" in fails()
    assert "did you mean '.csv'" in fails("--out", str(tmp_path / "a.cvs"))
    assert "no such host" in fails("--osc", "no-such-host.invalid:9000")
    assert "blinks" in fails("--out", out, "--idle", "blink")
    assert "in.wv" in fails("--out", out, audio=tmp_path / "in.wv")
    assert "s16le" in fails("--out", out, "--format", "s16", audio="-")
    assert "4000 to 384000" in fails("--out", out, "--rate", "1", audio="-")
    monkeypatch.setattr(sys, "stdin", Input(b"this is text, and not audio at all" * 40))
    assert "not samples of f32le" in fails("--out", out, "--format", "f32le", audio="-")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert "extra live" in fails("--out", out, audio="mic")
    assert not list(tmp_path.iterdir())


def test_a_microphone_that_is_not_there_is_one_line(monkeypatch):
    class PortAudioError(Exception):
        pass

    def query(device, kind):
        raise PortAudioError("Error querying device -1")

    fake = type("M", (), {"query_devices": staticmethod(query), "PortAudioError": PortAudioError})
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    with pytest.raises(Exception, match="no microphone"):
        sources.microphone()


def test_a_microphone_is_heard_at_its_rate(monkeypatch):
    class Device:
        PortAudioError = RuntimeError

        @staticmethod
        def query_devices(device, kind):
            return {"default_samplerate": 48_000.0}

        class InputStream:
            def __init__(self, callback, blocksize, **options):
                self.callback, self.blocksize = callback, blocksize

            def start(self):
                data = np.full((self.blocksize, 1), 0.5, np.float32)
                threading.Thread(target=lambda: self.callback(data, 480, None, None)).start()

            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass

    monkeypatch.setitem(sys.modules, "sounddevice", Device)
    blocks, rate = sources.microphone()
    block = next(blocks)
    assert rate == 48_000 and block.shape == (480,) and (block == 0.5).all()
