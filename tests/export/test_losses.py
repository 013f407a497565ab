import numpy as np

from a2fjax import rig
from a2fjax.export import losses
from a2fjax.export.graph import Case

JAW, CLOSE = rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]


def speech(frames=300):
    """A jaw that opens and closes five times a second for 40 ms."""
    motion = np.zeros((1, frames, rig.NUM_CHANNELS), np.float32)
    phase = np.arange(frames) % 10
    motion[0, :, JAW] = np.where(phase < 2, 0.0, 0.3 + 0.02 * phase)
    return motion


def measured(found, expected):
    case = Case("c", {"x": found}, {"motion": expected})
    return losses.measure([case], lambda inputs: [inputs["x"]])


def test_a_copy_loses_nothing():
    out = measured(speech(), speech())
    assert out["rmse"] == out["largest"] == 0.0
    assert out["closure_f1"] == 1.0
    assert out["mouth_correlation"]["mean"] > 0.999999


def test_known_errors_are_reported():
    found = speech()
    found[..., rig.INDEX["leftEyeRotX"]] += 3.0
    out = measured(found, speech())
    np.testing.assert_allclose(out["largest"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(out["rmse"], 0.1 / 72**0.5, rtol=1e-6)
    assert out["worst_channel"]["name"] == "leftEyeRotX" and out["closure_f1"] == 1.0


def test_a_mouth_that_no_longer_closes_shows():
    found = speech()
    found[0, :150, JAW] = np.maximum(found[0, :150, JAW], 0.2)
    out = measured(found, speech())
    np.testing.assert_allclose(out["closure_f1"], 2 / 3, atol=0.03)


def test_frames_after_the_end_do_not_count():
    found, expected = speech(), speech()
    found[0, 200:] = 1.0
    case = Case("c", {"x": found}, {"motion": expected}, np.arange(300)[None] < 200)
    assert losses.measure([case], lambda inputs: [inputs["x"]])["largest"] == 0.0
