"""Summarises the model of a configuration: parameters, operations, memory, look-ahead.

Only shapes are computed, so no weights are created and no accelerator is needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from a2fjax import tasks
from a2fjax.batch import Batch
from a2fjax.configuration import Config
from a2fjax.data import loader
from a2fjax.infer.predictor import batch_shapes
from a2fjax.models import flops
from a2fjax.models import params as params_lib

if TYPE_CHECKING:
    from a2fjax.models.pretrained import Encoders


def lines(
    config: Config,
    *,
    layers: bool = False,
    constants: dict[str, Any] | None = None,
    encoders: Encoders | None = None,
) -> list[str]:
    """Returns the summary as lines of text.

    Args:
      config: configuration of the experiment.
      layers: also list every parameter.
      constants: constants of the run's checkpoint, which determine some shapes; None for a new run.
      encoders: encoders of the run; None reads those that the configuration names.

    Raises:
      InputError: settings contradict each other, or an encoder cannot be read.
    """
    task = tasks.build(config, constants, encoders)
    extractor = task.model.audio_features
    batch = batch_shapes(config, 1, config.data.window_frames)
    # Training encodes the whole clip around a window, or reads cached features.
    cached = config.data.encoder_features == "cached"
    states = {key: (e.num_states, e.width) for key, e in extractor.encoders.items() if cached}
    context_frames = loader.context_frames(config)
    example = Batch.spec(
        1,
        config.data.window_frames,
        config.data.identity_points,
        context_frames=context_frames,
        cached=states,
    )
    params = jax.eval_shape(
        lambda b, weights: params_lib.merge(task.init(jax.random.key(0), b), weights),
        batch,
        task.pretrained,
    )
    trained, fixed = params_lib.split(params, task.frozen)

    def training(trained, fixed, batch):
        def loss(trained):
            params = params_lib.merge(trained, fixed)
            return task.loss(params, batch, jax.random.key(0), step=jnp.int32(0), train=True)[0]

        return jax.value_and_grad(loss)(trained)

    frames = config.data.window_frames
    predict = getattr(task, "predict", task.model.apply)  # A sync expert predicts no motion.
    forward = sum(flops.flops(predict, params, batch).values()) / frames
    update = sum(flops.flops(training, trained, fixed, example).values()) / frames
    learned = {k: v for k, v in params.items() if k not in ("constants", "implicit")}
    size, constant = (
        sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))
        for tree in (trained, fixed)
    )
    copies = 4 + (config.optim.ema_decay > 0)
    ahead = task.model.lookahead_seconds
    out = [
        f"  {params_lib.count(trained):,} trained parameters, {params_lib.count(fixed):,} constant",
        f"  {params_lib.count(learned):,} of network and encoders, without statistics and clip "
        "embeddings",
        f"  {forward / 1e6:.2f} MFLOP a frame to predict, {update / 1e6:.2f} to train "
        f"({update * frames * config.data.batch_size / 1e9:.2f} GFLOP a step of "
        f"{config.data.batch_size} x {frames} frames)",
        f"  {copies * size / 1e6:.1f} MB of parameters, gradients, Adam's two moments"
        + (" and average" if copies == 5 else "")
        + (f"; {constant / 1e6:.1f} MB that are not trained" if extractor.encoders else ""),
        "  look-ahead: "
        + (
            f"the whole clip ({'encoders' if extractor.encoders else 'bidirectional'})"
            if ahead is None
            else f"{1000 * ahead:.1f} ms ({task.model.lookahead_frames} frames and the window)"
        ),
    ]
    for key, encoder in extractor.encoders.items():
        start = config.audio.encoder.train_from
        out.append(
            f"  {key}: {encoder.num_layers} layers of width {encoder.width}, "
            f"{encoder.num_states} state{'s' if encoder.num_states > 1 else ''} a frame, "
            f"{'frozen' if start is None else f'trained from layer {start}'}"
            + (", read from a cache in training" if cached else "")
            + (f"; training encodes up to {context_frames} frames" if context_frames else "")
        )
    if config.loss.sync_runs:
        out.append(f"  not counted: sync experts of the loss ({', '.join(config.loss.sync_runs)})")
    out += [f"  {note}" for note in getattr(task.model, "notes", ())]
    if layers:
        out += ["", *("  " + row for row in params_lib.table(params, task.frozen).splitlines())]
    return out
