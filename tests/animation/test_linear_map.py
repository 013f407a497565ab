"""Data of other rigs, mapped to channels by a named linear map."""

import json

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.animation import curve_reader
from a2fjax.animation.columns import ColumnSettings, Resolver
from a2fjax.animation.linear_map import LinearMap
from a2fjax.errors import InputError

TARGETS = ["jawOpen", "mouthSmileLeft", "tongueOut"]
GOOD = {"sources": ["a", "b"], "targets": ["jawOpen"], "weights": [[0.5, 0.25]]}


def write_map(path, count, name="control{}", targets=TARGETS):
    sources = [name.format(i) for i in range(count)]
    weights = np.random.default_rng(count).uniform(0, 2 / count, (len(targets), count))
    weights[-1] = 0.0
    data = {"sources": sources, "targets": targets, "weights": weights.tolist()}
    path.write_text(json.dumps(data))
    return sources, weights


def mapped(path):
    return Resolver(ColumnSettings(map=str(path)), "--config.columns")


@pytest.mark.parametrize("count", [101, 116, 55])
@pytest.mark.parametrize("form", ["csv", "json", "npz", "npz without names", "json without names"])
def test_channels_of_another_rig_are_mapped(tmp_path, count, form):
    sources, weights = write_map(tmp_path / "map.json", count)
    values = np.random.default_rng(1).uniform(0, 1, (12, count)).round(5)
    order = np.random.default_rng(2).permutation(count)
    shuffled, names = values[:, order], [sources[i] for i in order]
    path = tmp_path / f"a.{form.split()[0]}"
    if form == "csv":
        rows = [",".join(["time", *names])]
        rows += [",".join(map(str, [n / 30, *row])) for n, row in enumerate(shuffled.tolist())]
        path.write_text("\n".join(rows))
    elif form == "json":
        path.write_text(json.dumps({"names": names, "fps": 30, "frames": shuffled.tolist()}))
    elif form == "json without names":
        path.write_text(json.dumps({"fps": 30, "frames": values.tolist()}))
    elif form == "npz":
        np.savez(path, controls=shuffled, control_names=names, fps=30)
    else:
        np.savez(path, controls=values, frame_rate=30)
    found = curve_reader.read(path, mapped(tmp_path / "map.json"))
    expected = values @ weights.T
    index = [rig.INDEX[t] for t in TARGETS]
    np.testing.assert_allclose(found.motion[:, index], expected, atol=1e-5)
    # A target without weights is not observed.
    assert [rig.CHANNELS[i] for i in np.flatnonzero(found.observed)] == sorted(
        TARGETS[:2], key=rig.CHANNELS.index
    )
    assert found.notes[0].startswith(f"{count} columns mapped to 2 channels by ")
    np.testing.assert_allclose(found.times * 30, np.arange(12), atol=1e-6)


def test_values_beyond_the_range_are_clipped_and_said(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({**GOOD, "weights": {"jawOpen": {"a": 2.0, "b": -1.0}}}))
    (tmp_path / "a.csv").write_text("time,a,b\n0,0.1,0\n0.1,0.9,0\n0.2,0,0.5\n0.3,-2,-4\n")
    found = curve_reader.read(tmp_path / "a.csv", mapped(path))
    jaw = found.motion[:, rig.INDEX["jawOpen"]]
    np.testing.assert_allclose(jaw, [0.2, 1.0, 0.0, 0.0], atol=1e-6)
    assert (
        "50.0% of the mapped values were outside" in found.notes[1]
        and "jawOpen" in (found.notes[1])
    )


def test_beat2_is_mapped_from_expressions_and_the_jaw(tmp_path):
    rng = np.random.default_rng(3)
    names = [*(f"expression{i}" for i in range(100)), "jaw0", "jaw1", "jaw2"]
    weights = rng.uniform(0, 0.01, (1, 103))
    data = {"sources": names, "targets": ["jawOpen"], "weights": weights.tolist()}
    (tmp_path / "map.json").write_text(json.dumps(data))
    expressions, poses = rng.uniform(0, 1, (9, 100)), rng.uniform(0, 1, (9, 165))
    path = tmp_path / "a.npz"
    np.savez(
        path,
        expressions=expressions.astype(np.float32),
        poses=poses.astype(np.float32),
        trans=np.zeros((9, 3), np.float32),
        betas=np.zeros(300, np.float32),
        model="smplx2020",
        gender="neutral",
        mocap_frame_rate=30,
    )
    found = curve_reader.read(path, mapped(tmp_path / "map.json"))
    expected = np.hstack([expressions, poses[:, 66:69]]) @ weights[0]
    np.testing.assert_allclose(found.motion[:, rig.INDEX["jawOpen"]], expected, atol=1e-5)
    np.testing.assert_allclose(found.times * 30, np.arange(9), atol=1e-6)
    with pytest.raises(InputError, match="expressions of FLAME; give a map"):
        curve_reader.read(path)


def test_data_and_map_must_fit(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps(GOOD))
    (tmp_path / "a.csv").write_text("time,a,c\n0,1,1\n")
    with pytest.raises(InputError, match="unknown channel 'c'"):
        curve_reader.read(tmp_path / "a.csv", mapped(tmp_path / "map.json"))
    (tmp_path / "a.csv").write_text("time,a\n0,1\n")
    with pytest.raises(InputError, match="has no column 'b', a source of"):
        curve_reader.read(tmp_path / "a.csv", mapped(tmp_path / "map.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": []}, "sources: expected a list of names"),
        ({"sources": ["a", "a"]}, "sources: 'a' appears twice"),
        ({"targets": ["jawOpn"]}, "did you mean 'jawOpen'"),
        ({"targets": ["jawOpen", "JawOpen"], "weights": [[1, 1]] * 2}, "target appears twice"),
        ({"weights": [[1], [1]]}, r"shape \(2, 1\), expected \(1, 2\).*transposed"),
        ({"weights": [[1, float("nan")]]}, "not finite"),
        ({"weights": [[1, "x"]]}, "weights have shape"),
        ({"weights": [[0, 0]]}, "all weights are 0"),
        ({"weights": {"jawOpen": {"z": 1}}}, "'z'"),
        ({"weights": {"jawOpen": {"a": True}}}, "expected a finite number"),
        ({"matrix": 1}, "unknown key 'matrix'"),
    ],
)
def test_wrong_maps(tmp_path, change, message):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(InputError, match=message) as error:
        LinearMap.read(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="no such file"):
        LinearMap.read(tmp_path / "none.json")
