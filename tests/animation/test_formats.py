import json
import os
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import rig
from a2fjax.animation import formats, tracks
from a2fjax.errors import InputError, WorkFailed

NAMED = [".json", ".npz", ".channels.csv"]


def motion(frames, seed=0):
    drawn = np.random.default_rng(seed).random((frames, 72)).astype(np.float32)
    drawn[:, rig.ANGLE_CHANNELS] = drawn[:, rig.ANGLE_CHANNELS] * 60 - 30
    return drawn


@pytest.mark.parametrize("ending", NAMED)
@pytest.mark.parametrize("fps", [24, "29.97", 50, "59.94", 120])
def test_all_72_channels_survive(tmp_path, ending, fps):
    curves = motion(30)
    path = tmp_path / f"x{ending}"
    formats.write(path, curves, fps=fps)
    track = formats.read(path)
    assert np.abs(track.motion - curves).max() < 2e-6
    assert track.observed.all()
    exact = np.arange(30) / float(tracks.rate(fps))
    assert np.abs(track.times - exact).max() < 1e-6
    assert os.listdir(tmp_path) == [path.name]


def test_live_link_is_told_from_other_csv_by_its_header(tmp_path):
    formats.write(tmp_path / "a.csv", motion(5), fps=60)
    (tmp_path / "a.csv").rename(tmp_path / "a.channels.csv")
    track = formats.read(tmp_path / "a.channels.csv")
    assert track.observed.sum() == 56 and track.fps == pytest.approx(60)


@settings(max_examples=20)
@given(st.permutations(range(72)), st.integers(1, 72))
def test_readers_map_by_name_in_any_order_and_case(tmp_path_factory, order, count):
    path = tmp_path_factory.mktemp("x") / "x.json"
    curves, order = motion(3), order[:count]
    names = [rig.CHANNELS[i].upper() for i in order]
    path.write_text(json.dumps({"names": names, "fps": 30, "frames": curves[:, order].tolist()}))
    track = formats.read(path)
    assert np.allclose(track.motion[:, order], curves[:, order])
    assert sorted(np.flatnonzero(track.observed)) == sorted(order)


def test_npz_holds_what_python_users_look_for(tmp_path):
    formats.write(tmp_path / "x.npz", motion(9), fps=60, metadata={"audio": "in.wav"})
    with np.load(tmp_path / "x.npz", allow_pickle=False) as data:
        assert data["motion"].shape == (9, 72) and data["motion"].dtype == np.float32
        assert data["names"].tolist() == list(rig.CHANNELS)
        assert data["fps"] == 60 and data["audio_rate"] == 16000
        assert str(data["audio"]) == "in.wav" and str(data["rig"]) == rig.FINGERPRINT


def test_npz_in_blocks_is_the_same_file(tmp_path):
    curves = motion(50)
    formats.write(tmp_path / "a.npz", curves)
    with formats.writer(tmp_path / "b.npz", frames=50) as out:
        for part in np.split(curves, [1, 20]):
            out.write(part)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ValueError, match="9 frames written, 10 announced"):
        with formats.writer(tmp_path / "c.npz", frames=10) as out:
            out.write(motion(9))
    assert not (tmp_path / "c.npz").exists()


def test_nvidia_client_csv_is_read(tmp_path):
    path = tmp_path / "nim.csv"
    path.write_text(
        "timeCode,blendShapes.JawOpen,blendShapes.EyeBlinkLeft\n0.0,0.5,0.25\n0.033,0.75,0\n"
    )
    track = formats.read(path)
    assert track.motion[:, rig.INDEX["jawOpen"]].tolist() == [0.5, 0.75]
    assert track.observed.sum() == 2 and track.times.tolist() == [0.0, 0.033]


@pytest.mark.parametrize("ending", [".csv", *NAMED])
def test_an_error_leaves_no_file_and_the_old_one_stays(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    for before in (None, b"old"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(RuntimeError):
            with formats.writer(path, frames=4) as out:
                out.write(motion(2))
                raise RuntimeError("in the middle")
        left = [p.name for p in tmp_path.iterdir()]
        assert left == ([] if before is None else [path.name])
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_failed_work_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(WorkFailed, match="x.csv: could not be written"):
            formats.write(tmp_path / "x.csv", motion(500))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "none" / "x.csv", "does not exist"),
        (tmp_path / "file" / "x.csv", "not a folder"),
        (tmp_path / "dir.csv", "it is a folder"),
    ):
        if path.name == "dir.csv":
            path.mkdir()
        with pytest.raises(InputError, match=message):
            formats.write(path, motion(2))
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(InputError, match="no permission"):
            formats.write(tmp_path / "closed" / "x.csv", motion(2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.jsn", "unknown ending '.jsn'.*'.json'"),
        ("x.cvs", "unknown ending '.cvs'.*'.csv'"),
        ("x", "no ending"),
    ],
)
def test_unknown_endings_name_the_nearest(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        formats.ending(tmp_path / name)


GOOD = {"names": ["jawOpen", "mouthClose"], "fps": 50, "frames": [[0.1, 0.2], [0.3, 0.4]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["jawOpn", "mouthClose"]}, "'jawOpn'; did you mean 'jawOpen'"),
        ({"names": ["jawOpen", "JawOpen"]}, "appears twice"),
        ({"names": ["jawOpen"]}, "has 2 values, expected 1"),
        ({"names": "jawOpen"}, "2 values without their names"),
        ({"frames": []}, "has no frames"),
        ({"frames": [[0.1, 0.2], [0.3]]}, "frame 1 has 1 values, expected 2"),
        ({"frames": [[0.1, float("inf")]]}, "frame 0: mouthClose is 'inf', expected a finite"),
        ({"fps": None}, "neither fps nor times"),
        ({"fps": 0}, "fps"),
        ({"times": [1.0, 1.0]}, "times do not increase"),
        ({"observed": [True]}, "observed"),
    ],
)
def test_wrong_json(tmp_path, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(InputError, match=message) as error:
        formats.read(path)
    assert "x.json" in str(error.value) and "\n" not in str(error.value)


def test_other_files_under_the_same_ending(tmp_path):
    for name in ("x.json", "x.npz", "x.csv"):
        (tmp_path / name).write_bytes(b"\x00\xff not it")
        with pytest.raises(InputError, match=name):
            formats.read(tmp_path / name)
        with pytest.raises(InputError, match="no such file"):
            formats.read(tmp_path / ("no" + name))
    (tmp_path / "x.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="frame 0 is not an object"):
        formats.read(tmp_path / "x.json")
    np.savez(tmp_path / "y.npz", motion=np.zeros((2, 2)))
    with pytest.raises(InputError, match="expected values .frames, N. and N names"):
        formats.read(tmp_path / "y.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("time,jawOpen\n", "no frames"),
        ("frame,jawOpen\n0,1\n", "neither fps nor times"),
        ("time,jawOpen,mouthClose\n0,1,1\n0.1,0.5\n", ":3: 2 values, expected 3"),
        ("time,jawOpen\n0,1\n0.1,x\n", ":3: jawOpen is 'x'"),
        ("time,jawOpen\n0,1\n0,0.5\n", ":2: times do not increase"),
        ("time,jaw\n0,1\n", "'jaw'"),
    ],
)
def test_wrong_csv(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        formats.read(tmp_path / "x.csv")
