"""The processes of a run find each other, and nobody else takes part or learns anything."""

import contextlib
import json
import os
import resource
import socket
import struct
import threading
import time

import pytest

from a2fjax.errors import InputError, WorkFailed
from a2fjax.training.distributed import failure_detector, interface, links, messages, rendezvous
from a2fjax.training.distributed.failure_detector import FailureDetector

SECRET = b"5" * 64


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Run:
    """A run whose processes are threads."""

    def __init__(self, size=2, patience=20.0):
        self.port, self.size, self.patience = free_port(), size, patience
        self.detectors, self.ended, self.errors = {}, {}, {}
        self.threads = []

    def start(self, rank, secret=SECRET, session="s", size=None, patience=None):
        def body():
            try:
                self.detectors[rank] = FailureDetector(
                    ("127.0.0.1", self.port), rank=rank, size=size or self.size, session=session,
                    secret=secret, patience=patience or self.patience,
                    ended=lambda text, code: self.end(rank, text, code),
                )  # fmt: skip
            except (InputError, WorkFailed) as error:
                self.errors[rank] = str(error)

        self.threads.append(threading.Thread(target=body, daemon=True))
        self.threads[-1].start()

    def end(self, rank, text="", code=0):
        """Closes the connections of a process, as its end does."""
        self.ended.setdefault(rank, (text, code))
        for link in self.detectors[rank]._links.values():
            link._socket.shutdown(socket.SHUT_RDWR)

    def joined(self):
        for thread in self.threads:
            thread.join(30)
        return self

    def connect(self):
        until(lambda: _listens(self.port))
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def pair():
    run = Run()
    run.start(0)
    run.start(1)
    run.joined()
    assert sorted(run.detectors) == [0, 1], run.errors
    return run


def together(*calls):
    results = [None] * len(calls)

    def body(number, call):
        results[number] = call()

    threads = [threading.Thread(target=body, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return results


def test_values_and_large_bytes_of_the_first_reach_all(pair):
    for value in (b"", b"12", os.urandom(3_000_000)):
        found = together(
            lambda v=value: pair.detectors[0].meet(v), lambda: pair.detectors[1].meet(b"mine")
        )
        assert found == [value, value]
    together(pair.detectors[0].leave, pair.detectors[1].leave)
    time.sleep(0.1)
    assert not pair.ended


def test_a_failure_is_told_with_its_reason(pair):
    assert pair.detectors[1].fail("the disk is full", 1)
    assert pair.detectors[1].fail("again", 1)
    # JAX would abort process 1 if process 0, which holds the coordination service, ended first.
    time.sleep(0.5)
    assert not pair.ended
    pair.end(1)
    until(lambda: 0 in pair.ended)
    text, code = pair.ended[0]
    assert text.startswith("process 1 (") and text.endswith("the disk is full") and code == 1
    assert not pair.detectors[0].fail("late", 2)


def test_a_failure_of_the_first_process_reaches_all_before_it_ends(pair):
    assert pair.detectors[0].fail("the disk is full", 1)
    assert pair.ended[1][0].endswith("the disk is full")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_does_not_end_holds_up_the_first_for_a_while_only(pair, monkeypatch, victim):
    monkeypatch.setattr(failure_detector, "_OUTLIVE_SECONDS", 0.3)
    monkeypatch.setattr(pair.detectors[1], "_ended", lambda *_: None)
    assert pair.detectors[victim].fail("the disk is full", 1)
    until(lambda: victim == 0 or 0 in pair.ended)


@pytest.mark.parametrize("said_goodbye", [False, True])
def test_a_connection_that_closes_early_is_a_lost_process(pair, said_goodbye):
    link = pair.detectors[1]._links[0]
    if said_goodbye:
        link.put("bye")
    link._socket.shutdown(socket.SHUT_RDWR)
    until(lambda: 0 in pair.ended)
    assert "process 1 (" in pair.ended[0][0] and "is gone" in pair.ended[0][0]
    assert pair.ended[0][1] == 70


def test_a_goodbye_of_the_first_process_before_the_end_is_no_end(pair):
    pair.detectors[0]._links[1].put("bye")
    until(lambda: 1 in pair.ended)
    assert "sent a message 'bye' that is not expected" in pair.ended[1][0]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("go", {"port": 1}),
        ("value", {"meeting": 1}),
        ("here", {"meeting": 7}),
        ("here", {"meeting": -1}),
        ("here", {"meeting": True}),
        ("here", {"meeting": 10**400}),
        ("here", {}),
        ("beat", {"more": 1}),
        ("nonsense", {}),
        ("end", {"text": ["x"], "code": 1}),
    ],
)
def test_a_message_that_no_process_sends_ends_the_run(pair, kind, fields):
    pair.detectors[1]._links[0].put(kind, **fields)
    until(lambda: 0 in pair.ended)
    assert "process 1 (" in pair.ended[0][0] and pair.ended[0][1] == 70


