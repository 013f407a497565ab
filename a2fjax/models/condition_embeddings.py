"""Embeddings of the conditions that every network over audio features has."""

from __future__ import annotations

from collections.abc import Mapping

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
