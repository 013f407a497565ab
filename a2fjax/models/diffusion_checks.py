"""Checks of a diffusion model's settings that depend on each other."""

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
    """Checks settings that depend on each other.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    unet = config.unet
    if not unet.widths or any(w < 1 or w % unet.heads for w in unet.widths):
        raise InputError(
            f"model.unet.widths={unet.widths}: expected widths that are multiples of "
            f"model.unet.heads={unet.heads}"
        )
    check_sampling(config)


def check_sampling(config: DiffusionConfig) -> None:
    """Checks that a model can sample as `config.sample` asks, given how it was trained.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    sample = config.sample
    if (sample.sampler == "consistency") != bool(config.distill_steps):
        expected = "consistency" if config.distill_steps else "angle, dpm, ddim or ddpm"
        kind = "distilled" if config.distill_steps else "not distilled"
        raise InputError(
            f"model.sample.sampler={sample.sampler!r}: the model is {kind}; expected {expected}"
        )
    if config.distill_steps:
        # The teacher fixed its guidance, and it has learned the noise levels of its training only.
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
        rates["identity"] = 0.0  # There is no identity to leave out.
    for name in guidance.guided_conditions(guidance_strengths(sample)):
        if not rates[name]:
            raise InputError(
                f"model.sample.{name}={getattr(sample, name)}: guidance needs a model "
                f"that was trained without {name} at times ({_DROPOUT_KEYS[name]} above 0); "
                "expected 1"
            )


def guidance_strengths(sample: SampleConfig) -> dict[str, float]:
    """Returns the strength of guidance by condition."""
    return {name: getattr(sample, name) for name in guidance.CONDITIONS}
