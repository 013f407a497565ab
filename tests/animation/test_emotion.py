import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fjax import rig
from a2fjax.animation import emotion
from a2fjax.errors import InputError


def test_names_and_blends():
    assert emotion.parse(None).weights.tolist() == [[1, 0, 0, 0, 0]]
    assert emotion.parse("happy").sample(3).tolist() == [[0, 1, 0, 0, 0]] * 3
    assert np.allclose(emotion.parse("happy=0.7, sad=0.3").weights, [[0, 0.7, 0, 0.3, 0]])
    assert np.allclose(emotion.parse("Angry=0.25").weights, [[0.75, 0, 0.25, 0, 0]])
    assert emotion.parse("happy").constant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hapy", "'hapy'; did you mean 'happy'"),
        ("happy=0", "sum to 0"),
        ("happy=0,sad=0.0", "sum to 0"),
        ("happy=0.7,sad=0.7", r"sum to 1\.4: expected at most 1"),
        ("happy=1.5", "expected a weight in"),
        ("happy=-0.1,sad=0.5", "expected a weight in"),
        ("happy=nan", "expected a weight in"),
        ("happy=lots", "expected a number after '='"),
        ("happy=0.2,happy=0.3", "appears twice"),
        ("", "expected a name"),
        ("happy,", "expected a name"),
        ("none.json", "no such file"),
        ("none.csv", "no such file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as error:
        emotion.parse(text)
    assert "\n" not in str(error.value)


def test_tracks_in_both_formats_are_the_same(tmp_path):
    rows = [{"happy": 0.7, "sad": 0.3}, {"neutral": 1}, {"angry": 1}]
    (tmp_path / "a.json").write_text(json.dumps({"times": [0, 1, 2.5], "weights": rows}))
    (tmp_path / "b.json").write_text(
        json.dumps(
            {
                "times": [0, 1, 2.5],
                "weights": [[0, 0.7, 0, 0.3, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]],
            }
        )
    )
    (tmp_path / "c.csv").write_text(
        "time,happy,sad,angry,neutral\n0,0.7,0.3,0,0\n1,0,0,0,1\n\n2.5,0,0,1,0\n"
    )
    tracks = [emotion.parse(str(tmp_path / n)) for n in ("a.json", "b.json", "c.csv")]
    for track in tracks:
        assert np.allclose(track.weights, tracks[0].weights)
        assert track.times.tolist() == [0, 1, 2.5] and not track.constant
    sampled = tracks[0].sample(200)
    assert sampled.shape == (200, 5) and sampled.dtype == np.float32
    assert np.allclose(sampled[25], [0.5, 0.35, 0, 0.15, 0])
    assert np.allclose(sampled[[50, 125, 199]], [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]])


