"""What is sent is read back by decoders written from the formats, and nobody waits for another."""

import json
import socket
import struct
import threading
import time

import numpy as np
import pytest

from a2fjax import registry, rig
from a2fjax.animation import formats
from a2fjax.errors import InputError
from a2fjax.live import hub as hub_lib
from a2fjax.live.listeners import addresses, livelink, osc
from a2fjax.live.session import Frame


def frame(number=0, seed=0):
    rng = np.random.default_rng(seed)
    motion = rng.random(72).astype(np.float32)
    motion[68:] = [10.0, -20.0, 5.0, 15.0]
    audio = (0.1 * rng.standard_normal(320)).astype(np.float32)
    return Frame(number, motion, np.array([3.0, -2.0, 1.0]), audio, True)


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.settimeout(5)
        yield found


def address(found):
    return f"127.0.0.1:{found.getsockname()[1]}"


def decode_live_link(data):
    """A reader of Unreal's layout: FString is a length and bytes, all big-endian."""
    assert data[0] == 6
    at, texts = 1, []
    for _ in range(2):
        (length,) = struct.unpack_from(">i", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    number, part, above, below, count = struct.unpack_from(">ifiiB", data, at)
    values = struct.unpack_from(f">{count}f", data, at + 17)
    assert len(data) == at + 17 + 4 * count
    return texts, number + part, above / below, values


def test_unreal_reads_61_values(udp):
    listener = livelink.LiveLink(f"{address(udp)}/Anna")
    sent = frame()
    listener.send(sent)
    listener.send(frame(3))
    texts, number, rate, values = decode_live_link(udp.recv(2000))
    later = decode_live_link(udp.recv(2000))[1]
    listener.close()
    assert texts[1] == "Anna" and len(texts[0]) == 36 and rate == 50
    assert later - number == pytest.approx(3, abs=0.01)
    assert len(values) == 61
    np.testing.assert_allclose(values[:52], sent.motion[:52])  # Apple's order, as Unreal's.
    # Head, left and right eye: yaw to the right and pitch down, in radians.
    angles = np.degrees(values[52:])
    np.testing.assert_allclose(angles, [-3, -2, 1, -15, 5, 0, 20, 10, 0], atol=1e-4)
    assert livelink.NAMES[15:17] == ("JawLeft", "JawRight")


def decode_osc(data):
    """A reader of OSC 1.0 bundles: (address, values) of each message."""

    def text(data, at):
        end = data.index(b"\0", at)
        return data[at:end].decode(), end + 4 - end % 4

    assert data[:16] == b"#bundle\0\0\0\0\0\0\0\0\1"
    at, out = 16, []
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        part = data[at + 4 : at + 4 + size]
        at += 4 + size
        name, here = text(part, 0)
        tags, here = text(part, here)
        values = []
        for tag in tags[1:]:
            if tag == "s":
                value, here = text(part, here)
            else:
                (value,), here = struct.unpack_from(">f", part, here), here + 4
            values.append(value)
        assert here == len(part)
        out.append((name, values))
    return out


@pytest.mark.parametrize("kind", ["osc", "vmc"])
def test_osc_reads_back(udp, kind):
    listener, sent, found = hub_lib.make(kind, address(udp)), frame(), []
    listener.send(sent)
    while len(found) < (73 if kind == "osc" else 53):
        data = udp.recv(3000)
        assert len(data) <= 1400 and len(data) % 4 == 0
        found += decode_osc(data)
    listener.close()
    if kind == "osc":
        assert found[-1] == ("/a2fjax/head", [3.0, -2.0, 1.0])
        values = {name.removeprefix("/a2fjax/"): v[0] for name, v in found[:-1]}
        np.testing.assert_allclose([values[n] for n in rig.CHANNELS], sent.motion)
    else:
        assert found[-1] == ("/VMC/Ext/Blend/Apply", [])
        assert {name for name, _ in found[:-1]} == {"/VMC/Ext/Blend/Val"}
        values = {v[0]: v[1] for _, v in found[:-1]}
        assert values["JawOpen"] == pytest.approx(sent.motion[rig.INDEX["jawOpen"]])
        assert len(values) == 52


def test_python_osc_reads_our_bundles():
    package = pytest.importorskip("pythonosc.osc_bundle", reason="python-osc is not installed")
    for data in osc.bundles([osc.message("/a/b", "name", 0.25), osc.message("/c")]):
        first, second = package.OscBundle(data)
        assert (first.address, first.params) == ("/a/b", ["name", 0.25])
        assert (second.address, second.params) == ("/c", [])


def test_a_file_holds_every_frame_whatever_its_format(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.csv", "b.npz")]
    hub = hub_lib.Hub([hub_lib.make("file", path) for path in paths])
    frames = [frame(i, i) for i in range(300)]
    for each in frames:
        hub.send(each)
    assert not list(tmp_path.iterdir()), "no part of a file"
    hub.close()
    expected = np.stack([each.motion for each in frames])
    np.testing.assert_allclose(formats.read(paths[1]).motion, expected)
    np.testing.assert_allclose(formats.read(paths[0]).motion[:, :52], expected[:, :52], atol=1e-6)
    empty = hub_lib.Hub([hub_lib.make("file", str(tmp_path / "c.csv"))])
    empty.close()
    assert not (tmp_path / "c.csv").exists()


class Stuck:
    """Never returns from its first frame."""

    def __init__(self, target=""):
        self.release = threading.Event()
        self.got = []

    def send(self, frame):
        self.got.append(frame.number)
        self.release.wait(20)

    def close(self):
        pass


class Gone(Stuck):
    def send(self, frame):
        raise OSError(111, "Connection refused")


class Good(Stuck):
    def send(self, frame):
        self.got.append(frame.number)


def test_slow_and_vanished_listeners_cost_nobody_else_anything(caplog):
    stuck, gone, good = Stuck(), Gone(), Good()
    hub = hub_lib.Hub([stuck, gone, good])
    start = time.process_time()
    for number in range(1000):
        hub.send(frame(number))
        if number % 50 == 0:
            time.sleep(0.002)
    assert time.process_time() - start < 2.0
    deadline = time.monotonic() + 5
    while good.got[-1:] != [999] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert good.got[-1] == 999 and good.got == sorted(good.got)
    assert hub.left_out[0] == 1000 - 1 - hub_lib.HELD
    stuck.release.set()
    hub.close()
    assert caplog.text.count("Connection refused") == 1
    assert stuck.got[1:] == list(range(900, 1000)), "the latest frames, in order"


def test_websocket_clients_get_json_or_binary():
    pytest.importorskip("websockets", reason="the extra live is not installed")
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    port = free_port()
    listener = hub_lib.make("websocket", str(port))
    sent = frame(7)
    with (
        connect(f"ws://127.0.0.1:{port}/") as text,
        connect(f"ws://127.0.0.1:{port}/binary") as binary,
    ):
        assert json.loads(text.recv(5))["channels"] == list(rig.CHANNELS)
        assert json.loads(binary.recv(5))["fps"] == 50
        listener.send(sent)
        found = json.loads(text.recv(5))
        np.testing.assert_allclose(found["weights"], sent.motion, atol=1e-6)
        assert (found["frame"], found["time"]) == (7, 0.14)
        data = binary.recv(5)
    assert struct.unpack("<d", data[:8]) == (0.14,)
    values = np.frombuffer(data[8:308], "<f4")
    np.testing.assert_array_equal(values[:72], sent.motion)
    audio = np.frombuffer(data[308:], "<i2") / 32767
    np.testing.assert_allclose(audio, sent.audio, atol=1e-4)
    with pytest.raises(InputError, match="cannot be bound"):
        hub_lib.make("websocket", str(port))
    # A page that the user happens to visit must not get the microphone's audio.
    for origin in ("https://example.com", "null", "http://localhost.example.com", "http://["):
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{port}/binary", origin=origin)
    for origin in ("http://localhost:8000", "http://127.0.0.1", "http://[::1]:80"):
        with connect(f"ws://127.0.0.1:{port}/", origin=origin) as client:
            assert client.recv(5)
    listener.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(addresses.TOKEN_VARIABLE, "a-token-of-some-length")
        listener = hub_lib.make("websocket", f"0.0.0.0:{port}")
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://127.0.0.1:{port}/")
        shown, page = f"ws://127.0.0.1:{port}/?token=a-token-of-some-length", "https://example.com"
        with connect(shown, origin=page) as client:
            assert client.recv(5)
        listener.close()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_bad_addresses_are_one_line_each():
    for text in ("localhost", "localhost:0", "localhost:x", ":1", "localhost:99999"):
        with pytest.raises(InputError, match="HOST:PORT"):
            hub_lib.make("osc", text)
    with pytest.raises(InputError, match="no such host"):
        hub_lib.make("livelink", "no-such-host.invalid:11111")
    with pytest.raises(InputError, match="A2F_LIVE_TOKEN"):
        addresses.token_for("0.0.0.0", where="--ws")
    with pytest.raises(InputError, match="'.csv'"):
        hub_lib.make("file", "a.cvs")
    with pytest.raises(InputError, match="livelink"):
        hub_lib.make("livelnk", "x")
    assert addresses.admits("secret-secret-16", "Bearer secret-secret-16")
    assert not addresses.admits("secret-secret-16", "Bearer secret-secret-1")


def test_a_plugin_adds_a_listener(tmp_path):
    got = []

    @registry.listeners.register("test-list")
    class ToList(Good):
        def send(self, frame):
            got.append((frame.number, self.target))

        def __init__(self, target):
            self.target = target

    hub = hub_lib.Hub([hub_lib.make(*hub_lib.parse("test-list=here"))])
    hub.send(frame(4))
    hub.close()
    assert got == [(4, "here")]
