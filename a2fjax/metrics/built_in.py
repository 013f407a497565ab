"""The built-in metrics with their columns; the modules of the same names define them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from a2fjax.metrics import dynamics, energy, fidelity, lips, silence, timing
from a2fjax.metrics.metric import Column
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums


class Fidelity:
    """Errors by channel group, velocity error and correlation."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("bs_rmse/jaw_mouth", "rmse", form="{:.4f}"),
        Column("bs_mae/jaw_mouth", "mae", form="{:.4f}"),
        Column("vel_mae/jaw_mouth", "vel_mae", unit="1/s"),
        Column("corr/jaw_mouth", "corr", better="higher"),
    )
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

    columns: ClassVar[tuple[Column, ...]] = (
        Column("mod", "mod", form="{:.4f}"),
        Column("closure_recall", "recall", better="higher"),
        Column("closure_precision", "prec", better="higher"),
        Column("closure_residual", "resid", form="{:+.3f}", better="0"),
        Column("closed_ratio", "closed", form="{:.2f}", better="1"),
    )
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

    columns: ClassVar[tuple[Column, ...]] = (
        Column("xcorr_lag_ms", "lag_ms", form="{:+.1f}", unit="ms", better="0"),
        Column("xcorr_peak", "at_r", form="{:.2f}", better="higher"),
    )
    values = staticmethod(timing.values)

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip; see `Metric.sums`."""
        aperture = lips.aperture(prediction, truth.channel_mask)
        return timing.sums(aperture, truth.aperture, frame_mask=truth.aperture_mask)


class Dynamics:
    """Amplitude, acceleration and high-frequency power relative to the truth."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("amp_ratio/jaw_mouth", "amp", form="{:.2f}", better="1"),
        Column("acc_ratio", "acc", form="{:.2f}", better="1"),
        Column("hf_ratio", "hf", form="{:.2f}", better="1"),
    )
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

    columns: ClassVar[tuple[Column, ...]] = (
        Column("slcc", "slcc", form="{:+.2f}", better="higher"),
    )
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

    columns: ClassVar[tuple[Column, ...]] = (
        Column("pause_aperture", "pause", form="{:.2f}", better="0"),
    )
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
