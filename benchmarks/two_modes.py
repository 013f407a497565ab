"""Diffusion and regression on ambiguous data: two motions for the same audio.

    python benchmarks/two_modes.py [--steps 300] [--takes 128] [--out two_modes.png]

The data are one clip of noise, with the inner brows going up in half of the examples and the brows
going down in the other half. The audio does not determine which. A regression can only learn the
mean of both, a face that never occurs; a diffusion model should generate each as often as it
occurs. Both models are tiny and trained by this script on a CPU. The figure needs the extra `view`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from a2fjax import rig, tasks
from a2fjax.batch import Batch
from a2fjax.configuration import (
    Config,
    DiffusionConfig,
    LossConfig,
    ModelConfig,
    RegressionConfig,
    UNetConfig,
)
from a2fjax.models import params as trees

FRAMES = 16
STEPS = 300
HEIGHT = 0.6
UP = [rig.INDEX["browInnerUp"]]
DOWN = [rig.INDEX["browDownLeft"], rig.INDEX["browDownRight"]]
MODES = ("brows up", "brows down")
BETWEEN = (0.25, 0.75)
"""Places of `place` that belong to neither motion."""


def modes() -> np.ndarray:
    """Returns both motions [2, FRAMES, 72]: one raises one channel, the other two channels."""
    rise = HEIGHT * np.sin(np.pi * np.arange(FRAMES) / (FRAMES - 1)) ** 2
    out = np.zeros((2, FRAMES, rig.NUM_CHANNELS), np.float32)
    out[0][:, UP] = out[1][:, DOWN] = rise[:, None]
    return out


def batch(items: int) -> Batch:
    """Returns `items` windows of the same audio with alternating motions."""
    audio = 0.1 * np.random.default_rng(0).normal(size=FRAMES * 320)
    neutral = np.zeros((items, FRAMES, rig.NUM_EMOTIONS), np.float32)
    neutral[..., 0] = 1.0
    return Batch.zeros(items, FRAMES, points=1).replace(
        audio=np.tile(audio.astype(np.float32), (items, 1)),
        motion=modes()[np.arange(items) % 2],
        channel_mask=np.ones((items, rig.NUM_CHANNELS), bool),
        frame_mask=np.ones((items, FRAMES), bool),
        length=np.full(items, FRAMES, np.int32),
        emotion=neutral,
        sample_index=np.arange(items, dtype=np.int32),
    )


def config(kind: str) -> Config:
    """Returns the configuration: minimal models with position and velocity losses."""
    backbone: dict[str, Any] = dict(
        conv_layers=1, conv_width=16, recurrent_width=16, identity="none", emotion_width=4,
        dropout=0.0,
    )  # fmt: skip
    model: ModelConfig = RegressionConfig(**backbone)
    if kind == "diffusion":
        unet = UNetConfig(widths=(32, 32), heads=2, window=8)
        model = DiffusionConfig(**backbone, unet=unet, audio_dropout=0.0)
    return Config(model=model, loss=LossConfig(aperture=0.0, closure=0.0, balance=1.0))


def train(
    kind: str, steps: int, items: int = 128, rate: float = 4e-3, seed: int = 0
) -> tuple[Any, Any]:
    """Returns the task and its parameters after `steps` steps of Adam on `batch`."""
    from a2fjax.models.regression import default_constants
    from a2fjax.training.state import ema_update

    data, settings = batch(items), config(kind)
    seen = data.motion.reshape(-1, rig.NUM_CHANNELS)
    constants = {
        **default_constants(settings.model),
        "motion_mean": seen.mean(0),
        "motion_std": seen.std(0),
    }
    task = tasks.build(settings, constants)
    trainable, frozen = trees.split(jax.jit(task.init)(jax.random.key(seed), data), task.frozen)
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def update(trainable: Any, state: Any, mean: Any, step: Any) -> Any:
        def scalar(trainable: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(seed + 1), step)
            return task.loss(trees.merge(trainable, frozen), data, key, step=step, train=True)[0]

        changes, state = optimiser.update(jax.grad(scalar)(trainable), state)
        trainable = optax.apply_updates(trainable, changes)
        return trainable, state, ema_update(mean, trainable, step, decay=0.99)

    state, mean = optimiser.init(trainable), trainable
    for step in range(steps):
        trainable, state, mean = update(trainable, state, mean, jnp.int32(step))
    return task, trees.merge(mean, frozen)


def takes(task: Any, params: Any, count: int) -> np.ndarray:
    """Returns `count` samples [count, FRAMES, 72]; those of a regression are identical."""
    return np.asarray(jax.jit(task.predict)(params, batch(count)))


def place(motion: np.ndarray) -> np.ndarray:
    """Returns positions of motions [N, FRAMES, 72] from 0 (brows down) to 1 (brows up)."""
    up, down = modes()
    axis = (up - down).ravel()
    return (motion - down).reshape(len(motion), -1) @ axis / (axis @ axis)


@dataclasses.dataclass(frozen=True)
class Shares:
    """Distribution of samples over the two motions.

    Attributes:
      up: share of samples with the brows up.
      down: share of samples with the brows down.
      between: share of all other samples.
    """

    up: float
    down: float
    between: float


def shares(motion: np.ndarray) -> Shares:
    """Returns the distribution of samples [N, FRAMES, 72] over both motions."""
    at = place(motion)
    up, down = float(np.mean(at > BETWEEN[1])), float(np.mean(at < BETWEEN[0]))
    return Shares(up, down, 1.0 - up - down)


def draw(path: Path, sampled: np.ndarray, mean: np.ndarray) -> None:
    """Draws samples over time, the regression's prediction, and the positions of all samples."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    up_color, down_color, mean_color = "#1b6ca8", "#c8553d", "#222222"
    figure = Figure(figsize=(9.6, 3.2), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    time = np.arange(FRAMES) / rig.FPS
    rises = place(sampled) > 0.5
    for axis, channel, title in ((left, UP[0], "browInnerUp"), (middle, DOWN[0], "browDownLeft")):
        for motion, high in zip(sampled, rises, strict=True):
            color = up_color if high else down_color
            axis.plot(time, motion[:, channel], color=color, alpha=0.15, linewidth=0.8)
        axis.plot(time, mean[:, channel], color=mean_color, linewidth=1.8, linestyle="--")
        axis.set(title=title, xlabel="seconds", ylim=(-0.03, HEIGHT + 0.1))
    left.set_ylabel("weight")
    bins = np.linspace(-0.25, 1.25, 46)
    at = place(sampled)
    right.hist(at[rises], bins, color=up_color, label=f"{MODES[0]}: {np.mean(rises):.0%}")
    right.hist(at[~rises], bins, color=down_color, label=f"{MODES[1]}: {np.mean(~rises):.0%}")
    line = dict(color=mean_color, linestyle="--", linewidth=1.8, label="regression")
    right.axvline(place(mean[None])[0], ymax=0.66, **line)
    # Leave room for the legend.
    right.set(title=f"{len(sampled)} takes of diffusion", ylabel="takes")
    right.set_ylim(top=1.5 * right.get_ylim()[1])
    right.set_xticks([0.0, 0.5, 1.0], ["down", "mean", "up"])
    right.legend(fontsize=7, frameon=False, loc="upper center")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--takes", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("two_modes.png"))
    args = parser.parse_args()
    sampled = takes(*train("diffusion", args.steps), args.takes)
    mean = takes(*train("regression", args.steps), 1)[0]
    found = shares(sampled)
    print(f"diffusion, {args.takes} takes: {found.up:.0%} up, {found.down:.0%} down,", end=" ")
    print(f"{found.between:.0%} in between")
    error = np.abs(mean - modes().mean(0)).max()
    print(
        f"regression: {place(mean[None])[0]:.2f} of the way up, {error:.3f} from the mean at most"
    )
    draw(args.out, sampled, mean)
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
