"""Transfers blendshapes to another head of the same topology.

Two solutions bound the truth: displacements that scale with the head as a whole, and displacements
whose deformation gradient is the same on every triangle (Sumner and Popovic 2004, ACM Trans. Graph.
23, in the Poisson form of Botsch et al. 2006, "Deformation transfer for detail-preserving surface
editing", VMV). The first ignores proportions; the second reproduces thin folds such as closed lips
too literally. A weighted mean, with weight `FOLLOW` on the second, is closer to shapes made for
the person than either one.
"""

from __future__ import annotations

import numpy as np

FOLLOW = 0.3
"""Share of the deformation gradient's answer."""

_REACH = 0.4  # share of the head's radius within which a triangle's gradient counts
_THINNEST = 1e-4  # share of the median triangle area


def transfer(
    neutral: np.ndarray,
    deltas: np.ndarray,
    faces: np.ndarray,
    subject: np.ndarray,
    *,
    follow: float = FOLLOW,
) -> np.ndarray:
    """Returns the shapes [K, V, 3] of another head, in mm.

    Vertices that a shape does not move stay fixed. Without faces, displacements scale with the
    head.

    Args:
      neutral: [V, 3] head that the shapes belong to, mm.
      deltas: [K, V, 3] its shapes, mm.
      faces: [F, 3] triangles; no rows if there are none.
      subject: [V, 3] the other head, in the same orientation, mm.
      follow: weight of the deformation-gradient solution, in [0, 1].
    """
    scaled = deltas * size_ratio(neutral, subject)
    if not len(faces) or not follow:
        return scaled
    followed = _deformed(neutral, deltas, np.asarray(faces, np.int64), subject, scaled)
    out = scaled + follow * (followed - scaled)
    out[~np.any(deltas, axis=2)] = 0.0
    return out


def size_ratio(neutral: np.ndarray, subject: np.ndarray) -> float:
    """Returns the scale of the similarity that best fits one mesh [V, 3] to another.

    Umeyama 1991, IEEE Trans. Pattern Anal. Mach. Intell. 13.
    """
    a, b = neutral - neutral.mean(axis=0), subject - subject.mean(axis=0)
    u, values, vt = np.linalg.svd(a.T @ b)
    values[2] *= np.sign(np.linalg.det(u @ vt)) or 1.0
    return float(values.sum() / max((a * a).sum(), 1e-30))


def _deformed(
    neutral: np.ndarray,
    deltas: np.ndarray,
    faces: np.ndarray,
    subject: np.ndarray,
    scaled: np.ndarray,
) -> np.ndarray:
    """Returns displacements [K, V, 3] whose gradients on the subject are those on the neutral.

    Minimises sum_triangles area |grad u - J|^2 + sum_vertices area |u - scaled|^2 / reach^2; the
    second term fixes disconnected parts (eyes, teeth) and the overall position, and damps vertices
    far from the shape.
    """
    from scipy import sparse
    from scipy.sparse import linalg

    rest, source_areas = _frames(neutral, faces)
    target, areas = _frames(subject, faces)
    normals = target[:, :, 2]
    solid = areas > _THINNEST * np.median(areas)
    solid &= source_areas > _THINNEST * np.median(source_areas)
    faces, areas, normals = faces[solid], areas[solid], normals[solid]
    to_rest = np.linalg.inv(rest[solid])
    count, shapes = len(faces), len(deltas)
    corners = subject[faces]
    # Gradient of the hat function of a corner: the normal across the opposite edge, over 2 area.
    hats = np.stack(
        [np.cross(normals, corners[:, (i + 2) % 3] - corners[:, (i + 1) % 3]) for i in range(3)], 1
    ) / (2.0 * areas[:, None, None])
    rows = np.broadcast_to(np.arange(3 * count).reshape(count, 1, 3), (count, 3, 3))
    columns = np.broadcast_to(faces[:, :, None], (count, 3, 3))
    gradient = sparse.csr_matrix(
        (hats.ravel(), (rows.ravel(), columns.ravel())), shape=(3 * count, len(subject))
    )
    weighted = (gradient.T @ sparse.diags(np.repeat(areas, 3))).tocsr()
    mass = np.bincount(faces.ravel(), np.repeat(areas / 3.0, 3), minlength=len(subject))
    mass[mass == 0] = max(float(mass.mean()), 1e-12)
    radius = np.sqrt(((subject - subject.mean(axis=0)) ** 2).sum(axis=1).mean())
    pull = mass / (_REACH * radius) ** 2
    # Symmetric positive definite: no pivoting is needed, which keeps the factors sparse.
    solver = linalg.splu(
        (weighted @ gradient + sparse.diags(pull)).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    out = np.empty_like(scaled)
    for k in range(shapes):
        if not deltas[k].any():
            out[k] = 0.0
            continue
        bent, _ = _frames(neutral + deltas[k], faces)
        change = bent @ to_rest - np.eye(3)
        # [F, 3, 3] (coordinate, direction) -> rows (triangle, direction), columns coordinates.
        right = weighted @ change.transpose(0, 2, 1).reshape(3 * count, 3)
        out[k] = solver.solve(right + pull[:, None] * scaled[k])
    return out


def _frames(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two edges and the unit normal as columns [F, 3, 3], and the areas [F]."""
    corners = vertices[faces]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(one, two)
    length = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(length, 1e-30)[:, None]
    return np.stack([one, two, normal], axis=2), 0.5 * length
