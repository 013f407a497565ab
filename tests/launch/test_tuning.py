"""Tuning: choices, early stops, and drivers that are killed anywhere."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from a2fjax.errors import InputError, WorkFailed
from launch.commands import tune as studies
from launch.jobs.outcome import State
from launch.monitor import states
from launch.sweeps import sweep
from launch.sweeps.spaces import choice, integer, loguniform, uniform
from launch.tuning.driver import Settings, results, tune

pytest.importorskip("optuna", reason="pip install 'a2fjax[tune]'")
TUNED = Path(__file__).with_name("tuned.py")
ROOT = Path(__file__).parents[2]


class Instant:
    """Runs that go on by a step a look."""

    def __init__(self, value, steps=9, state="done"):
        self.value, self.steps, self.state = value, steps, state
        self.given, self.looks, self.cancelled = {}, {}, []
        self.most = 0

    def start(self, number, overrides):
        assert number not in self.given, "started twice"
        self.given[number] = overrides
        self.looks[f"run-{number}"] = 0
        self.most = max(self.most, sum(v < self.steps for v in self.looks.values()))
        return f"run-{number}"

    def find(self, number):
        return f"run-{number}" if number in self.given else None

    def poll(self, run):
        self.looks[run] += 1
        seen = self.looks[run]
        value = self.value(self.given[int(run.removeprefix("run-"))])
        points = [(100 * i, value + 1 / i) for i in range(1, min(seen, self.steps) + 1)]
        return (self.state if seen >= self.steps else "running"), points

    def cancel(self, run):
        self.cancelled.append(run)
        self.looks[run] = self.steps


def bowl(given):
    return abs(float(given["x"]) - 0.3)


def settings(runs=12, **given):
    return Settings(**{"runs": runs, "max_parallel": 3, "poll_seconds": 0, **given})


SPACE = {"x": uniform(0, 1)}


def test_it_finds_what_is_good_and_stops_what_is_behind(tmp_path):
    runs = Instant(bowl)
    found = tune(tmp_path, SPACE, runs, settings(24))
    assert [r.number for r in found] == list(range(24)) == sorted(runs.given)
    pruned = [r for r in found if r.state == "pruned"]
    assert {r.run for r in pruned} == set(runs.cancelled) and pruned
    assert runs.most <= 3
    best = min((r for r in found if r.state == "done"), key=lambda r: r.value)
    assert abs(best.trial["x"] - 0.3) < 0.1
    assert results(tmp_path) == found


def test_the_same_seed_chooses_the_same(tmp_path):
    def chosen(name, seed):
        plain = settings(8, seed=seed, pruner="none", max_parallel=1)
        return [r.trial for r in tune(tmp_path / name, SPACE, Instant(bowl), plain)]

    assert chosen("a", 0) == chosen("b", 0) != chosen("c", 1)


@pytest.mark.parametrize("pruner", ["none", "hyperband"])
def test_other_pruners(tmp_path, pruner):
    runs = Instant(bowl)
    found = tune(tmp_path, SPACE, runs, settings(9, pruner=pruner, last_step=900))
    assert len(found) == 9
    assert pruner == "hyperband" or not runs.cancelled


def test_more_can_be_better(tmp_path):
    runs = Instant(lambda given: -bowl(given))
    found = tune(tmp_path, SPACE, runs, settings(15, better="higher", pruner="none"))
    assert abs(max(found, key=lambda r: r.value).trial["x"] - 0.3) < 0.15


def test_known_values_are_not_run_again(tmp_path):
    runs, lines = Instant(lambda given: len(given["k"])), []
    space = {"k": choice((1, 2), "mel", "(1, 2)", None), "n": integer(1, 2)}
    found = tune(tmp_path, space, runs, settings(40, pruner="none"), report=lines.append)
    keys = [sweep.key(r.trial) for r in found if r.same_as is None]
    assert len(keys) == len(set(keys)) == len(runs.given) <= 8
    assert any("no new values are left" in line for line in lines)
    for again in (r for r in found if r.same_as is not None):
        first = found[again.same_as]
        assert (again.value, again.state, again.run) == (first.value, first.state, first.run)
    assert {type(r.trial["k"]) for r in found} == {tuple, str, type(None)}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("what", ["start", "poll", "cancel"])
@pytest.mark.parametrize("before", [True, False])
def test_a_driver_that_dies_around_any_call_goes_on(tmp_path, what, before):
    runs, calls = Instant(bowl), 0
    original = getattr(runs, what)

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls % 3 == 2 and before:
            raise Killed
        out = original(*arguments)
        if calls % 3 == 2:
            raise Killed
        return out

    setattr(runs, what, dying)
    for _ in range(200):
        try:
            found = tune(tmp_path, SPACE, runs, settings(12))
            break
        except Killed:
            pass
    assert calls >= 2 and len(runs.given) == 12  # Instant refuses to start a number twice
    assert all(r.state in ("done", "pruned") for r in found)


@pytest.mark.parametrize("state", ["failed", "bad input", "lost"])
def test_runs_that_fail_are_no_end(tmp_path, state):
    found = tune(tmp_path, SPACE, Instant(bowl, state=state), settings(4, pruner="none"))
    assert [r.state for r in found] == ["failed"] * 4


def test_stopped_runs_are_left_and_taken_up_later(tmp_path):
    runs, lines = Instant(bowl, state="stopped"), []
    found = tune(tmp_path, SPACE, runs, settings(4, pruner="none"), report=lines.append)
    assert [r.state for r in found] == ["running"] * 4 and "was stopped" in lines[-1]
    runs.state = "done"
    found = tune(tmp_path, SPACE, runs, settings(4, pruner="none"))
    assert [r.state for r in found] == ["done"] * 4 and len(runs.given) == 4


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    runs = Instant(lambda given: float("nan"))
    found = tune(tmp_path, SPACE, runs, settings(2))
    assert [(r.state, r.value) for r in found] == [("failed", None)] * 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("op_code", "opcode"),
        ('"starting":true', '"starting":3'),
        ('"run":"', '"run":7,"x":"'),
        ('"overrides":{', '"overrides":["a"],"y":{'),
        ('"key":"', '"same_as":5,"key":"'),
        ("{", "["),
    ],
)
def test_a_damaged_journal_is_refused(tmp_path, old, new):
    tune(tmp_path, SPACE, Instant(bowl), settings(2))
    journal = tmp_path / "journal.log"
    text = journal.read_text()
    assert old in text
    journal.write_text(text.replace(old, new))
    for call in (
        lambda: results(tmp_path),
        lambda: tune(tmp_path, SPACE, Instant(bowl), settings(3)),
    ):
        with pytest.raises(InputError, match="journal.log: damaged .*; delete it"):
            call()


@pytest.mark.parametrize("name", ["journal.log", "driver.lock"])
def test_pipes_in_a_study_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="cannot be written|named pipe"):
        tune(tmp_path, SPACE, Instant(bowl), settings(1))


def test_a_half_written_journal_is_mended(tmp_path):
    tune(tmp_path, SPACE, Instant(bowl), settings(2))
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code": 5, "wor')
    found = tune(tmp_path, SPACE, Instant(bowl), settings(4))
    assert len(found) == 4


def test_mistakes_are_named(tmp_path):
    tune(tmp_path, SPACE, Instant(bowl), settings(1))
    for space, given, word in [
        ({"y": uniform(0, 1)}, {}, "another search space .its keys: x"),
        (SPACE, {"better": "higher"}, "another direction"),
        ({}, {}, "a search space"),
        ({"x": 3}, {}, "expected one of: uniform"),
        (SPACE, {"pruner": "halvin"}, "did you mean 'halving'"),
        (SPACE, {"better": "larger"}, "better"),
        (SPACE, {"runs": 0}, "runs 0"),
        (SPACE, {"factor": 1}, "factor 1"),
        ({"x": loguniform(1, 2)}, {}, "another search space"),
    ]:
        with pytest.raises(InputError, match=word):
            tune(tmp_path, space, Instant(bowl), settings(**given))
    with pytest.raises(InputError, match="no study"):
        results(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        tune(tmp_path / "file", SPACE, Instant(bowl), settings())


def drive(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, str(TUNED), str(folder)]
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_driver_that_is_killed_starts_nothing_twice(tmp_path):
    delays, kills = random.Random(3), 0
    for _ in range(3):
        driver = drive(tmp_path)
        line = driver.stdout.readline()  # at work
        time.sleep(delays.uniform(0.0, 0.6))
        if line and driver.poll() is None:
            kills += 1
        driver.kill()
        driver.communicate()
    last = drive(tmp_path)
    other = drive(tmp_path)
    outcomes = [last.communicate(timeout=120), other.communicate(timeout=120)]
    assert kills >= 2 and sorted([last.returncode, other.returncode])[0] == 0, outcomes
    starts = {p.parent.name: p.read_text().split() for p in tmp_path.glob("*/starts")}
    assert len(starts) == 8 and set(map(tuple, starts.values())) == {("started",)}
    found = results(tmp_path)
    assert sum(bool(r.run) for r in found) == 8
    assert {r.state for r in found if r.run} <= {"done", "pruned"}


def test_silent_schedulers_and_late_exit_codes_are_tolerated(tmp_path, monkeypatch, capsys):
    lines = []

    def one(run):
        found = lines.pop(0)
        if found is None:
            raise WorkFailed("squeue: does not answer")
        return State(found)

    monkeypatch.setattr(states, "one", one)
    runs = studies._Runs(tmp_path, [], "eval/loss", wait=False)

    def looks(*found):
        lines.extend(found)
        return [runs.poll(str(tmp_path / "run"))[0] for _ in found]

    assert looks(None, "lost", None, "lost", "done") == ["running"] * 4 + ["done"]
    assert "does not answer; asking again" in capsys.readouterr().out
    assert looks("lost", "lost", "lost", "lost") == ["running"] * 3 + ["lost"]
    assert looks(None, None, None) == ["running"] * 3
    with pytest.raises(WorkFailed, match="does not answer"):
        looks(None)