@given(
    st.lists(st.integers(0, 6000), min_size=1, max_size=6, unique=True),
    st.integers(1, 4000),
    st.integers(0, 2**32 - 1),
)
def test_sampled_emotions_are_blends_without_jumps(times, frames, seed):
    times = np.sort(times) / 100
    weights = np.random.default_rng(seed).dirichlet(np.ones(5), len(times))
    track = emotion.EmotionTrack(times, weights)
    sampled = track.sample(frames)
    assert (sampled >= 0).all() and np.allclose(sampled.sum(1), 1, atol=1e-5)
    # A part of a recording has the values that the whole has there.
    first = frames // 3
    assert np.array_equal(track.sample(frames - first, first), sampled[first:])
    if len(times) > 1:
        fastest = (np.abs(np.diff(weights, axis=0)).max(1) / np.diff(times)).max() / rig.FPS
        assert np.abs(np.diff(sampled, axis=0)).max(initial=0) <= fastest + 1e-5


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{", "not JSON"),
        ("x.json", '{"times": [0], "weights": [{"sad": 0.1, "sad": 1}]}', "'sad' appears twice"),
        ("x.json", '{"times": [0]}', "expected {"),
        ("x.json", '{"times": [], "weights": []}', "has no rows"),
        ("x.json", '{"times": [0, 1], "weights": [{"happy": 1}]}', "2 times and 1 rows"),
        ("x.json", '{"times": [0], "weights": [{"hapy": 1}]}', "row 0: unknown emotion 'hapy'"),
        ("x.json", '{"times": [0], "weights": [[1, 0]]}', "expected {"),
        ("x.json", '{"times": [1, 1], "weights": [{"sad": 1}, {"sad": 1}]}', "row 1: time 1: exp"),
        ("x.json", '{"times": [0], "weights": [{"sad": "x"}]}', "row 0: expected numbers"),
        ("x.json", '{"times": [0], "weights": [{"sad": 0}]}', "row 0: .*sum to 0"),
        ("x.csv", "", "is empty"),
        ("x.csv", 'time,happy\n0,"' + "x" * 200_000, "not a CSV"),
        ("x.json", "[" * 100_000, "nesting"),
        ("x.csv", "frame,happy\n0,1\n", ":1: first column is 'frame'"),
        ("x.csv", "time,happy\n", "has a header but no frames"),
        ("x.csv", "time,happy,sad,Happy\n0,1,0,0\n", ":1: column 'happy' appears twice"),
        ("x.csv", "time,happy,sad\n0,1,\n", ":2: sad has no value"),
        ("x.csv", "time,happy\n0,1\n0,1\n", ":3: time 0: expected a time after 0"),
        ("x.csv", "time,happy\n0,1,2\n", ":2: 3 values, expected 2"),
        ("x.csv", "time,happy\n0,one\n", ":2: happy is 'one'"),
        ("x.csv", "time,happy,sad\n0,0.9,0.9\n", ":2: .*sum to 1.8"),
    ],
)
def test_wrong_tracks_name_file_and_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        emotion.parse(str(tmp_path / name))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_nvidia_s_ten_names_are_blends_of_the_five():
    assert set(rig.NVIDIA_TO_EMOTION) == {"neutral", *rig.NVIDIA_EMOTIONS}
    for name in rig.NVIDIA_EMOTIONS:
        (weights,) = emotion.parse(name).weights
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1), name
        assert weights[1:].sum() > 0, f"{name} is not neutral"
        (half,) = emotion.parse(f"{name}=0.5").weights
        np.testing.assert_allclose(half, 0.5 * weights + [0.5, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(emotion.parse("joy").weights, emotion.parse("happy").weights)


def test_neutral_and_not_told_are_two_vectors():
    neutral, untold = emotion.parse("neutral"), emotion.parse("none")
    assert neutral.sample(2).tolist() == [[1, 0, 0, 0, 0]] * 2
    assert untold.sample(2).tolist() == [[0, 0, 0, 0, 0]] * 2
    emotion.check_unspecified(neutral, 0.0)
    emotion.check_unspecified(untold, 0.1)
    with pytest.raises(InputError, match=r"model.emotion_dropout=0.*nearest: neutral"):
        emotion.check_unspecified(untold, 0.0)


STEPS = {"times": [0, 1, 2], "weights": [{"sad": 1}, {"happy": 1}, {"neutral": 1}]}


def test_steps_are_cross_faded_about_their_times(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**STEPS, "interpolation": "step", "blend": 0.4}))
    sampled = emotion.parse(str(path)).sample(200)
    assert np.abs(np.diff(sampled, axis=0)).max() <= 1 / (0.4 * rig.FPS) + 1e-5
    assert np.allclose(sampled[50], [0, 0.5, 0, 0.5, 0], atol=1e-6)
    assert np.allclose(sampled[[0, 39, 61, 89, 111]].argmax(1), [3, 3, 1, 1, 0])
    assert np.allclose(sampled[[39, 61, 111]].max(1), 1)
    path.write_text(json.dumps({**STEPS, "interpolation": "step"}))
    default = emotion.parse(str(path)).sample(200)
    assert np.abs(np.diff(default, axis=0)).max() <= 1 / (emotion.BLEND_SECONDS * rig.FPS) + 1e-5


@given(
    st.lists(st.floats(0, 5), min_size=2, max_size=8, unique=True),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_no_track_jumps(times, step, seed):
    times = np.sort(times)
    weights = np.eye(5)[np.random.default_rng(seed).integers(5, size=len(times))]
    track = emotion.EmotionTrack(times, weights, step)
    sampled = track.sample(300).astype(np.float64)
    assert np.abs(np.diff(sampled, axis=0)).max() <= 1 / (track.blend * rig.FPS) + 1e-5
    assert (sampled >= 0).all() and np.allclose(sampled.sum(1), 1, atol=1e-5)
    # Against the mean of many moments around each frame.
    moments = np.arange(300)[:, None] / rig.FPS + (np.arange(400) + 0.5) / 400 * 0.3 - 0.15
    index = np.clip(np.searchsorted(times, moments, side="right") - 1, 0, None)
    held = weights[index] if step else None
    if held is None:
        held = np.stack([np.interp(moments, times, w) for w in weights.T], -1)
    plain = np.stack([np.interp(np.arange(300) / rig.FPS, times, w) for w in weights.T], -1)
    near = np.abs(sampled - held.mean(1)).max() < 0.01 or np.abs(sampled - plain).max() < 1e-6
    assert near


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "steps"}, "interpolation 'steps'; did you mean 'step'"),
        ({"blend": 0}, "blend 0: expected seconds above 0"),
        ({"blend": "fast"}, "blend 'fast': expected seconds"),
        ({"blnd": 1}, "unknown key 'blnd'; did you mean 'blend'"),
    ],
)
def test_wrong_manners_are_named(tmp_path, change, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**STEPS, **change}))
    with pytest.raises(InputError, match=message):
        emotion.parse(str(path))


def test_tracks_as_spreadsheets_write_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Time (ms);Happy;sad\r\n0;0,5;0\r\n2000;0;1\r\n", encoding="utf-16")
    track = emotion.read(path)
    np.testing.assert_allclose(track.times, [0, 2])
    np.testing.assert_allclose(track.weights[:, [0, 1, 3]], [[0.5, 0.5, 0], [0, 0, 1]])
