"""Engines give the same results and bytes; a node that is lost takes no take with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from a2fjax.errors import InputError
from data_pipeline import build
from data_pipeline.execution import executor, process_pool

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "workers", "said"),
    [
        ("rey", None, "did you mean 'ray'"),
        ("dask", None, "expected one of: processes, ray"),
        ("processes:4", None, "ray:HOST:PORT"),
        ("ray:", None, "ray:HOST:PORT"),
        ("ray:host", None, "ray:HOST:PORT"),
        ("ray", 0, "--workers 0"),
    ],
)
def test_mistakes_are_named(tmp_path, capsys, text, workers, said):
    with pytest.raises(InputError, match=said):
        executor.parse_engine(text, workers)
    (tmp_path / "in").mkdir()
    out = ["--out", str(tmp_path / "out"), "--engine", text]
    out += [] if workers is None else [f"--workers={workers}"]
    assert build.main([str(tmp_path / "in"), *out]) == 2
    assert not (tmp_path / "out").exists() and "Traceback" not in capsys.readouterr().err


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"a2fjax\[ray\]"), executor.open_executor("ray", None):
        pass


def test_processes_are_the_pool():
    with executor.open_executor("processes", 0) as run:
        assert list(run(abs, [-1, 2])) == [(-1, 1), (2, 2)]


@pytest.fixture
def ray(monkeypatch):
    # Processes on nodes import the project, and what tests give them to do.
    paths = [str(ROOT), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.syspath_prepend(paths[1])
    found = pytest.importorskip("ray", reason="pip install 'a2fjax[ray]' (700 MB)")
    yield found
    found.shutdown()


@pytest.mark.slow
def test_a_cluster_of_its_own(ray, tmp_path):
    import uneven

    before = signal.getsignal(signal.SIGTERM)
    with executor.open_executor("ray", 2) as run:
        found = list(run(uneven.work, [(str(tmp_path), i) for i in range(7)]))
        assert signal.getsignal(signal.SIGTERM) is before
        assert list(run(abs, [])) == []
        died = dict(run(uneven.deadly, [0, 1, 2]))
    assert signal.getsignal(signal.SIGTERM) is before and not ray.is_initialized()
    results = {job[1]: result for job, result in found}
    assert len(found) == 7 and type(results[5]) is ValueError and str(results.pop(5)) == "five"
    assert results == {i: i * i for i in results}
    assert {p.read_text().split()[1] for p in tmp_path.glob("*.begun")} == {"1"}
    assert isinstance(died.pop(1), process_pool.ProcessDied) and died == {0: 0, 2: 2}


@pytest.mark.slow
def test_nobody_at_an_address_is_told(ray):
    with executor.open_executor("ray:127.0.0.1:1", None) as run:
        with pytest.raises(InputError, match="127.0.0.1:1: no cluster answers there"):
            list(run(abs, [1]))


@pytest.mark.slow
def test_a_node_that_is_lost_takes_nothing_with_it(ray, tmp_path):
    import uneven
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        lost = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        found = []
        with executor.open_executor(f"ray:{cluster.address}", None) as run:
            for job, result in run(uneven.work, [(str(tmp_path), i) for i in range(40)]):
                found.append((job[1], result))
                if len(found) == 8:
                    name = lost.node_id
                    cluster.remove_node(lost, allow_graceful=False)
    finally:
        cluster.shutdown()
    assert sorted(n for n, _ in found) == list(range(40))
    results = dict(found)
    assert str(results.pop(5)) == "five" and results == {i: i * i for i in results}
    # The bytes are those of work that nothing happened to, and nothing is left of what was lost.
    for i in range(40):
        assert (tmp_path / f"{i}.done").read_text() == f"result of {i}\n" * 100
    begun = {p.stem: p.read_text().split()[::2] for p in tmp_path.glob("*.begun")}
    again = {k: v for k, v in begun.items() if len(v) > 1}
    assert any(name in v for v in begun.values()), "the lost node had no work"
    assert again and all(v[0] == name and len(v) == 2 for v in again.values()), again
    assert len(begun) == 40


def _build(captures, out, *more):
    argv = [sys.executable, "-m", "data_pipeline.build", str(captures), f"--out={out}", *more]
    argv.append("--config.test_sentences=line 1")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = sorted(p for p in out.rglob("*") if p.is_file() and ".build" not in p.parts)
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.mark.slow
def test_the_same_bytes(ray, tmp_path, head, make_actor):
    captures = tmp_path / "captures"
    for seed, name in enumerate(("ann", "bob")):
        make_actor(captures / name, head, seed=seed, shots=3, fps=59.94)
    expected = _build(captures, tmp_path / "processes", "--workers=2")
    assert _build(captures, tmp_path / "ray", "--engine=ray", "--workers=2") == expected


@pytest.mark.slow
def test_told_to_stop_it_says_so_and_goes_on_later(ray, tmp_path, head, make_actor):
    make_actor(tmp_path / "ann", head, shots=3, slate=False)
    argv = [sys.executable, "-m", "data_pipeline.build", str(tmp_path / "ann")]
    argv += [f"--out={tmp_path / 'set'}", "--engine=ray", "--config.test_sentences=line 1"]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list((tmp_path / "set").glob(".build/digests/*")) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "stopped: SIGTERM" in said, said
    assert subprocess.run(argv, cwd=ROOT, capture_output=True).returncode == 0
