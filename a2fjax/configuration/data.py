"""Settings of what is read and how it becomes batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated

from a2fjax.configuration.bounds import Choice, NonNegative, Positive, Share
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training window; each is a function of (seed, step, index in the batch).

    Attributes:
      enabled: switches all of it on.
      gain_db: largest gain in dB; drawn evenly from plus and minus this.
      eq_db: standard deviation in dB of a smooth random filter.
      noise_prob: share of windows that get noise.
      noise_snr_db: lowest and highest signal-to-noise ratio against the clip's speech level, in dB.
      speed: audio and motion together are played up to 1 + this many times faster or slower.
      silence_prob: share of windows in which a stretch is replaced by a pause with the mouth at
        rest; only in clips that show a rest pose in silence. With live encoders the pause is put
        into the clip that they hear: it may lie beside the window.
      mirror_prob: share of windows whose motion and identity are mirrored left to right.
    """

    enabled: bool = True
    gain_db: Annotated[float, NonNegative] = 6.0
    eq_db: Annotated[float, NonNegative] = 4.0
    noise_prob: Annotated[float, Share] = 0.7
    noise_snr_db: tuple[float, float] = (10.0, 50.0)
    speed: Annotated[float, NonNegative] = 0.1
    silence_prob: Annotated[float, Share] = 0.0
    mirror_prob: Annotated[float, Share] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data sets, windows and batches.

    Attributes:
      shards: folders with a manifest, each read in full.
      weights: weight of each folder, at least 0: the share of training windows drawn from folder i
        is weights[i] / sum(weights) whatever the sizes, and the statistics that a model takes from
        its data and the held-out loss are of the same mixture. 0 leaves a folder out of training
        and of its held-out loss, as if it were not listed. () draws by amount of speech.
      split: part of the manifest to train on.
      batch_size: global number of windows a step, over all hosts and devices.
      window_frames: frames of a window (50 a second).
      identity_points: points sampled on the neutral mesh.
      encoder_features: where a frozen encoder's hidden states come from: "live" computes them from
        the audio in every step, "cached" reads what `a2fjax cache` wrote beside the shards. Both
        give the same numbers up to 16-bit rounding; with a cache only the signals hear what
        augmentation does to the audio.
      context_frames: longest clip that live encoders hear, in frames before augmentation, which may
        slow it down; records have at most 1000.
      workers: grain worker processes; 0 reads in threads of this process.
      threads: read threads of a process.
      prefetch: batches read ahead.
      on_bad_record: what a damaged record does: "skip" (named, counted, replaced) or "raise".
      augment: random changes of training windows.
    """

    shards: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    split: str = "train"
    batch_size: Annotated[int, Positive] = 16
    window_frames: Annotated[int, Positive] = 128
    identity_points: Annotated[int, Positive] = 384
    encoder_features: Annotated[str, Choice("live", "cached")] = "live"
    context_frames: Annotated[int, Positive] = 1000
    workers: Annotated[int, NonNegative] = 0
    threads: Annotated[int, Positive] = 2
    prefetch: Annotated[int, Positive] = 4
    on_bad_record: Annotated[str, Choice("skip", "raise")] = "skip"
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)

    def validate(self, where: str = "config") -> None:
        """Checks `weights` against `shards`, where both are given.

        Raises:
          InputError: as `check_weights`.
        """
        if self.weights and self.shards:
            check_weights(self.weights, self.shards, where=f"{where}: ")


def check_weights(weights: Sequence[float], folders: Sequence[str], *, where: str = "") -> None:
    """Checks the weights of a mixture of data sets.

    Raises:
      InputError: their number is not that of the folders, one is negative, not finite or too small
        to have an effect, or all are 0.
    """
    shown = f"{where}data.weights={tuple(weights)!r}"
    if len(weights) != len(folders):
        raise InputError(
            f"{shown}: expected one for each folder of data.shards ({len(folders)}), "
            f"got {len(weights)}"
        )
    for weight, folder in zip(weights, folders, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{shown}: {weight!r} of {folder}: expected a number of at least 0")
    if not any(weights):
        raise InputError(f"{shown}: expected at least one above 0")
    for weight, folder in zip(weights, folders, strict=True):
        if 0 < weight < 1e-9 * max(weights):
            raise InputError(f"{shown}: {weight!r} of {folder} would never be drawn: give 0")
