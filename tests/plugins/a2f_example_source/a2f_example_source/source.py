"""Capture layout: SUBJECT/TAKE.arkit.npy, ARKit weights [F, 52], and TAKE.wav beside it."""

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline.sources import Actor, Capture, Take, find_audio
from data_pipeline.sources.curves import CurveSource

SUFFIX = ".arkit.npy"


def recognise(path):
    count = len(list(path.glob(f"*/*{SUFFIX}")))
    return f"{count} takes named *{SUFFIX}" if count else None


class ArkitSource(CurveSource):
    layout = "arkit_npy"

    def actors(self):
        folders = sorted(p for p in self.path.iterdir() if p.is_dir())
        takes = [tuple(map(self._take, sorted(f.glob(f"*{SUFFIX}")))) for f in folders]
        return [Actor(name=f.name, takes=t) for f, t in zip(folders, takes, strict=True)]

    def _take(self, file):
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

    def capture(self, take):
        weights = np.load(take.data[0], allow_pickle=False)
        if weights.ndim != 2 or weights.shape[1] != len(rig.ARKIT):
            raise InputError(f"{take.data[0]}: shape {weights.shape}, expected [F, 52]")
        observed = np.isin(rig.CHANNELS, rig.ARKIT)
        curves = np.zeros((len(weights), rig.NUM_CHANNELS))
        curves[:, observed] = weights
        return Capture(times=np.arange(len(weights)) / take.fps, curves=curves, observed=observed)


open_source = ArkitSource
