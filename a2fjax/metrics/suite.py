"""All metrics of a clip at once; what depends on the truth alone is worked out once."""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax.metrics import dynamics, energy, fidelity, lips, silence, timing
from a2fjax.metrics.sums import Sums


@dataclasses.dataclass(frozen=True)
class Reference:
    """A clip's truth as the metrics see it.

    Attributes:
      motion: [T, 72] in rig units.
      channel_mask: [72] bool.
      frame_mask: [T] bool.
      aperture: [T]; see `lips.aperture`.
      speech, rest: [T] bool; see `silence.segment`.
      loudness: [T] dB; see `energy.log_level`.
      threshold: closure threshold of the subject; NaN where it is not known.
    """

    motion: np.ndarray
    channel_mask: np.ndarray
    frame_mask: np.ndarray
    aperture: np.ndarray
    speech: np.ndarray
    rest: np.ndarray
    loudness: np.ndarray
    threshold: float = float("nan")


def reference(
    motion: np.ndarray,
    audio: np.ndarray,
    *,
    channel_mask: np.ndarray,
    frame_mask: np.ndarray,
    speech_level: float,
) -> Reference:
    """Returns a clip's truth, still without the subject's closure threshold.

    Args:
      motion: [T, 72] in rig units.
      audio: [samples] at 16 kHz; frame t is at sample 320 * t.
      channel_mask: [72] bool, observed channels.
      frame_mask: [T] bool, good frames.
      speech_level: linear RMS level of the speech in `audio`.
    """
    level = silence.frame_level(audio, len(motion))
    speech, rest = silence.segment(level, speech_level)
    return Reference(
        motion=np.asarray(motion),
        channel_mask=np.asarray(channel_mask, bool),
        frame_mask=np.asarray(frame_mask, bool),
        aperture=lips.aperture(motion, channel_mask),
        speech=speech,
        rest=rest,
        loudness=energy.log_level(level, speech_level),
    )


def with_thresholds(references: list[Reference], subjects: list[str]) -> list[Reference]:
    """Returns the references with each subject's closure threshold, from all of its clips here.

    The more of a person's clips, the better: one sentence may have no closure at all.

    Args:
      references: one a clip.
      subjects: whose each clip is.
    """
    thresholds = {}
    for subject in set(subjects):
        own = [
            r
            for r, name in zip(references, subjects, strict=True)
            if name == subject and lips.has_aperture(r.channel_mask)
        ]
        good = [r.frame_mask for r in own]
        thresholds[subject] = (
            lips.closure_threshold(
                np.concatenate([r.aperture[m] for r, m in zip(own, good, strict=True)]),
                np.concatenate([r.speech[m] for r, m in zip(own, good, strict=True)]),
            )
            if own
            else float("nan")
        )
    return [
        dataclasses.replace(r, threshold=thresholds[name])
        for r, name in zip(references, subjects, strict=True)
    ]


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a predicted clip [T, 72] to the sums of every metric.

    Raises:
      ValueError: the prediction's shape is not the truth's, or it is not finite.
    """
    prediction = np.asarray(prediction, np.float64)
    if prediction.shape != truth.motion.shape:
        raise ValueError(f"prediction {prediction.shape}, truth {truth.motion.shape}")
    if not np.isfinite(prediction).all():
        raise ValueError("the prediction has values that are not finite")
    masks = {"channel_mask": truth.channel_mask, "frame_mask": truth.frame_mask}
    # A clip of which nothing good was seen, or no aperture, must add zeros to every sum.
    seen = truth.frame_mask if lips.has_aperture(truth.channel_mask) else truth.frame_mask & False
    p, g = lips.aperture(prediction, truth.channel_mask), truth.aperture
    return {
        **fidelity.sums(prediction, truth.motion, **masks),
        **dynamics.sums(prediction, truth.motion, **masks),
        **lips.sums(p, g, threshold=truth.threshold, speech=truth.speech, frame_mask=seen),
        **timing.sums(p, g, frame_mask=seen),
        **energy.sums(p, g, loudness=truth.loudness, frame_mask=seen),
        **silence.sums(p, g, speech=truth.speech, rest=truth.rest, frame_mask=seen),
    }


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns every metric [...] of added sums."""
    out: dict[str, np.ndarray] = {}
    for metric in (fidelity, lips, timing, dynamics, energy, silence):
        out |= metric.values(total)
    return out
