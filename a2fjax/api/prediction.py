"""A prediction whose inputs are checked, made block by block or at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from a2fjax.animation.emotion import EmotionTrack
from a2fjax.api.motion import Motion
from a2fjax.infer import postprocess
from a2fjax.infer.inpainting import Inpainting
from a2fjax.infer.recording import Recording

if TYPE_CHECKING:
    from a2fjax.infer.predictor import Predictor

Progress = Callable[[int, int], None]
"""Called with the number of frames that are done and the number of frames in all"""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A prediction whose inputs are checked; `blocks` makes it.

    Attributes:
      predictor: with the sampling settings.
      recording: the audio.
      emotion: over time.
      points: identity points of a neutral mesh, or None for the mean identity.
      subject: training subject, or None.
      inpainting: given motion, or None.
      adjustment: of the predicted motion.
      samples: number of samples; None for one that is not numbered.
      title: of figures.
    """

    predictor: Predictor
    recording: Recording
    emotion: EmotionTrack
    points: np.ndarray | None
    subject: str | None
    inpainting: Inpainting | None
    adjustment: postprocess.Adjustment
    samples: int | None
    title: str

    def blocks(self, index: int = 0, progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields the motion [n, 72] of a sample at 50 frames a second, in bounded memory.

        Args:
          index: of the sample, 0, 1, 2, ...
          progress: called with (frames done, frames in all).

        Raises:
          InputError: the file is damaged further on.
        """
        from a2fjax.infer import offline

        stats = self.recording.stats
        stage = postprocess.Postprocess(self.adjustment)
        for block in offline.predict(
            self.predictor,
            self.recording.blocks(),
            stats,
            identity=self.points,
            emotion=self.emotion,
            subject=self.subject,
            sample_index=index,
            inpainting=self.inpainting,
            progress=None if progress is None else lambda done: progress(done, stats.frames),
        ):
            yield stage.push(block)
        yield stage.finish()

    def motion(self, index: int = 0, progress: Progress | None = None) -> Motion:
        """Returns the whole motion of a sample; see `blocks`."""
        curves = np.concatenate(list(self.blocks(index, progress)))
        stats = self.recording.stats
        return Motion(
            curves,
            waveform=(stats.low, stats.high),
            emotion=self.emotion.sample(stats.frames),
            title=self.sample_title(index),
            metadata=self.metadata(index),
        )

    def sample_title(self, index: int) -> str:
        """Returns the title of a sample's figure."""
        return self.title if self.samples is None else f"{self.title}  ·  sample {index}"

    def metadata(self, index: int) -> dict[str, str]:
        """Returns what JSON and npz files keep of a sample."""
        sample = {} if self.samples is None else {"sample": str(index)}
        return {"audio": self.recording.name, "model": self.predictor.fingerprint, **sample}
