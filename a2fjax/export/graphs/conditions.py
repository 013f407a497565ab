"""The graph "conditions": what a diffusion model hears, once for all steps of "denoise"."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, num_frames
from a2fjax.batch import Batch
from a2fjax.configuration import DiffusionConfig
from a2fjax.export.graph import Case, Tensor
from a2fjax.export.graphs import speech_level
from a2fjax.export.graphs.model import ModelGraph, clip_inputs
from a2fjax.export.source import Source
from a2fjax.infer.predictor import Request, padded_length
from a2fjax.models.condition_embeddings import given_identity
from a2fjax.models.diffusion import Diffusion

if TYPE_CHECKING:
    import onnx


def unsupported(source: Source) -> str:
    """Returns why a model has no graphs of diffusion; see `Graph.unsupported`."""
    if not isinstance(source.model, Diffusion):
        return f"model.kind={source.config.model.kind!r} removes no noise"
    if source.model.audio_features.encoders:
        features = ", ".join(source.config.audio.features)
        return f"audio.features={features}: this graph has mel and pitch, no speech encoder yet"
    return ""


def context_width(source: Source) -> int:
    """Returns the width A of the context: units of all directions of the GRU."""
    config = source.config.model
    assert isinstance(config, DiffusionConfig)
    return config.recurrent_width * (2 if config.recurrent == "bidirectional" else 1)


class ConditionsGraph(ModelGraph):
    """Waveform, identity and emotion to coarse prediction and context; inputs as "model"."""

    name = "conditions"
    formats = ("onnx",)

    def unsupported(self, source: Source) -> str:
        """See `Graph`."""
        return unsupported(source)

    def outputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        coarse = "prediction without noise, in deviations from the mean; input of denoise"
        context = "what was heard; input of denoise"
        return (
            Tensor("coarse", "float32", ("B", "T", rig.NUM_CHANNELS), coarse),
            Tensor("context", "float32", ("B", "T", context_width(source)), context),
        )

    def columns(self, source: Source, output: str) -> Sequence[str]:
        """See `Graph`."""
        return ()

    def function(self, source: Source) -> Callable[..., tuple[Any, ...]]:
        """See `Graph`."""
        variables, config = source.variables, source.backbone

        def apply(audio: Any, samples: Any, level: Any, *conditions: Any) -> tuple[Any, ...]:
            size, frames = conditions[-1].shape[:2]
            who = conditions[0] + source.mean_identity if source.has_identity else None
            known = source.emotion_map
            batch = Batch.zeros(size, frames, 1, normals=config.identity_normals).replace(
                audio=speech_level.normalise(audio, samples, level),
                length=(samples + HOP - 1) // HOP,
                identity_mask=np.ones(size, bool),
                subject=np.zeros(size, np.int32),
                emotion=conditions[-1] if known is None else conditions[-1] @ known,
            )
            with given_identity(who, config):
                found = source.model.encode_conditions(variables, batch)
            return found["coarse_prediction"][:, :frames], found["audio"][:, :frames]

        return apply

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import unet
        from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

        g = GraphBuilder(f"a2fjax_{self.name}")
        coarse, context = unet.build_conditions(g, source)
        outputs = {"coarse": coarse, "context": context}
        return g.finish(self.inputs(source), outputs, self.outputs(source))

    def _case(self, source: Source, requests: Sequence[Request], name: str) -> Case:
        inputs = clip_inputs(source, requests)
        size, frames = inputs["emotion"].shape[:2]
        expected = {
            "coarse": np.zeros((size, frames, rig.NUM_CHANNELS), np.float32),
            "context": np.zeros((size, frames, context_width(source)), np.float32),
        }
        valid = np.zeros((size, frames), bool)
        for i, request in enumerate(requests):
            length = num_frames(len(request.audio))
            batch = source.predictor.stacked([request], padded_length(length))
            found = encoder(source)(source.predictor.params, batch)
            expected["coarse"][i, :length] = found["coarse_prediction"][0, :length]
            expected["context"][i, :length] = found["audio"][0, :length]
            valid[i, :length] = True
        return Case(name, inputs, expected, valid)


@functools.lru_cache(maxsize=1)
def encoder(source: Source) -> Callable[..., Any]:
    """Returns the product's condition encoder: (variables, batch) to conditions."""
    return jax.jit(source.model.encode_conditions)
