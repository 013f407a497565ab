"""Reduces the vertices of a frame to the few numbers that the solver needs.

The solver (`solve`) uses a frame d [M, 3] only through D d [K] and |d|^2, D being the shapes. This
module computes them in blocks of frames, so that a scan is read once and never stored.

Real scans have dropped-out vertices and outliers. Weighting them would require a separate Gram
matrix for each frame. Instead the frame is completed by additive half-quadratic minimisation
(Geman and Yang 1995, IEEE Trans. Image Process. 4; for Huber's function these are the "modified
residuals" of Huber and Dutter 1974):

    d~ = w D + psi(d - w D),    psi(r) = r min(1, c / |r|) of a vertex, 0 where it dropped out,

with w at the minimum of the robust fit to that frame alone. The completed frame has the same
minimum, so one Gram matrix serves all frames. If few vertices are bad, the minimum is computed by
reweighting, with their contribution subtracted from the Gram matrix; otherwise by iterating the
formula.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_BLOCK = 32
"""Frames worked on together: working copies stay near the processor. Frames do not mix, so results
do not depend on it beyond rounding."""
_LEAST = 0.02
"""A frame with less than this share of its vertices is lost: nothing is made up for it."""
_RIDGE = 0.01
"""mm^2; too little to show in a weight that the frame says anything about: where nothing is seen
of a shape, its weight is estimated as zero."""
_FIRST, _NEXT = 160, 60
"""Iterations of the frame's own fit: before, and after each look at the residuals. It only says
where vertices ought to be that are not used as they are."""
_LOOKS = 2
_MANY = 0.1
"""A frame with more than this share of its vertices beyond the limit is no scan with a few bad
points but a face that the shapes do not fit; its completion is iterated over all vertices."""
_DENSE = 4
"""Iterations of that."""


@dataclasses.dataclass(frozen=True)
class NormalTerms:
    """The terms of a block of frames that the solver uses.

    Attributes:
      linear: [n, K] float64 D d~, mm^2; NaN in lost frames (see `used`).
      energy: [n] float64 |d~|^2, mm^2; NaN in lost frames.
      used: [n] share of vertices present; a frame below 0.02 counts as lost.
      outliers: [n] share of these whose residual was limited to `outlier_mm`.
    """

    linear: np.ndarray
    energy: np.ndarray
    used: np.ndarray
    outliers: np.ndarray


class Reducer:
    """Reduces frames against one set of shapes.

    Attributes:
      gram: [K, K] float64 Gram matrix of the shapes, mm^2.
      vertices: M.
    """

    def __init__(self, deltas: np.ndarray, *, outlier_mm: float = 0.0):
        """Prepares the shapes.

        Args:
          deltas: [K, M, 3] mm.
          outlier_mm: residuals of vertices are limited to this; 0 trusts every vertex.

        Raises:
          ValueError: deltas of another shape or not finite, or a negative `outlier_mm`.
        """
        deltas = np.asarray(deltas, np.float64)
        if deltas.ndim != 3 or deltas.shape[2] != 3 or not np.isfinite(deltas).all():
            raise ValueError(f"deltas {deltas.shape}: expected finite [K, M, 3]")
        if not outlier_mm >= 0:
            raise ValueError(f"outlier_mm={outlier_mm}: expected at least 0")
        self.outlier_mm = outlier_mm
        self.vertices = deltas.shape[1]
        self._flat = deltas.reshape(len(deltas), -1)
        self.gram = self._flat @ self._flat.T
        self._single = self._flat.astype(np.float32)
        # Store the rows of each vertex contiguously, to gather a few vertices quickly.
        self._rows = np.ascontiguousarray(deltas.transpose(1, 2, 0))
        self._fit = _Fit(self.gram + _RIDGE * np.eye(len(deltas)))

    def __call__(self, moved: np.ndarray) -> NormalTerms:
        """Reduces frames.

        Args:
          moved: [n, M, 3] displacements in mm, in any float type; a vertex with a non-finite
            coordinate has dropped out.

        Raises:
          ValueError: another number of vertices.
        """
        if moved.ndim != 3 or moved.shape[1:] != (self.vertices, 3):
            raise ValueError(f"frames {moved.shape}: expected [n, {self.vertices}, 3]")
        parts = [self._block(moved[i : i + _BLOCK]) for i in range(0, len(moved), _BLOCK)]
        shapes = len(self.gram)
        if not parts:
            return NormalTerms(np.zeros((0, shapes)), np.zeros(0), np.zeros(0), np.zeros(0))
        return NormalTerms(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _block(self, moved: np.ndarray) -> tuple[np.ndarray, ...]:
        d = np.asarray(moved, np.float64).reshape(len(moved), -1)
        energy = np.vecdot(d, d)
        missing = None
        if not np.isfinite(energy).all():
            # Summing three coordinates takes a fifth of the time of testing each one.
            missing = ~np.isfinite(moved[:, :, 0] + moved[:, :, 1] + moved[:, :, 2])
            d = d.copy() if np.shares_memory(d, moved) else d
            d.reshape(moved.shape)[missing] = 0.0
            energy = np.vecdot(d, d)
        linear = d @ self._flat.T
        used, outliers = np.ones(len(d)), np.zeros(len(d))
        if missing is not None:
            used -= missing.mean(axis=1)
        if self.outlier_mm or missing is not None:
            self._complete(d, missing, linear, energy, outliers)
            outliers /= np.maximum(used * self.vertices, 1.0)
        if missing is not None:
            lost = used < _LEAST
            linear[lost], energy[lost] = np.nan, np.nan
        return linear, energy, used, outliers

    def _complete(
        self,
        d: np.ndarray,
        missing: np.ndarray | None,
        linear: np.ndarray,
        energy: np.ndarray,
        outliers: np.ndarray,
    ) -> None:
        """Replaces D d and |d|^2 with those of the completed frames; counts the outliers."""
        frames, shapes = linear.shape
        many = _MANY * self.vertices
        empty = np.zeros(0, int)
        gone = [empty] * frames if missing is None else [np.flatnonzero(m) for m in missing]
        less = np.zeros((frames, shapes, shapes))  # contribution of bad vertices to the Gram matrix
        for i, where in enumerate(gone):
            rows = self._rows[where].reshape(-1, shapes)
            less[i] = rows.T @ rows
        w = self._fit(linear, less if missing is not None else None, None, _FIRST)
        single = d.astype(np.float32) if self.outlier_mm else d
        far: list[tuple[np.ndarray, np.ndarray]] = []
        for _ in range(_LOOKS if self.outlier_mm else 0):
            far = self._far(single, w, missing)
            if not any(len(where) for where, _ in far):
                break
            cut_linear, cut = linear.copy(), less.copy()
            for i, (where, weight) in enumerate(far):
                if 0 < len(where) <= many:
                    root = np.sqrt(1.0 - weight)
                    rows = (self._rows[where] * root[:, None, None]).reshape(-1, shapes)
                    cut[i] += rows.T @ rows
                    old = d[i].reshape(-1, 3)[where] * root[:, None]
                    cut_linear[i] -= old.ravel() @ rows
            w = self._fit(cut_linear, cut, w, _NEXT)
        dense = np.array([i for i, (where, _) in enumerate(far) if len(where) > many], int)
        if len(dense):
            mask = None if missing is None else missing[dense]
            solution = self._dense(d[dense], w[dense], mask)
            linear[dense], energy[dense], outliers[dense] = solution
        for i in range(frames):
            if i in dense:
                continue
            if len(gone[i]):
                fitted = self._rows[gone[i]] @ w[i]
                linear[i] += np.tensordot(fitted, self._rows[gone[i]])
                energy[i] += (fitted**2).sum()
            if far and len(far[i][0]):
                where = far[i][0]
                rows, old = self._rows[where], d[i].reshape(-1, 3)[where]
                fitted = rows @ w[i]
                r = old - fitted
                length = np.linalg.norm(r, axis=1, keepdims=True)
                short = length > self.outlier_mm
                new = fitted + r * np.where(short, self.outlier_mm / np.maximum(length, 1e-9), 1.0)
                linear[i] += np.tensordot(new - old, rows)
                energy[i] += (new**2).sum() - (old**2).sum()
                outliers[i] = np.count_nonzero(short)

    def _dense(
        self, d: np.ndarray, w: np.ndarray, missing: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns D d~, |d~|^2 and the number of outliers of frames with many of them."""
        for _ in range(_DENSE):
            fitted = w @ self._flat
            r = (d - fitted).reshape(len(d), -1, 3)
            length = np.sqrt(np.vecdot(r, r))
            r *= (self.outlier_mm / np.maximum(length, self.outlier_mm))[..., None]
            if missing is not None:
                r[missing], length[missing] = 0.0, 0.0
            full = fitted + r.reshape(len(d), -1)
            linear = full @ self._flat.T
            w = self._fit(linear, None, w, _NEXT)
        return linear, np.vecdot(full, full), np.count_nonzero(length > self.outlier_mm, axis=1)

    def _far(
        self, d: np.ndarray, w: np.ndarray, missing: np.ndarray | None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns (vertices beyond the limit, their weights limit / |r|) of each frame."""
        r = w.astype(np.float32) @ self._single
        np.subtract(d, r, out=r)
        np.square(r, out=r)
        r = r.reshape(len(d), -1, 3)
        square = r[:, :, 0] + r[:, :, 1]
        square += r[:, :, 2]
        if missing is not None:
            square[missing] = 0.0
        blocks = []
        for row in square:
            where = np.flatnonzero(row > np.float32(self.outlier_mm**2))
            blocks.append((where, self.outlier_mm / np.sqrt(row[where], dtype=np.float64)))
        return blocks


class _Fit:
    """Box-constrained least squares for many frames, each with a separate Gram correction.

    Uses accelerated projected gradients in coordinates of unit diagonal (see `solve`), for a fixed
    number of iterations, so that no frame depends on another.
    """

    def __init__(self, gram: np.ndarray):
        self._scale = 1.0 / np.sqrt(np.diag(gram))
        self._gram = gram * np.outer(self._scale, self._scale)
        self._step = 1.0 / np.linalg.eigvalsh(self._gram)[-1]

    def __call__(
        self, linear: np.ndarray, less: np.ndarray | None, start: np.ndarray | None, count: int
    ) -> np.ndarray:
        """Returns weights [n, K] for D d [n, K], with `less` [n, K, K] subtracted from the Gram."""
        q, upper = linear * self._scale, 1.0 / self._scale
        gram = self._gram
        if less is not None:
            gram = self._gram - less * np.outer(self._scale, self._scale)
        if start is None:
            start = np.linalg.solve(gram, q[..., None])[..., 0] * self._scale
        z = np.clip(start / self._scale, 0.0, upper)
        y, momentum = z, np.ones((len(q), 1))
        for _ in range(count):
            product = y @ gram if less is None else np.matmul(y[:, None], gram)[:, 0]
            new = np.clip(y - self._step * (product - q), 0.0, upper)
            change = new - z
            momentum[np.vecdot(y - new, change) > 0] = 1.0
            following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
            y = new + (momentum - 1.0) / following * change
            z, momentum = new, following
        return z * self._scale
