"""The model that is exported: its configuration, weights and the product's predictor."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a2fjax.bundle import manifest, weights
from a2fjax.configuration import ConditionedConfig, Config
from a2fjax.infer import lookahead
from a2fjax.infer.predictor import Predictor
from a2fjax.infer.run_config import read_config
from a2fjax.infer.training_conditions import TrainingConditions
from a2fjax.models import conditioning
from a2fjax.models.params import Params
from a2fjax.training import checkpoints


class Source:
    """A checkpoint of a run, or of another bundle, as exporters see it.

    Attributes:
      run: folder.
      predictor: the product's own; in float32 even if the run computes in bfloat16.
      step: training step of the checkpoint.
      stored: what a bundle stores: the checkpoint's arrays, without the frozen encoders.
      metrics: held-out values of the checkpoint.
      variables: NumPy arrays by collection, "params" and "constants".
      fingerprint: of configuration and step.
      lookaheads_ms: look-aheads of a streaming model that get a graph, beside its default one.
      shared: what one graph has computed and others of the same export use.
    """

    def __init__(
        self,
        run: str | Path,
        step: int | None = None,
        weights_file: str | Path | None = None,
        lookaheads_ms: Sequence[int] = (),
    ) -> None:
        """Loads a checkpoint.

        Args:
          run: folder of a run or a bundle.
          step: of the checkpoint; None for the newest.
          weights_file: safetensors whose weights replace those of the checkpoint, such as weights
            trained in PyTorch; None for none.
          lookaheads_ms: see the attribute.

        Raises:
          InputError: as `Predictor.load`, weights of another model, or a look-ahead that the model
            does not have.
        """
        self.run = Path(run)
        self.shared: dict[Any, Any] = {}
        self.resolved = read_config(run)
        for ms in lookaheads_ms:
            lookahead.with_lookahead(self.config, ms)
        self.lookaheads_ms = tuple(lookaheads_ms)
        self.step, self.stored, meta = checkpoints.load_params(run, step)
        self.metrics: dict[str, Any] = dict(meta.get("metrics", {}))
        loaded = Predictor.load(run, self.step)
        self.fingerprint = loaded.fingerprint
        if weights_file is not None:
            path = Path(weights_file)
            given = weights.load(path)
            checkpoints.check_params(given, self.stored, name=str(path))
            self.stored, self.metrics = given, {}
            digest = manifest.file_digest(path)["sha256"][:16]
            self.fingerprint = f"{self.fingerprint}+{digest}"
            params = loaded.task.model.audio_features.with_pretrained(given)
            loaded = Predictor(loaded.config, loaded.task, params, step=self.step)
        self.predictor = _float32(loaded)
        self.predictor.training = _Silent(self.predictor.params.get("constants", {}))
        self.variables: Params = jax.tree.map(np.asarray, loaded.params)

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.resolved.config

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """Statistics of the training data."""
        return dict(self.variables["constants"])

    @property
    def backbone(self) -> ConditionedConfig:
        """Settings of a model of convolutions and a GRU."""
        assert isinstance(self.config.model, ConditionedConfig)
        return self.config.model

    @property
    def backbone_params(self) -> Params:
        """Weights of the backbone; streaming models are one, in diffusion models it is deeper."""
        params = self.variables["params"]
        if self.config.model.kind == "streaming":
            return dict(params)
        found = (
            params["backbone"] if "backbone" in params else params["condition_encoder"]["backbone"]
        )
        return dict(found)

    @property
    def model(self) -> Any:
        """The network's model; see `a2fjax.models.base.Model`."""
        return self.predictor.task.model

    @property
    def has_identity(self) -> bool:
        """Whether the model is conditioned on the speaker."""
        return self.config.model.identity == "mesh" or self.config.model.identity_residual

    @property
    def emotion_map(self) -> np.ndarray | None:
        """Linear map [5, 5] of emotions, from the right, before the network; None for none.

        Emotions that the training lacks become the mean of its emotions, as
        `TrainingConditions.known_emotion` has it.
        """
        share = self.constants.get("emotion_share")
        if share is None:
            return None
        unknown = np.asarray(share) <= 0
        return np.where(unknown[:, None], share, np.eye(len(share))).astype(np.float32)

    @functools.cached_property
    def mean_identity(self) -> np.ndarray:
        """Embedding [E] of the mean identity; graphs take offsets from it, so that zeros mean it.

        It is zero for a model that knows its training subjects only.
        """
        config = self.backbone
        if config.identity != "mesh":
            return np.zeros(config.identity_width, np.float32)
        width = 6 if config.identity_normals else 3
        points = np.zeros((1, self.config.data.identity_points, width), np.float32)
        return np.asarray(self.embed(points, np.zeros(1, bool))[0])

    def embed(self, points: Any, known: Any) -> Any:
        """Returns the embeddings [B, E] of identity points [B, P, 3 or 6]; JAX may trace it."""
        config, constants = self.backbone, self.variables["constants"]
        names = ("identity_mean", "identity_projection", "identity_deviation", "identity_bounds")
        return conditioning.IdentityEncoder(config.identity_width).apply(
            {"params": self.backbone_params["identity"]},
            points,
            known,
            *(constants.get(name) for name in names),
        )


class _Silent(TrainingConditions):
    """Says nothing of the emotions and meshes that graphs are compared on."""

    def say(self, text: str) -> None:
        """Drops the warning."""


def _float32(predictor: Predictor) -> Predictor:
    """Returns the predictor in float32, the precision of graphs; ("bfloat16" is for training)."""
    config = predictor.config
    if config.precision == "float32":
        return predictor
    from a2fjax import tasks

    config = dataclasses.replace(config, precision="float32")
    task: Any = tasks.build(config, jax.device_get(predictor.params["constants"]), {})
    return Predictor(config, task, predictor.params, step=predictor.step)
