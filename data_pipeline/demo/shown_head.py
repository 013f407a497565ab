"""The demo's average head as a scene shows it: skin and tongue in one mesh."""

from __future__ import annotations

import numpy as np

from a2fjax import head_shapes, rig
from data_pipeline.demo import expressions
from data_pipeline.demo.head import make_head
from data_pipeline.demo.style import SHAPE


def shown_head() -> head_shapes.Head:
    """Returns the head; lengths in centimetres.

    The whole tongue moves with the jaw, as the lower dental arch does.
    """
    face = make_head(np.zeros(len(SHAPE)))
    skin, tongue = len(face.vertices), len(face.tongue)
    shapes = np.zeros((rig.NUM_CHANNELS, skin + tongue, 3))
    shapes[: len(rig.ARKIT), :skin] = expressions.skin_shapes(face)
    first = rig.INDEX[rig.TONGUE[0]]
    shapes[first : first + len(rig.TONGUE), skin:] = expressions.tongue_shapes(face)
    hinge, degrees = expressions.JAW_HINGE, expressions.JAW_ANGLE
    shapes[rig.INDEX["jawOpen"], skin:] = (
        expressions.rotate_x(face.tongue, degrees, hinge) - face.tongue
    )
    return head_shapes.Head(
        "demo",
        head_shapes.Part(np.concatenate([face.vertices, face.tongue]), shapes),
        np.concatenate([face.faces, face.tongue_faces + skin]).astype(np.int32),
        head_shapes.METRES["cm"],
    )
