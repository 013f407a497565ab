"""Capture layout: SUBJECT/TAKE.arkit.npy, ARKit weights [F, 52], and TAKE.wav beside it."""

from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline.sources import Actor, Capture, SourceOptions, Take, find_audio
from data_pipeline.sources.curves import CurveSource

SUFFIX = ".arkit.npy"


def recognise(path: Path) -> str | None:
    """Returns why a folder has this layout, or None."""
    count = len(list(path.glob(f"*/*{SUFFIX}")))
    return f"{count} takes named *{SUFFIX}" if count else None


def open_source(path: Path, options: SourceOptions) -> "ArkitSource":
    """Returns the source of a folder; see `data_pipeline.sources`."""
    return ArkitSource(path, options)


class ArkitSource(CurveSource):
    """Takes of curves: nothing to solve."""

    layout = "arkit_npy"

    def actors(self) -> list[Actor]:
        """Returns an actor for each folder."""
        folders = sorted(p for p in self.path.iterdir() if p.is_dir())
        return [
            Actor(name=f.name, takes=tuple(map(self._take, sorted(f.glob(f"*{SUFFIX}")))))
            for f in folders
        ]

    def _take(self, file: Path) -> Take:
        name = file.name.removesuffix(SUFFIX)
        return Take(
            subject=file.parent.name,
            name=name,
            audio=find_audio(file.parent, name),
            data=(file,),
            sentence=name,
            language=self.options.language,
            emotion=np.eye(rig.NUM_EMOTIONS, dtype=np.float32)[0],
            fps=self.options.fps or 60.0,
        )

    def capture(self, take: Take) -> Capture:
        """Returns the curves of a take in rig order."""
        weights = np.load(take.data[0], allow_pickle=False)
        if weights.ndim != 2 or weights.shape[1] != len(rig.ARKIT):
            raise InputError(f"{take.data[0]}: shape {weights.shape}, expected [F, 52]")
        curves = np.zeros((len(weights), rig.NUM_CHANNELS))
        observed = np.isin(rig.CHANNELS, rig.ARKIT)
        curves[:, observed] = weights
        return Capture(times=np.arange(len(weights)) / take.fps, curves=curves, observed=observed)
