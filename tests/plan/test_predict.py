import pytest

from a2fjax.plan import report
from a2fjax.plan.predict import Speeds, predict, room, seconds_of

SPEEDS = Speeds(intra=400, inter=50, mfu=0.5, kernel_us=2, latency_us=(10, 40))


def facts(**changes):
    out = {
        "topology": "h100:16",
        "devices": 16,
        "hosts": 2,
        "mesh": {"data": 16, "fsdp": 1},
        "jax": "0",
        "batch_size": 64,
        "window_frames": 256,
        "accumulate": 1,
        "remat": "none",
        "precision": "bfloat16",
        "parameters": {"trained": 10, "constant": 0},
        "bytes": {"trained": 40, "trained_cut": 0, "constant_cut": 0},
        "memory": {"arguments": 2e9, "outputs": 1e9, "aliased": 1e9, "temporaries": 3e9, "code": 0},
        "flops": {"dot": 16 * 989.4e12 * 0.5, "elementwise": 5},
        "collectives": [],
        "kernels": 1000,
        "unknown_loops": 0,
        "warnings": [],
        "seconds": {"trace": 1, "compile": 2},
    }
    return {**out, **changes}


def row(kind="all-reduce", group=16, hosts=2, count=3, wire=4e9):
    return {
        "kind": kind, "dtype": "f32", "group": group, "hosts": hosts, "count": count,
        "bytes": wire / 2, "wire": wire,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "bytes_s", "latency_s"),
    [
        (row(hosts=1, group=8), 4 / 400, 3 * 10e-6),
        # Eight cards of a host carry a ring together: 400 GB/s, as its links inside.
        (row(), 4 / 400, 3 * 40e-6),
        (row(group=2), 4 / 50, 3 * 40e-6),
        (row(group=8), 4 / 200, 3 * 40e-6),
        (row(kind="all-to-all"), 4 / 50, 3 * 40e-6),
    ],
)
def test_a_group_is_as_fast_as_its_slowest_link(found, bytes_s, latency_s):
    assert seconds_of(found, SPEEDS) == pytest.approx((bytes_s, latency_s))


def test_time_and_efficiency():
    alone = predict(facts(), SPEEDS)
    assert alone["compute"] == pytest.approx(1.0) and alone["efficiency"] == 1.0
    # Half a second of exchange hides behind a second of computing, or does not.
    some = predict(facts(collectives=[row(wire=200e9, count=0)]), SPEEDS)
    assert some["exchange"] == pytest.approx(0.5)
    assert some["step"] == pytest.approx(1.5) and some["step_overlapped"] == pytest.approx(1.0)
    assert some["efficiency"] == pytest.approx(1 / 1.5) and some["efficiency_overlapped"] == 1.0
    short = predict(facts(kernels=10**6), SPEEDS)
    assert short["compute"] == pytest.approx(2.0)
    on_cpu = predict(facts(kernels=10**6, topology="cpu:16"), SPEEDS)
    assert on_cpu["compute"] == pytest.approx(1.0)
    halved = predict(facts(precision="float32"), SPEEDS)
    assert halved["flops"] == pytest.approx(2.0)


def test_what_fits_and_what_does_not():
    fits = room(facts())
    assert fits["fits"] and fits["bytes"] == 5e9 and fits["over"] == -75e9 and not fits["help"]
    memory = {"arguments": 90e9, "outputs": 0, "aliased": 0, "temporaries": 5e9, "code": 1e9}
    state = room(facts(memory=memory))
    assert not state["fits"] and state["over"] == pytest.approx(16e9)
    assert "sharding.preset=host" in state["help"][0]
    memory = {"arguments": 1e9, "outputs": 0, "aliased": 0, "temporaries": 95e9, "code": 0}
    active = room(facts(memory=memory))
    assert "accumulate=2" in active["help"][0] and "remat=dots" in active["help"][1]
    memory = {"arguments": 1e9, "outputs": 0, "aliased": 0, "temporaries": 69e9, "code": 0}
    tight = room(facts(memory=memory))
    assert tight["fits"] and not tight["by_default"] and tight["help"]


def test_the_report_says_so():
    memory = {"arguments": 1e9, "outputs": 0, "aliased": 0, "temporaries": 95e9, "code": 0}
    big = report.whole(facts(memory=memory, collectives=[row()], warnings=["W"]), SPEEDS)
    text = "\n".join(report.lines([report.whole(facts(), SPEEDS), big], SPEEDS))
    assert "does not fit: 96.00 GB a device, 16.00 GB above the 80 GB of an H100" in text
    assert "--config.accumulate=2" in text and "crosses 2 hosts" in text
    assert "989.4 TFLOP/s" in text and "400 GB/s" in text and "no device tells another" in text
    assert "XLA moves arrays as a whole in 1 place" in text
