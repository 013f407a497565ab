"""Checks the consistency of a diffusion model's settings."""

from __future__ import annotations

from a2fjax.configuration import DiffusionConfig, SampleConfig
from a2fjax.diffusion import guidance
from a2fjax.errors import InputError

_DROPOUT_KEYS = {
    "audio": "model.audio_dropout",
    "emotion": "model.emotion_dropout",
    "identity": "model.condition_dropout",
}


def check(config: DiffusionConfig) -> None:
    """Checks that the settings are consistent.

    Raises:
      InputError: inconsistent settings; the message names the key, its value and the expected
        value.
    """
    unet = config.unet
    if not unet.widths or any(w < 1 or w % unet.heads for w in unet.widths):
        raise InputError(
            f"model.unet.widths={unet.widths}: expected widths that are multiples of "
            f"model.unet.heads={unet.heads}"
        )
    check_sampling(config)


def check_sampling(config: DiffusionConfig) -> None:
    """Checks that a model supports the settings `config.sample`, given its training.

    Raises:
      InputError: unsupported settings; the message names the key, its value and the expected value.
    """
    sample = config.sample
    if (sample.sampler == "consistency") != bool(config.distill_steps):
        expected = "consistency" if config.distill_steps else "angle, dpm, ddim or ddpm"
        kind = "distilled" if config.distill_steps else "not distilled"
        raise InputError(
            f"model.sample.sampler={sample.sampler!r}: the model is {kind}; expected {expected}"
        )
    if config.distill_steps:
        # The teacher fixed its guidance, and the student knows only the noise levels of its
        # training.
        if config.distill_levels % sample.steps:
            levels = config.distill_levels
            divisors = [n for n in range(1, levels + 1) if levels % n == 0]
            raise InputError(
                f"model.sample.steps={sample.steps}: a student of "
                f"{levels} levels takes {' or '.join(map(str, divisors))}"
            )
        return
    rates = {
        "audio": config.audio_dropout,
        "emotion": config.emotion_dropout,
        "identity": config.condition_dropout,
    }
    if config.identity == "none" and not config.identity_residual:
        rates["identity"] = 0.0  # There is no identity to drop.
    for name in guidance.guided_conditions(guidance_strengths(sample)):
        if not rates[name]:
            raise InputError(
                f"model.sample.{name}={getattr(sample, name)}: guidance needs a model "
                f"that was trained without {name} at times ({_DROPOUT_KEYS[name]} above 0); "
                "expected 1"
            )


def guidance_strengths(sample: SampleConfig) -> dict[str, float]:
    """Returns the guidance strength of each condition."""
    return {name: getattr(sample, name) for name in guidance.CONDITIONS}
