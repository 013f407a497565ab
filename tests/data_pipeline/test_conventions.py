import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.mesh import conventions

TEMPLATE = heads.make_head(np.zeros(8)).vertices * 10


def someone(seed):
    return heads.make_head(np.random.default_rng(seed).uniform(-1, 1, 8)).vertices * 10


@given(
    st.integers(0, 47), st.sampled_from(["mm", "cm", "m"]), st.integers(0, 1000), st.floats(0, 20)
)
@settings(max_examples=40, deadline=None)
def test_units_and_axes_of_another_head_are_found_whatever_its_pose(choice, unit, seed, degrees):
    axes = conventions.signed_permutations()[choice]
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    posed = someone(seed) @ turn.T + rng.normal(size=3) * 200
    # posed = mm * axes @ capture
    capture = posed @ axes / conventions.MILLIMETRES[unit]
    found = conventions.find_convention(capture, TEMPLATE)
    assert found.units == unit
    np.testing.assert_array_equal(found.axes, axes)
    away = np.sqrt(((found.aligned(capture) - TEMPLATE) ** 2).sum(axis=1).mean())
    best, left = Rotation.align_vectors(
        TEMPLATE - TEMPLATE.mean(axis=0), someone(seed) - someone(seed).mean(axis=0)
    )
    assert away == pytest.approx(left / np.sqrt(len(TEMPLATE)), rel=1e-6)


def test_all_48_axes_in_3_units_are_found():
    capture = someone(3)
    for axes in conventions.signed_permutations():
        for unit, size in conventions.MILLIMETRES.items():
            found = conventions.find_convention(capture @ axes / size, TEMPLATE)
            assert found.units == unit and np.array_equal(found.axes, axes)
            assert found.margin > 2 and 0.7 < found.size < 1.4


def test_words_and_axes_are_the_same():
    for axes in conventions.signed_permutations():
        np.testing.assert_array_equal(
            conventions.parse_axes(conventions.axes_name(axes).upper()), axes
        )
    z_up = conventions.parse_axes("+x+z-y")
    np.testing.assert_array_equal(z_up @ [1, 2, 3], [1, 3, -2])
    for wrong in ("", "+x+y", "xyz", "+x+x+z", "+x+y*z", "+x+y+w", "+x+y+z+x"):
        with pytest.raises(InputError, match="axes=.*expected auto, or the capture's axes"):
            conventions.parse_axes(wrong)


def test_what_is_not_the_template_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="ann: 421 vertices, the template rig has 422"):
        conventions.find_convention(TEMPLATE[1:], TEMPLATE, name="ann")
    with pytest.raises(InputError, match="not the template rig's head: .*another order"):
        conventions.find_convention(rng.permutation(TEMPLATE), TEMPLATE)
    with pytest.raises(InputError, match="not the template rig's head with axes -x.y.z"):
        conventions.find_convention(
            TEMPLATE, TEMPLATE, axes="-x+y+z"
        )  # a mirrored head is another one
    with pytest.raises(InputError, match="4 times as large"):
        conventions.find_convention(TEMPLATE * 4, TEMPLATE, units="mm")
    with pytest.raises(InputError, match="units='inch'; expected one of: auto, mm, cm, m"):
        conventions.find_convention(TEMPLATE, TEMPLATE, units="inch")
    with pytest.raises(InputError, match="all vertices lie in one place"):
        conventions.find_convention(np.ones_like(TEMPLATE), TEMPLATE)
    with pytest.raises(InputError, match="only 0 vertices are finite"):
        conventions.find_convention(TEMPLATE * np.nan, TEMPLATE)
    half_way = TEMPLATE @ Rotation.from_euler("y", 45, degrees=True).as_matrix()
    with pytest.raises(InputError, match="about as likely .*give --config.axes"):
        conventions.find_convention(half_way, TEMPLATE)
    assert conventions.find_convention(half_way, TEMPLATE, axes="+x+y+z").margin == np.inf


def test_vertices_that_are_not_known_do_not_matter():
    capture = someone(5)
    capture[::3] = np.nan
    found = conventions.find_convention(capture, TEMPLATE)
    assert found.units == "mm" and np.array_equal(found.axes, np.eye(3))


def test_names_of_shapes_tell_the_axes_or_nothing(head):
    for seed in range(48):
        axes = conventions.signed_permutations()[seed]
        person = heads.make_head(np.random.default_rng(seed).uniform(-1, 1, 8))
        shapes = expressions.skin_shapes(person)
        told = conventions.axes_from_shapes(person.vertices @ axes, rig.ARKIT, shapes @ axes)
        np.testing.assert_array_equal(told, axes)
    # Shapes at random places mean nothing, nor do a few.
    assert conventions.axes_from_shapes(head.neutral, rig.ARKIT, head.deltas) is None
    assert conventions.axes_from_shapes(person.vertices, rig.ARKIT[:9], shapes[:9]) is None
