import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax import channel_orders, rig
from a2fjax.errors import InputError


def test_seventy_two_named_channels_in_the_published_order():
    assert rig.NUM_CHANNELS == 72 and len(set(rig.CHANNELS)) == 72
    assert rig.CHANNELS[0] == "eyeBlinkLeft"
    assert rig.CHANNELS[14:18] == ("jawForward", "jawLeft", "jawRight", "jawOpen")
    assert rig.CHANNELS[51:53] == ("tongueOut", "tongueTipUp")
    assert rig.CHANNELS[68:] == ("rightEyeRotX", "rightEyeRotY", "leftEyeRotX", "leftEyeRotY")
    assert len(rig.MIN) == len(rig.MAX) == len(rig.SCALE) == len(rig.UNITS) == 72
    assert (rig.MIN[:68] == 0).all() and (rig.MAX[:68] == 1).all() and (rig.MIN[68:] < 0).all()


def test_live_link_writes_right_before_left_for_jaw_and_mouth_only():
    names = channel_orders.ORDERS["livelink61"].names
    assert len(names) == 61
    assert names.index("JawRight") + 1 == names.index("JawLeft")
    assert names.index("MouthRight") + 1 == names.index("MouthLeft")
    assert names.index("MouthSmileLeft") + 1 == names.index("MouthSmileRight")
    assert names[52:55] == ("HeadYaw", "HeadPitch", "HeadRoll")


@pytest.mark.parametrize(
    ("name", "count"),
    [("nvidia68", 68), ("alphabetical51", 51), ("alphabetical52", 52), ("said32", 32)]
    + [("ict57", 57), ("livelink61", 61), ("arkit52", 52), ("rig72", 72), ("azure55", 55)],
)
def test_every_order_holds_its_channels_there_and_back(name, count):
    layout = channel_orders.order(name)
    assert len(layout.columns) == count
    motion = np.random.default_rng(0).uniform(0, 1, (5, 72)).astype(np.float32)
    values = layout.from_rig(motion)
    back, observed = layout.to_rig(values)
    np.testing.assert_allclose(back[:, observed], motion[:, observed], atol=1e-6)
    assert not back[:, ~observed].any()
    held = {c.channel for c in layout.columns} - {None}
    assert {rig.CHANNELS[i] for i in np.flatnonzero(observed)} == held


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(channel_orders.ORDERS["livelink61"].names)), st.booleans())
def test_columns_are_found_by_name_in_any_order_and_case(names, lower):
    layout = channel_orders.order("livelink61")
    values = np.arange(61, dtype=np.float32)
    shuffled = np.array([values[layout.names.index(n)] for n in names])
    given_names = [n.lower() for n in names] if lower else names
    np.testing.assert_array_equal(layout.to_rig(shuffled, given_names)[0], layout.to_rig(values)[0])


def test_alphabetical_order_starts_with_brow_and_has_jaw_open_before_jaw_right():
    names = channel_orders.ORDERS["alphabetical51"].names
    assert names[0] == "browDownLeft" and "tongueOut" not in names
    # Positions that BEAT's evaluation code is known for: 24 is jawOpen, 26 is mouthClose.
    assert names[24] == "jawOpen" and names[26] == "mouthClose"


def test_unknown_repeated_and_miscounted_columns_are_refused():
    layout = channel_orders.order("arkit52")
    with pytest.raises(InputError, match="jawOpne.*jawOpen"):
        layout.to_rig(np.zeros((2, 1)), ["jawOpne"])
    with pytest.raises(InputError, match="twice"):
        layout.to_rig(np.zeros((2, 2)), ["jawOpen", "JawOpen"])
    with pytest.raises(InputError, match="51 values a frame, expected 52"):
        layout.to_rig(np.zeros((2, 51)))
    with pytest.raises(InputError, match="livelink61"):
        channel_orders.order("livelink")
    with pytest.raises(InputError, match="jawOpen"):
        rig.channel_index("jawOpe")


def test_names_of_every_order_mix():
    motion, observed = channel_orders.from_names(
        np.array([[0.5, 0.25, 1.0]]), ["JawOpen", "mouthSmile_L", "tongueTipUp"]
    )
    assert motion[0, rig.INDEX["jawOpen"]] == 0.5
    assert motion[0, rig.INDEX["mouthSmileLeft"]] == 0.25
    assert observed.sum() == 3


def test_mirror_is_its_own_inverse_and_swaps_sides():
    motion = np.random.default_rng(1).normal(size=(4, 72)).astype(np.float32)
    np.testing.assert_array_equal(rig.mirror(rig.mirror(motion)), motion)
    one = np.zeros(72, np.float32)
    one[rig.INDEX["mouthSmileLeft"]] = 1
    one[rig.INDEX["leftEyeRotY"]] = 10
    one[rig.INDEX["jawLeft"]] = 0.5
    seen = rig.mirror(one)
    assert seen[rig.INDEX["mouthSmileRight"]] == 1 and seen[rig.INDEX["mouthSmileLeft"]] == 0
    assert seen[rig.INDEX["rightEyeRotY"]] == -10 and seen[rig.INDEX["jawRight"]] == 0.5
    assert len(rig.MIRROR_PAIRS) == 25


def test_aperture_reads_jaw_and_mouth_close_together():
    motion = np.zeros(72, np.float32)
    motion[rig.INDEX["jawOpen"]] = motion[rig.INDEX["mouthClose"]] = 0.4
    assert rig.aperture(motion) == pytest.approx(0)
    motion[rig.INDEX["mouthClose"]] = 0
    assert rig.aperture(motion) == pytest.approx(0.4)
    # A mirror does not change how far the lips are apart.
    some = np.random.default_rng(2).uniform(size=72).astype(np.float32)
    assert rig.aperture(rig.mirror(some)) == pytest.approx(rig.aperture(some), abs=1e-6)


def test_emotion_vector():
    np.testing.assert_allclose(rig.emotion_vector({"happy": 0.7, "sad": 0.3}), [0, 0.7, 0, 0.3, 0])
    np.testing.assert_allclose(rig.emotion_vector({"happy": 0.4}), [0.6, 0.4, 0, 0, 0])
    np.testing.assert_allclose(rig.emotion_vector({"joy": 1.0}), [0, 1, 0, 0, 0])
    for bad in ({"happy": 0.0}, {"happy": 0.7, "sad": 0.7}, {"hapy": 1.0}, {"sad": float("nan")}):
        with pytest.raises(InputError):
            rig.emotion_vector(bad)
    for name, mix in rig.NVIDIA_TO_EMOTION.items():
        assert sum(mix.values()) == pytest.approx(1), name


def test_real_live_link_header_has_the_known_order(shared):
    file = next((shared / "livelink").glob("*.csv"))
    header = file.open().readline().strip().split(",")
    assert tuple(header[2:]) == channel_orders.ORDERS["livelink61"].names


def test_real_ict_names_are_known(shared):
    data = np.load(shared / "ict" / "ict_lite.npz")
    assert tuple(data["expression_names"].tolist()) == channel_orders.ORDERS["ict57"].names