@pytest.mark.parametrize("body", [b"[" * 60_000, b'{"kind": {}}', b"[]", b"\xff", b"", b"NaN"])
def test_bodies_that_are_no_message(body):
    with pytest.raises(messages.Violation):
        messages.decode(body)


def test_a_listener_that_dies_ends_the_run(pair, monkeypatch):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(pair.detectors[0], "_handle", broken)
    pair.detectors[1]._links[0].put("beat")
    until(lambda: 0 in pair.ended)
    assert "the failure detector failed: KeyError" in pair.ended[0][0]


def test_silence_is_noticed_but_not_after_a_pause_of_ones_own(monkeypatch):
    monkeypatch.setattr(failure_detector, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(failure_detector, "BEAT_SECONDS", 0.1)
    run = Run()
    run.start(0)
    run.start(1)
    run.joined()
    time.sleep(1.0)
    assert not run.ended  # Each hears the other.
    now, skip = time.monotonic, [0.0]
    monkeypatch.setattr(failure_detector.time, "monotonic", lambda: now() + skip[0])
    skip[0] = 100.0
    time.sleep(0.5)
    assert not run.ended
    run.detectors[1]._over.set()  # It falls silent.
    until(lambda: 0 in run.ended)
    assert "was not heard of for" in run.ended[0][0]


def test_strangers_hear_nothing_and_stop_nobody(monkeypatch):
    monkeypatch.setattr(rendezvous, "HANDSHAKE_SECONDS", 1.0)
    run = Run()
    run.start(0)
    silent = [run.connect() for _ in range(300)]
    hello = {"rank": 1, "size": 2, "session": "s", "name": "x", "nonce": "n"}
    body = messages.encode("hello", **hello)
    texts = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        json.dumps({"rank": 1, "size": 2, "session": "s"}).encode() + b"\n",
        struct.pack("!II32s", len(body), 0, b"\0" * 32) + body,
        struct.pack("!II32s", 2**31, 2**31, b"\0" * 32),
        b"\0" * 100_000,
    ]
    heard = []
    for text in texts:
        with run.connect() as stranger:
            with contextlib.suppress(OSError):
                stranger.sendall(text)
                stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                heard.append(stranger.recv(1000))
    assert set(heard) <= {b""}
    run.start(1)
    run.joined()
    assert sorted(run.detectors) == [0, 1], run.errors
    for one in silent:
        one.close()


def test_silent_and_half_open_clients_do_not_extend_the_deadline():
    run = Run(patience=1.5)
    began = time.monotonic()
    run.start(0)
    clients = [run.connect() for _ in range(3)]
    clients[1].sendall(b"\0\0\0")
    run.joined()
    assert "1 of 2 processes came within 2 s; missing: 1" in run.errors[0]
    assert time.monotonic() - began < 5
    for client in clients:
        client.close()


