import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.infer import postprocess


def motion(frames, seed=0):
    return np.random.default_rng(seed).random((frames, 72)).astype(np.float32)


@given(
    st.integers(1, 120),
    st.sampled_from([0.0, 5.0, 20.0, 63.0, 200.0]),
    st.lists(st.integers(0, 120), max_size=5),
)
def test_blocks_do_not_change_the_numbers(frames, smooth, cuts):
    curves = motion(frames)
    settings = postprocess.adjustment(["jaw_mouth=1.2"], ["browInnerUp=0.1"], smooth)
    stage = postprocess.Postprocess(settings)
    parts = [stage.push(p) for p in np.split(curves, sorted(min(c, frames) for c in cuts))]
    streamed = np.concatenate([*parts, stage.finish()])
    assert np.array_equal(streamed, postprocess.apply(curves, settings))
    assert len(streamed) == frames


def test_smoothing_is_a_gaussian():
    curves = 0.3 + 0.3 * motion(300)
    settings = postprocess.adjustment(smooth_ms=40.0)
    inner = slice(10, -10)
    expected = gaussian_filter1d(curves.astype(np.float64), 2.0, axis=0, truncate=3.0)
    assert np.allclose(postprocess.apply(curves, settings)[inner], expected[inner], atol=1e-6)


def test_a_constant_stays_one_up_to_its_ends():
    curves = np.full((20, 72), 0.25, np.float32)
    assert np.allclose(postprocess.apply(curves, postprocess.adjustment(smooth_ms=100)), 0.25)


def test_gain_and_offset_by_channel_and_group():
    curves = np.full((3, 72), 0.2, np.float32)
    settings = postprocess.adjustment(["jawOpen=2", "jaw=1.5", "brows=0"], ["EYEBLINKLEFT=0.5"])
    found = postprocess.apply(curves, settings)[0]
    assert found[rig.INDEX["jawOpen"]] == pytest.approx(0.6)
    assert found[rig.INDEX["jawForward"]] == pytest.approx(0.3)
    assert (found[rig.GROUPS["brows"]] == 0).all()
    assert found[rig.INDEX["eyeBlinkLeft"]] == pytest.approx(0.7)
    assert found[rig.INDEX["mouthClose"]] == np.float32(0.2)


def test_values_stay_inside_the_rig():
    curves = motion(5) * 4 - 2
    curves[:, 68:] *= 100
    found = postprocess.apply(curves, postprocess.adjustment(["all=3"]))
    assert (found >= rig.MIN).all() and (found <= rig.MAX).all()


@pytest.mark.parametrize(
    ("gains", "smooth", "message"),
    [
        (["jawOpn=2"], 0, "'jawOpn'; did you mean 'jawOpen'"),
        (["jaw_moth=2"], 0, "did you mean 'jaw_mouth'"),
        (["jawOpen"], 0, "expected name=number"),
        (["jawOpen=x"], 0, "expected name=number"),
        (["jawOpen=nan"], 0, "expected name=number"),
        (["jawOpen=-1"], 0, "at least 0"),
        ([], -1, "smoothing -1 ms"),
        ([], 1e9, "smoothing"),
    ],
)
def test_wrong_settings(gains, smooth, message):
    with pytest.raises(InputError, match=message):
        postprocess.adjustment(gains, smooth_ms=smooth)


def test_a_file_of_adjustments(tmp_path):
    """Each channel is smoothed by its own Gaussian, then scaled, moved and limited."""
    path = tmp_path / "adjust.json"
    path.write_text(
        '{"jaw_mouth": {"gain": 2, "smooth_ms": 40}, "eyeBlinkLeft": {"smooth_ms": 20},'
        ' "jawOpen": {"offset": 0.1, "clamp": [0.2, 0.8]}}'
    )
    curves = 0.4 * motion(200)
    found = postprocess.apply(curves, postprocess.adjustment(spec=path))
    jaw, close, blink = (rig.INDEX[n] for n in ("jawOpen", "mouthClose", "eyeBlinkLeft"))
    inner = slice(10, -10)

    def smooth(channel, sigma):
        return gaussian_filter1d(curves[:, channel].astype(np.float64), sigma, truncate=3.0)[inner]

    assert np.allclose(found[inner, close], np.clip(2 * smooth(close, 2.0), 0, 1), atol=1e-6)
    expected = np.clip(2 * smooth(jaw, 2.0) + 0.1, 0.2, 0.8)
    assert np.allclose(found[inner, jaw], expected, atol=1e-6)
    assert np.allclose(found[inner, blink], smooth(blink, 1.0), atol=1e-6)
    rest = [rig.INDEX["browInnerUp"], *rig.GROUPS["tongue"][1:]]
    assert np.array_equal(found[:, rest], curves[:, rest])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"jawOpn": {}}, "did you mean 'jawOpen'"),
        ({"jawOpen": 1}, "expected adjustments by channel"),
        ({"jawOpen": {"gian": 1}}, "jawOpen.gian: unknown; did you mean 'gain'"),
        ({"jawOpen": {"gain": "1"}}, "jawOpen.gain: '1': expected a factor"),
        ({"jawOpen": {"gain": -1}}, "at least 0"),
        ({"jawOpen": {"clamp": [0.5]}}, r"expected \[low, high\]"),
        ({"jawOpen": {"clamp": [0.5, 0.1]}}, "0.5 is above 0.1"),
        ({"jawOpen": {"clamp": [2, 3]}}, "outside the channel's range"),
        ({"jawOpen": {"smooth_ms": 501}}, "jawOpen.smooth_ms 501 ms: expected between 0 and 500"),
        ({"jawOpen": {"offset": float("nan")}}, "expected a number"),
        ("none.json", "none.json: no such file"),
    ],
)
def test_wrong_adjustments(spec, message):
    with pytest.raises(InputError, match=message):
        postprocess.adjustment(spec=spec)
