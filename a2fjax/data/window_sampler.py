"""Chooses the clip and the position of the n-th training window as a pure function of (seed, n).

The number of windows per epoch is the total clip length divided by the window length. Each clip
occurs in proportion to its length, in shuffled order. With masses (datasets mixed by weights), the
total covers the clips with a mass above 0, and each clip occurs in proportion to its mass: several
times in an epoch, or only in every tenth. The sampler has no state, so any window of any epoch can
be computed directly.
"""

from __future__ import annotations

import numpy as np

ORDER, START, AUGMENT = 0, 1, 2
"""Random streams, kept separate so that a draw from one does not affect the others."""


def generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """Returns the random generator of window (or epoch) `index` for one purpose."""
    return np.random.default_rng([seed % 2**32, stream, index])


class Plan:
    """The order of training windows over clips of known lengths.

    Attributes:
      frames: [N] frames of each clip.
      window: length of a window in frames.
      seed: seed of the order.
      per_epoch: windows per epoch.
    """

    def __init__(self, frames: np.ndarray, window: int, seed: int, mass: np.ndarray | None = None):
        """Plans windows over clips.

        Args:
          frames: [N] frames of each clip, at least one above 0.
          window: length of a window in frames.
          seed: seed of the order.
          mass: [N] relative frequency of each clip, at least one above 0; None uses the number of
            frames.
        """
        self.frames = np.asarray(frames, np.int64)
        self.window = window
        self.seed = seed
        self._ends = np.cumsum(self.frames if mass is None else np.asarray(mass, np.float64))
        used = self.frames if mass is None else self.frames[np.asarray(mass) > 0]
        self.per_epoch = max(1, round(int(used.sum()) / window))
        # Last clip with a mass above 0; rounding may push a position to the end of the range.
        self._last = int(np.searchsorted(self._ends, self._ends[-1]))
        self._epochs: dict[int, np.ndarray] = {}

    def clip(self, index: int) -> int:
        """Returns the clip of window `index` >= 0.

        In an epoch a clip occurs `per_epoch * mass / sum(mass)` times, rounded down or up at
        random. The same holds for a run of neighbouring clips, such as those of a dataset
        (systematic sampling: equally spaced points with one random offset).
        """
        epoch, slot = divmod(int(index), self.per_epoch)
        order = self._epochs.get(epoch)
        if order is None:
            order = self._order(epoch)
            if len(self._epochs) >= 4:
                self._epochs = {}
            self._epochs[epoch] = order
        return int(order[slot])

    def _order(self, epoch: int) -> np.ndarray:
        random = generator(self.seed, ORDER, epoch)
        places = (np.arange(self.per_epoch) + random.random()) / self.per_epoch * self._ends[-1]
        clips = np.searchsorted(self._ends, places, side="right")
        return random.permutation(np.minimum(clips, self._last))

    def start(self, index: int, frames: int, need: int) -> int:
        """Returns the first frame of window `index` in a clip of `frames` frames.

        The middle of the window is drawn uniformly over the clip, then the window is shifted to
        lie inside the clip. The first and last frames of clips, with their pauses, therefore occur
        half as often as those in between. If the start were uniform over its possible values, they
        would occur almost never.

        Args:
          index: index of the window.
          frames: frames of the chosen clip.
          need: frames of the clip that the window covers; above `window` at speeds above 1.
        """
        middle = generator(self.seed, START, index).random() * frames
        return start_at(middle, frames, need)


def start_at(middle: float, frames: int, need: int) -> int:
    """Returns the first frame of a window of `need` frames around `middle`, inside the clip."""
    return int(min(max(round(middle - need / 2), 0), max(frames - need, 0)))


def even(
    frames: np.ndarray, window: int, count: int, mass: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Returns `count` windows (clip, first frame) spread evenly over the clips, not at random.

    Args:
      frames: [N] frames of each clip.
      window: length of a window in frames.
      count: number of windows; they overlap if the clips are too short for that many.
      mass: [N] relative share of the windows of each clip; None uses the number of frames.
    """
    frames = np.asarray(frames, np.int64)
    mass = frames if mass is None else np.asarray(mass, np.float64)
    ends = np.cumsum(mass)
    places = (np.arange(count) + 0.5) / count * ends[-1]
    clips = np.minimum(np.searchsorted(ends, places, side="right"), np.searchsorted(ends, ends[-1]))
    begins = ends - mass
    middles = (places - begins[clips]) * (frames[clips] / mass[clips])
    return [
        (int(c), start_at(float(m), int(frames[c]), window))
        for c, m in zip(clips, middles, strict=True)
    ]
