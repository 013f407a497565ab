"""Embeddings of the conditions that every network over audio features has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import ConditionedConfig
from a2fjax.models import conditioning


def embed_conditions(
    config: ConditionedConfig, batch: Batch, constants: Mapping[str, Array], train: bool
) -> list[Array]:
    """Returns the embeddings: identity [B, D] if the model uses it, then emotion [B, T, D].

    Its modules become those of the network that calls it, inside `nn.compact`.

    Args:
      config: which conditions, and their sizes.
      batch: uses identity, identity_mask, emotion and subject.
      constants: constants of the model; see `regression.default_constants`.
      train: enables dropout and noise.
    """
    identity = embed_identity(config, batch, constants, train)
    emotion = conditioning.EmotionEncoder(
        config.emotion_width, config.emotion_dropout, name="emotion"
    )(batch.emotion, train=train)
    return [*identity, emotion]


def embed_identity(
    config: ConditionedConfig, batch: Batch, constants: Mapping[str, Array], train: bool
) -> list[Array]:
    """Returns the embedding of the identity in a list, [] if the model uses none."""
    identity: list[Array] = []
    if config.identity == "mesh":
        encoder = conditioning.IdentityEncoder(
            config.identity_width, config.condition_dropout, name="identity"
        )
        identity.append(
            encoder(
                batch.identity,
                batch.identity_mask,
                constants["identity_mean"],
                constants["identity_projection"],
                constants.get("identity_deviation"),
                constants.get("identity_bounds"),
                train=train,
            )
        )
    if config.identity_residual:
        subjects = constants["subjects"].shape[0]
        residual = conditioning.IdentityResidual(
            subjects, config.identity_width, config.residual_dropout, name="identity_residual"
        )(batch.subject, train=train)
        identity = [identity[0] + residual] if identity else [residual]
    return identity


class IdentityEmbedding(nn.Module):
    """The part of a network that embeds identities; uses the collection "constants".

    Attributes:
      config: of the network; it must have an identity.
    """

    config: Any

    @nn.compact
    def __call__(self, batch: Batch) -> Array:
        """Returns the embeddings [B, E] of the identities of a batch."""
        return embed_identity(self.config, batch, self.variables["constants"], train=False)[0]


def given_identity(vector: Array | None, config: ConditionedConfig) -> Any:
    """Returns a context in which a network takes its identity embedding as given.

    Items whose `identity_mask` is False, or whose `subject` is unknown without meshes, keep what
    the network makes of them: guidance needs an embedding of no identity.

    Args:
      vector: [B, E], a result of `embed_identity`; None changes nothing.
      config: of the network.
    """

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if vector is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(context.module, conditioning.IdentityEncoder):
            return jnp.where(args[1][:, None], vector, call(*args, **kwargs))
        if isinstance(context.module, conditioning.IdentityResidual):
            if config.identity == "mesh":
                return jnp.zeros_like(vector)
            return jnp.where(args[0][:, None] >= 0, vector, call(*args, **kwargs))
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)
