"""Which stretch of which clip is the n-th training window: a pure function of (seed, n).

An epoch holds as many windows as the clips have window lengths of speech, each clip as often as
its length asks for, in shuffled order. With masses (sets mixed by weights) an epoch is as long, of
the clips that have a mass, and a clip comes up as often as its mass asks for: it may come up
several times in an epoch, or only in every tenth. No state: any window of any epoch can be asked
for at once.
"""

from __future__ import annotations

import numpy as np

ORDER, START, AUGMENT = 0, 1, 2
"""Names of the random streams; they keep one draw from moving another."""


def generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """Returns the random generator of window (or epoch) `index` for one purpose."""
    return np.random.default_rng([seed % 2**32, stream, index])


class Plan:
    """The order of training windows over clips of known lengths.

    Attributes:
      frames: [N] frames of each clip.
      window: frames of a window.
      seed: of the order.
      per_epoch: windows an epoch.
    """

    def __init__(self, frames: np.ndarray, window: int, seed: int, mass: np.ndarray | None = None):
        """Plans windows over clips.

        Args:
          frames: [N] of each clip, at least one above 0.
          window: frames of a window.
          seed: of the order.
          mass: [N] how often each clip comes up, relative to the others, at least one above 0;
            None for its frames.
        """
        self.frames = np.asarray(frames, np.int64)
        self.window = window
        self.seed = seed
        self._ends = np.cumsum(self.frames if mass is None else np.asarray(mass, np.float64))
        used = self.frames if mass is None else self.frames[np.asarray(mass) > 0]
        self.per_epoch = max(1, round(int(used.sum()) / window))
        # Of clips that come up at all: a place may be rounded up to the very end.
        self._last = int(np.searchsorted(self._ends, self._ends[-1]))
        self._epochs: dict[int, np.ndarray] = {}

    def clip(self, index: int) -> int:
        """Returns the clip of window `index` >= 0.

        Over an epoch a clip comes up `per_epoch * mass / sum(mass)` times, rounded down or up at
        random, and so do neighbouring clips together, such as those of a set (systematic sampling:
        equally spaced points with one random offset).
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

        The middle of the window is uniform over the clip, then the window is moved inside. Starts
        and ends of clips, with their pauses, are so seen half as often as what is between them;
        a start uniform over the possible ones would hardly show them.

        Args:
          index: of the window.
          frames: of the clip that is used.
          need: frames of the clip that the window covers, more than `window` when played faster.
        """
        middle = generator(self.seed, START, index).random() * frames
        return start_at(middle, frames, need)


def start_at(middle: float, frames: int, need: int) -> int:
    """Returns the first frame of a window of `need` frames about `middle`, moved inside."""
    return int(min(max(round(middle - need / 2), 0), max(frames - need, 0)))


def even(
    frames: np.ndarray, window: int, count: int, mass: np.ndarray | None = None
) -> list[tuple[int, int]]:
    """Returns `count` windows (clip, first frame) spread evenly over the clips, without chance.

    Args:
      frames: [N] frames of each clip.
      window: frames of a window.
      count: number of windows; they overlap where it exceeds what the clips hold.
      mass: [N] share of the windows that each clip gets, relative to the others; None for its
        frames.
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
