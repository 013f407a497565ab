"""The contrastive sync expert: tells a window's audio from shifted and from other audio.

Two choices are learned for each window of motion (InfoNCE): its own audio among that of the same
clip shifted by up to `model.shift_frames`, and among the windows of the other items of the batch,
which are other clips and mostly other people. A third, binary loss teaches scale and bias of the
score, without changing the vectors. Windows without speech or motion take no part.

Negatives of other items come from the batch, or the part of it that `accumulate` computes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import Config, SyncnetConfig
from a2fjax.losses import WeightedSum, contrast
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.rngs import named_keys
from a2fjax.models.syncnet import channels, similarity, windows
from a2fjax.models.syncnet.model import LARGEST_SCALE, MATCH_SCALE, Syncnet
from a2fjax.tasks import sync_health
from a2fjax.tasks.base import SingleModelTask

T = TypeVar("T", bound="SyncnetTask")


class SyncnetTask(SingleModelTask):
    """Task of the contrastive expert; see `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
    """

    model: Syncnet

    def __init__(self, model: Syncnet) -> None:
        """Makes the task of `model`."""
        self.model = model

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Builds the task of a configuration; arguments as in `a2fjax.tasks.build`.

        Raises:
          InputError: windows of data in which no shift fits.
        """
        assert isinstance(config.model, SyncnetConfig)
        windows.check_room(config.data.window_frames, config.model, config.model.ignored_frames + 1)
        model = Syncnet(
            config.model,
            config.audio,
            precision=config.precision,
            constants=constants,
            encoders=encoders,
        )
        return cls(model)

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms; ignores `step`.

        Terms: "shifted" and "others" (InfoNCE), "match" (binary), each "_chance" (ln N), and what
        `sync_health` reads: "spread" and "rank" of the vectors, "offset" and "offset_size" of the
        best offset in frames.
        """
        del step
        config = self.model.config
        statistics = self.model.statistics(variables, batch)
        out = self.model.apply(variables, batch, key=key, train=train)
        heard, seen = out["heard"], out["seen"]
        chosen, counts = self._choose(batch, statistics, key, train)

        inner = config.window_frames - 2 * config.motion_reach
        first = chosen + config.motion_reach
        offsets = range(-config.shift_frames, config.shift_frames + 1)
        scores = similarity.scores(heard, seen, inner, offsets, kind=self.model.similarity)
        scores = jnp.take_along_axis(scores, first[:, None], axis=2).swapaxes(1, 2)
        whole = windows.all_of(windows.heard_frames(batch, config.audio_reach), inner)
        whole = jnp.pad(whole, ((0, 0), (0, inner - 1)))
        audible = similarity.shifted(whole, offsets)
        audible = jnp.take_along_axis(audible, first[:, None], axis=2).swapaxes(1, 2)
        far = np.abs(np.arange(-config.shift_frames, config.shift_frames + 1))
        candidates = audible & (far > config.ignored_frames)
        right = jnp.full(counts.shape, config.shift_frames)

        params = variables["params"]
        scale = jnp.exp(jnp.minimum(params["log_scale"], np.log(LARGEST_SCALE)))
        known = match_logits(params, jax.lax.stop_gradient(scores))
        terms = {
            "shifted": contrast.info_nce(scale * scores, right, candidates, counts),
            "shifted_chance": contrast.chance(right, candidates, counts),
            **self._others(heard, seen, first, counts, inner, scale),
            "match": contrast.match(known, right, candidates, counts),
            **_health(scores, audible, counts, heard, seen, first),
        }
        return self.total(terms), terms

    def _choose(
        self, batch: Batch, statistics: channels.Statistics, key: Array, train: bool
    ) -> tuple[Array, Array]:
        """Returns first frames [B, S] of windows that count, and whether each does [B, S]."""
        config = self.model.config
        count = windows.countable(
            batch,
            statistics,
            config.window_frames,
            least_speech=config.least_speech,
            least_motion=config.least_motion,
        )
        audible = windows.heard_frames(batch, config.audio_reach)
        inner = config.window_frames - 2 * config.motion_reach
        reach = config.motion_reach
        count &= windows.all_of(audible, inner)[:, reach : reach + count.shape[1]]
        if train:
            order = jax.random.uniform(named_keys(key, ["windows"])["windows"], count.shape)
        else:  # Spread evenly: the steps of the golden ratio leave no gap.
            order = jnp.broadcast_to((np.arange(count.shape[1]) * 0.6180339887) % 1.0, count.shape)
        most = min(config.windows, count.shape[1])
        found, chosen = jax.lax.top_k(jnp.where(count, 1.0 - order, -1.0), most)
        return chosen, found > 0

    def _others(
        self, heard: Array, seen: Array, first: Array, counts: Array, inner: int, scale: Array
    ) -> dict[str, WeightedSum]:
        rows, drawn = first.shape
        place = (first[..., None] + jnp.arange(inner)).reshape(rows, -1, 1)

        def gathered(track: Array) -> Array:
            flat = jnp.take_along_axis(track, place, axis=1).reshape(rows * drawn, -1)
            return flat * jax.lax.rsqrt(jnp.sum(flat**2, -1, keepdims=True) + 1e-12)

        logits = scale * gathered(seen) @ gathered(heard).T
        item = jnp.repeat(jnp.arange(rows), drawn)
        counted = counts.reshape(-1)
        candidates = (item[:, None] != item) & counted
        right = jnp.arange(rows * drawn)
        of_motion = contrast.info_nce(logits, right, candidates, counted)
        of_audio = contrast.info_nce(logits.T, right, candidates, counted)
        both = WeightedSum(of_motion.total + of_audio.total, of_motion.weight + of_audio.weight)
        return {"others": both, "others_chance": contrast.chance(right, candidates, counted)}

    def warm_start(self, variables: Params) -> Params:
        """Returns another run's variables with the people of this one; see `tasks.people`."""
        return {**variables, "constants": self.model.device_constants()}

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the weighted sum of the terms that are learned."""
        others = self.model.config.others
        return terms["shifted"].value + others * terms["others"].value + terms["match"].value

    def warnings(self, step: int, values: Mapping[str, float]) -> dict[str, str]:
        """Returns what looks wrong, by name; see `sync_health`."""
        people = len(self.model.constants["people_mean"])
        return sync_health.warnings(self.model.config, step, values, people=people)


def match_logits(params: Params, scores: Array) -> Array:
    """Returns scores with the learned scale and bias: above 0 for windows in step.

    Args:
      params: of the network, with "match_scale" and "match_bias".
      scores: any shape, in [-1, 1].
    """
    return MATCH_SCALE * params["match_scale"] * (scores + params["match_bias"])


def _health(
    scores: Array, audible: Array, counts: Array, heard: Array, seen: Array, first: Array
) -> dict[str, WeightedSum]:
    """Returns the terms of `sync_health`; none has a gradient."""
    scores, heard, seen = jax.lax.stop_gradient((scores, heard, seen))
    shift = scores.shape[-1] // 2
    best = jnp.argmax(jnp.where(audible, scores, -2.0), axis=-1) - shift
    number = jnp.sum(counts.astype(jnp.float32))
    weighted = jnp.where(counts, best, 0).astype(jnp.float32)
    shapes = []
    for track in (heard, seen):
        vectors = jnp.take_along_axis(track, first[..., None], axis=1)
        flat = vectors.reshape(-1, track.shape[-1])
        shapes.append(sync_health.shape_terms(flat, counts.reshape(-1)))
    return {
        "spread": sync_health.single(jnp.minimum(shapes[0][0], shapes[1][0]), counts),
        "rank": sync_health.single(jnp.minimum(shapes[0][1], shapes[1][1]), counts),
        "offset": WeightedSum(jnp.sum(weighted), number),
        "offset_size": WeightedSum(jnp.sum(jnp.abs(weighted)), number),
    }
