import time

import pytest

from a2fjax.configuration import LogConfig
from a2fjax.sharding import hardware
from a2fjax.training import clock, profiler
from a2fjax.training.distributed import process_setup, session, watchdog


def test_shares_add_up_and_speeds_leave_out_what_is_no_training(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def spend(what, seconds):
        with made.time(what):
            now[0] += seconds

    made = clock.Clock(flops=2e12, peak=8e12)
    now[0] += 4
    made.started()
    made.reset()
    spend("compile", 6)
    spend("data", 1)
    now[0] += 3
    spend("eval", 5)
    spend("save", 1)
    made.steps, made.frames = 8, 800
    found = made.read()
    assert found["perf/steps_per_s"] == pytest.approx(2) == found["perf/frames_per_s"] / 100
    assert found["perf/data_wait_share"] == pytest.approx(0.25)
    assert found["perf/tflop_per_s"] == pytest.approx(4) and found["perf/mfu"] == pytest.approx(0.5)
    shares = {k[11:]: v * 20 for k, v in found.items() if k.startswith("perf/share_")}
    assert shares == pytest.approx({"start": 4, "compile": 6, "data": 1, "eval": 5, "save": 1})
    assert found["perf/goodput"] == pytest.approx(3 / 20)
    made.reset()
    now[0] += 20
    assert made.read()["perf/goodput"] == pytest.approx(23 / 40)
    assert 0.01 < found["perf/host_memory_gb"] < 100


def test_peaks_are_of_known_devices_only():
    assert hardware.peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989.4e12
    assert hardware.peak("NVIDIA A100-SXM4-40GB", "float32") == 156e12
    assert hardware.peak("NVIDIA L40S", "bfloat16") == 362e12
    assert hardware.peak("cpu", "float32") is None


def test_a_window_of_updates_is_traced(tmp_path):
    import jax.numpy as jnp

    said = []
    config = LogConfig(profile_step=2, profile_steps=2)
    with profiler.Profiler(config, tmp_path, said.append, on=True) as traced:
        for step in range(1, 6):
            traced.at(step)
            jnp.ones(3).sum().block_until_ready()
            assert bool(said) == (step > 3)
    assert len(said) == 1 and "updates 2 to 3" in said[0]
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
    with profiler.Profiler(LogConfig(), tmp_path / "none", said.append, on=True) as traced:
        traced.at(1)
    assert not (tmp_path / "none").exists()


def test_a_watchdog_ends_a_process_without_progress(monkeypatch):
    ended = []
    monkeypatch.setattr(watchdog, "exit_process", lambda text, code: ended.append((text, code)))
    dog = watchdog.Watchdog(0.2)
    dog.beat("doing step 9")
    end = time.monotonic() + 30
    while not ended:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert ended == [("no progress for 0.2 s or more while doing step 9", 70)]


def test_a_limit_counts_from_the_last_beat(monkeypatch):
    now = [100.0]
    dog = watchdog.Watchdog(0)
    monkeypatch.setattr(dog, "_limit", 10.0)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    assert not dog.overdue()
    for seconds, factor, late in ((9, 1, False), (11, 1, True), (99, 10, False), (101, 10, True)):
        dog.beat("compiling", factor=factor)
        now[0] += seconds
        assert bool(dog.overdue()) == late
    dog.stop()
    assert not dog.overdue()


def test_a_watchdog_stops_with_its_session_however_that_ends(monkeypatch):
    ended = []
    monkeypatch.setattr(watchdog, "exit_process", lambda text, code: ended.append(text))
    monkeypatch.setattr(session, "_initialise", lambda setup, detector: None)
    for error in (session.InputError("x"), session.Preempted("x"), KeyError("x")):
        dog = watchdog.Watchdog(0.2)
        with pytest.raises(type(error)):
            with session.session(process_setup.ProcessSetup(source="single"), dog):
                dog.beat("working")
                raise error
    time.sleep(0.6)
    assert not ended
