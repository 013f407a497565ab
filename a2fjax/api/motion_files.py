"""Writes predictions to animation files and figures as they are made, in bounded memory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, rig
from a2fjax.animation import formats, livelink, tracks
from a2fjax.api.prediction import Prediction, Progress
from a2fjax.errors import InputError
from a2fjax.view import drawing, motion_figure


@dataclasses.dataclass(frozen=True)
class Written:
    """Files that were written.

    Attributes:
      outputs: animation files, sample by sample, each followed by its companion.
      figures: of each sample, where a figure was asked for.
      frames: of each animation file.
      fps: frames a second of the animation files.
      seconds: duration of the recording.
    """

    outputs: list[Path]
    figures: list[Path]
    frames: int
    fps: Fraction
    seconds: float


class Targets:
    """Files to write, checked before anything is predicted."""

    def __init__(
        self,
        outputs: Sequence[str | Path],
        audio: Any,
        *,
        fps: float | str | Fraction = rig.FPS,
        timecode: str = "00:00:00:00.000",
        figure: str | Path | None = None,
        figure_range: tuple[float, float] | None = None,
        samples: int | None = None,
        order: str | None = None,
        names_map: str | Path | None = None,
        mouth_close: str | None = None,
        head: str | Path | None = None,
    ) -> None:
        """Checks names, folders, rate and timecode; see `Model.predict_to_files`.

        Raises:
          InputError: nothing to write, an unknown ending, a folder that cannot be written to, one
            file twice, the recording itself, or a wrong rate, timecode or number of samples.
        """
        if not outputs and figure is None:
            raise InputError(
                "nothing to write: name a file (--out FILE.csv, .json, .npz) or a figure (--plot "
                "FILE.png)"
            )
        self.fps, self.timecode = tracks.rate(fps), timecode
        if samples is not None and samples < 1:
            raise InputError(f"samples={samples}: expected at least 1")
        sound = Path(audio) if isinstance(audio, str | Path) else None
        self.options = formats.Options(order, names_map, mouth_close, head, sound)
        formats.check_options(outputs, self.options)
        if figure is not None:
            drawing.check_format(figure)
        count = range(samples or 1)
        self.outputs = [
            [
                each
                for path in outputs
                for each in formats.with_companion(_numbered(path, samples, k))
            ]
            for k in count
        ]
        self.figures = [] if figure is None else [_numbered(figure, samples, k) for k in count]
        self.figure_range = figure_range
        seen: set[Path] = set()
        animations = [path for targets in self.outputs for path, _ in targets]
        for path in [*animations, *self.figures]:
            if path.resolve() in seen:
                raise InputError(f"{path}: is given twice as an output")
            seen.add(path.resolve())
            files.check_writable(path)
            if isinstance(audio, str | Path) and path.resolve() == Path(audio).resolve():
                raise InputError(f"{path}: is the recording itself")
        livelink.check_start(timecode, self.fps)


def write(prediction: Prediction, targets: Targets, progress: Progress | None = None) -> Written:
    """Makes a prediction and writes it.

    Args:
      prediction: to make.
      targets: files to write.
      progress: see `Model.predict`.

    Raises:
      InputError: the recording is damaged, or a file cannot be written; no file is left behind.
      WorkFailed: the disk is full or fails.
    """
    stats = prediction.recording.stats
    frames = tracks.resampled_frames(stats.frames, rig.FPS, targets.fps)
    for index, paths in enumerate(targets.outputs):
        curves = motion_figure.MainCurves() if targets.figures else None
        resampler = tracks.Resampler(rig.FPS, targets.fps)
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(
                    formats.writer(
                        path,
                        fps=targets.fps,
                        frames=frames,
                        start=targets.timecode,
                        metadata=prediction.metadata(index),
                        options=targets.options if columns is None else None,
                        columns=columns,
                    )
                )
                for path, columns in paths
            ]
            for block in prediction.blocks(index, progress):
                if curves is not None:
                    curves.push(block)
                _write_all(writers, resampler.push(block))
            _write_all(writers, resampler.finish())
            if curves is not None:
                figure = motion_figure.motion_figure(
                    curves,
                    waveform=(stats.low, stats.high),
                    emotion=prediction.emotion.sample(stats.frames),
                    title=prediction.sample_title(index),
                    seconds=targets.figure_range,
                )
                drawing.save(targets.figures[index], figure)
    outputs = [path for paths in targets.outputs for path, _ in paths]
    return Written(outputs, targets.figures, frames, targets.fps, stats.frames / rig.FPS)


def _write_all(writers: Sequence[formats.Writer], motion: np.ndarray) -> None:
    for writer in writers:
        writer.write(motion)


def _numbered(path: str | Path, samples: int | None, index: int) -> Path:
    """Returns the file of a sample: NAME.sample0.csv for NAME.csv."""
    path = Path(path)
    if samples is None:
        return path
    known = formats.registry.writers.names()
    endings = sorted((e for e in known if path.name.lower().endswith(e)), key=len)
    end = endings[-1] if endings else path.suffix
    return path.with_name(f"{path.name[: -len(end)]}.sample{index}{path.name[-len(end) :]}")
