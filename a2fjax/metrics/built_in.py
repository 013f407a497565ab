"""The built-in metrics with their columns; the modules of the same names define them."""

from __future__ import annotations

import numpy as np

from a2fjax.metrics import dynamics, energy, fidelity, lips, silence, timing
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums


class Fidelity:
    """Errors by channel group, velocity error and correlation."""

    columns = fidelity.COLUMNS
    values = staticmethod(fidelity.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        return fidelity.sums(
            prediction,
            truth.motion,
            channel_mask=truth.channel_mask,
            frame_mask=truth.frame_mask,
        )


class Lips:
    """Aperture error and lip closures."""

    columns = lips.COLUMNS
    values = staticmethod(lips.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        return lips.sums(
            lips.aperture(prediction, truth.channel_mask),
            truth.aperture,
            threshold=truth.threshold,
            speech=truth.speech,
            frame_mask=truth.aperture_mask,
        )


class Timing:
    """Lag of the predicted aperture behind the true aperture."""

    columns = timing.COLUMNS
    values = staticmethod(timing.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        aperture = lips.aperture(prediction, truth.channel_mask)
        return timing.sums(aperture, truth.aperture, frame_mask=truth.aperture_mask)


class Dynamics:
    """Amplitude, acceleration and high-frequency power relative to the truth."""

    columns = dynamics.COLUMNS
    values = staticmethod(dynamics.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        return dynamics.sums(
            prediction,
            truth.motion,
            channel_mask=truth.channel_mask,
            frame_mask=truth.frame_mask,
        )


class Energy:
    """Correlation of loudness and aperture."""

    columns = energy.COLUMNS
    values = staticmethod(energy.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        return energy.sums(
            lips.aperture(prediction, truth.channel_mask),
            truth.aperture,
            loudness=truth.loudness,
            frame_mask=truth.aperture_mask,
        )


class Silence:
    """Mouth opening in pauses relative to speech."""

    columns = silence.COLUMNS
    values = staticmethod(silence.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        return silence.sums(
            lips.aperture(prediction, truth.channel_mask),
            truth.aperture,
            speech=truth.speech,
            rest=truth.rest,
            frame_mask=truth.aperture_mask,
        )
