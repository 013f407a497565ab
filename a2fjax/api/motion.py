"""Motion: curves of 72 rig channels over time, to look at, convert and write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax import rig
from a2fjax.animation import formats, tracks
from a2fjax.api.tables import import_pandas
from a2fjax.errors import InputError

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Motion:
    """Curves of the 72 rig channels.

    Example:
        >>> motion = Motion(np.full((100, 72), 0.25))
        >>> len(motion), motion.fps, motion.seconds
        (100, Fraction(50, 1), 2.0)
        >>> float(motion["jawOpen"][0])
        0.25

    Attributes:
      curves: [T, 72] float32 in rig units: weights in [0, 1], eye angles in degrees.
      fps: frames a second, exact.
      waveform: smallest and largest audio sample of each frame, [T] each; None where unknown.
      emotion: [T, 5] weights that the motion was predicted with; None where unknown.
      observed: [72] bool, channels that a file had; None means all.
      title: of the figure.
      metadata: small values that JSON and npz files keep.
    """

    curves: np.ndarray
    fps: Fraction = Fraction(rig.FPS)
    waveform: tuple[np.ndarray, np.ndarray] | None = None
    emotion: np.ndarray | None = None
    observed: np.ndarray | None = None
    title: str = ""
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the shape and makes the rate exact.

        Raises:
          InputError: the curves are not [T, 72] with at least one frame, or a rate out of range.
        """
        curves = np.asarray(self.curves, np.float32)
        if curves.ndim != 2 or curves.shape[1] != rig.NUM_CHANNELS or not len(curves):
            raise InputError(f"motion has shape {curves.shape}, expected [frames, 72]")
        object.__setattr__(self, "curves", curves)
        object.__setattr__(self, "fps", tracks.rate(self.fps))

    @classmethod
    def read(cls, path: str | Path) -> Motion:
        """Reads an animation file; its frames are brought to an even rate.

        Args:
          path: .csv (Live Link Face), .channels.csv, .json, .npz, or a registered format.

        Raises:
          InputError: no such file, unknown ending, or not such a file.
        """
        track = formats.read(path)
        fps = tracks.rate(round(track.fps, 3))
        even = track.resampled(fps)
        return cls(even.motion, fps, observed=track.observed, title=Path(path).name)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns of `curves`."""
        return rig.CHANNELS

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each column of `curves`."""
        return rig.UNITS

    @property
    def times(self) -> np.ndarray:
        """Time of each frame [T] in seconds; the first is 0."""
        return np.arange(len(self.curves)) / float(self.fps)

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.curves) / float(self.fps)

    def __len__(self) -> int:
        """Returns the number of frames."""
        return len(self.curves)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames [72]."""
        return iter(self.curves)

    def __getitem__(self, channel: str) -> np.ndarray:
        """Returns the curve [T] of a channel.

        Raises:
          InputError: no such channel; names the nearest.
        """
        return self.curves[:, rig.channel_index(channel)]

    def __repr__(self) -> str:
        """Returns length, rate and title."""
        name = f" of {self.title}" if self.title else ""
        return f"<Motion{name}: {len(self)} frames, {float(self.fps):g} fps, {self.seconds:.2f} s>"

    def resample(self, fps: float | str | Fraction) -> Motion:
        """Returns the motion at another rate, linear between frames and of the same duration.

        Example:
            >>> len(Motion(np.zeros((50, 72))).resample("59.94"))
            60

        Args:
          fps: frames a second, such as 60, "29.97" (30000/1001) or Fraction(30000, 1001).

        Raises:
          InputError: not a rate from 1 to 1000.
        """
        rate = tracks.rate(fps)
        if rate == self.fps:
            return self
        curves = tracks.resample(self.curves, self.fps, rate)
        # What belongs to a frame stays with the frame that it is nearest to.
        nearest = np.minimum(
            (np.arange(len(curves)) * float(self.fps / rate)).astype(int), len(self) - 1
        )
        return dataclasses.replace(
            self,
            curves=curves,
            fps=rate,
            waveform=None if self.waveform is None else tuple(w[nearest] for w in self.waveform),
            emotion=None if self.emotion is None else self.emotion[nearest],
        )

    def to_numpy(self) -> np.ndarray:
        """Returns a copy of the curves [T, 72]."""
        return self.curves.copy()

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with a column for each channel and the time in seconds as its index.

        Raises:
          InputError: pandas is not installed.
        """
        pandas = import_pandas()
        index = pandas.Index(self.times, name="time")
        return pandas.DataFrame(self.curves, index=index, columns=list(self.channels))

    def plot(self, seconds: tuple[float, float] | None = None) -> Figure:
        """Draws the main curves under the waveform.

        A notebook cell that ends with the figure shows it; `figure.savefig` writes it. No
        matplotlib backend is selected.

        Args:
          seconds: (start, end) of the part to draw; None for all.

        Raises:
          InputError: nothing lies inside `seconds`, or matplotlib is not installed.
        """
        from a2fjax.view import motion_figure

        curves = motion_figure.MainCurves()
        curves.push(self.curves)
        return motion_figure.motion_figure(
            curves,
            fps=float(self.fps),
            waveform=self.waveform,
            emotion=self.emotion,
            title=self.title,
            seconds=seconds,
        )

    def save(
        self,
        path: str | Path,
        *,
        fps: float | str | Fraction | None = None,
        timecode: str = "00:00:00:00.000",
        order: str | None = None,
        names_map: str | Path | None = None,
        mouth_close: str | None = None,
        head: str | Path | None = None,
        sound: str | Path | None = None,
    ) -> Path:
        """Writes an animation file, completely or not at all.

        Channels that a format has no place for go to a companion beside it (docs/files.md).

        Args:
          path: its ending selects the format: .csv (Live Link Face), .channels.csv (a time column
            and one column a channel), .json, .npz, .glb, .usda, or another one of
            `a2fjax.registry.writers`.
          fps: frames a second of the file; None keeps the motion's.
          timecode: HH:MM:SS:FF.fff of the first frame, in Live Link Face files.
          order: order and names of the columns, such as "arkit52" (`channel_orders.ORDERS`).
          names_map: JSON file of other names, or "metahuman_tongue".
          mouth_close: convention of mouthClose, "arkit" or "nvidia"; None for ARKit's.
          head: of scenes: a file of shapes (`a2fjax.head_shapes`), or "demo".
          sound: file of the sound, which scenes refer to.

        Returns:
          The path.

        Raises:
          InputError: unknown ending, rate or timecode, or the file cannot be written.
          WorkFailed: the disk is full or fails.
        """
        motion = self if fps is None else self.resample(fps)
        options = formats.Options(
            order, names_map, mouth_close, head, None if sound is None else Path(sound)
        )
        formats.check_options([path], options)
        for each, columns in formats.with_companion(path):
            formats.write(
                each,
                motion.curves,
                fps=motion.fps,
                start=timecode,
                metadata=self.metadata,
                options=options if columns is None else None,
                columns=columns,
            )
        return Path(path)