def test_an_answer_is_proved_too():
    """Who listens in the place of process 0 learns nothing but the first message."""
    run = Run(patience=1.0)
    with socket.create_server(("127.0.0.1", run.port)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    link = links.Link(server.accept()[0], links.derive(b"other", "hello"))
                    link.put("welcome", nonce="n")

        threading.Thread(target=answer, daemon=True).start()
        run.start(1)
        run.joined()
    assert "has another A2F_SECRET" in run.errors[1]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"secret": b"6" * 64}, "has another A2F_SECRET"),
        ({"session": "old"}, "turned away: process 0 belongs to session 's', not 'old'"),
        ({"size": 3}, "process 0 expects 2 processes, not 3"),
    ],
)
def test_processes_of_another_run_are_refused(other, says):
    run = Run()
    run.start(0, patience=2.0)
    run.start(1, patience=1.0, **other)
    run.joined()
    assert says in run.errors[1] and not run.detectors


def test_frames_cannot_be_repeated_altered_or_reflected():
    def pair_of_links():
        left, right = socket.socketpair(socket.AF_UNIX)
        made = [links.Link(left, b"k"), links.Link(right, b"k")]
        made[0].secure(send=b"up", receive=b"down")
        made[1].secure(send=b"down", receive=b"up")
        for link in made:
            link.admit(values=False)
        return *made, left

    one, other, raw = pair_of_links()
    one.put("beat")
    sent = struct.pack("!II32s", 16, 0, links._code(b"up", 0, b'{"kind": "beat"}', 0, _empty()))
    assert other.read() == [({"kind": "beat"}, b"")]
    raw.sendall(sent + b'{"kind": "beat"}')  # Again.
    with pytest.raises(messages.Violation, match="not authentic"):
        other.read()
    one, other, raw = pair_of_links()
    code = links._code(b"down", 0, b'{"kind": "beat"}', 0, _empty())  # Of the other direction.
    raw.sendall(struct.pack("!II32s", 16, 0, code) + b'{"kind": "beat"}')
    with pytest.raises(messages.Violation, match="not authentic"):
        other.read()
    one, other, raw = pair_of_links()
    raw.sendall(struct.pack("!II32s", 1 << 17, 0, b""))
    with pytest.raises(messages.Violation, match="a frame of 131072 bytes"):
        other.read()
    one, other, raw = pair_of_links()
    one.put("value", b"x", meeting=1)  # Only the first process sends bytes.
    with pytest.raises(messages.Violation, match="a frame of"):
        other.read()


def _empty():
    import hashlib

    return hashlib.sha256(b"").digest()


def test_descriptors_above_1024():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("the system allows no more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    with contextlib.ExitStack() as stack:
        null = os.open("/dev/null", os.O_RDONLY)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        stack.callback(os.close, null)
        while (number := os.dup(null)) < 1100:
            stack.callback(os.close, number)
        stack.callback(os.close, number)
        run = Run()
        run.start(0)
        run.start(1)
        run.joined()
        assert run.detectors[0]._links[1].fileno() > 1024
        assert together(
            lambda: run.detectors[0].meet(b"v"), lambda: run.detectors[1].meet()
        ) == [b"v", b"v"]  # fmt: skip


def test_one_interface_is_bound(monkeypatch):
    port = free_port()
    with interface.listen("localhost", port, bind="", deadline=0) as server:
        assert server.getsockname()[0] == "127.0.0.1"
    with interface.listen(socket.gethostname(), port, bind="127.0.0.1", deadline=0) as server:
        assert server.getsockname()[0] == "127.0.0.1"
    with pytest.raises(InputError, match="is no address of this machine; set A2F_BIND"):
        interface.listen("192.0.2.1", port, bind="", deadline=0)
    monkeypatch.setattr(interface, "_default_route", lambda: "127.0.0.1")
    with interface.listen("no-such-host.invalid", port, bind="", deadline=0) as server:
        assert server.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(interface, "_default_route", lambda: "")
    with pytest.raises(WorkFailed, match="the name is not known here"):
        interface.listen("no-such-host.invalid", port, bind="", deadline=0)


def test_a_machine_whose_own_name_is_a_loopback_address_listens_on_its_network(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(interface.socket, "getaddrinfo", lambda *a, **k: found)
    monkeypatch.setattr(interface, "_default_route", lambda: "10.1.2.3")
    assert interface._address("node-1", 0.0) == "10.1.2.3"
    assert interface._address("localhost", 0.0) == "127.0.1.1"
