"""The graph "model": waveform, identity and emotion in, curves out, for whole recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE, num_frames
from a2fjax.batch import Batch
from a2fjax.export.graph import Case, Graph, Tensor
from a2fjax.export.graphs import identity, speech_level
from a2fjax.export.source import Source
from a2fjax.infer.predictor import Request
from a2fjax.models.condition_embeddings import given_identity
from a2fjax.models.regression import Regression

if TYPE_CHECKING:
    import onnx

_SECONDS = (0.011, 0.5, 2.0, 10.0)
"""Lengths of the clips that parity is checked on: less than a frame to the longest of a batch."""


class ModelGraph(Graph):
    """The offline regression model."""

    name = "model"
    half = False

    def unsupported(self, source: Source) -> str:
        """See `Graph`."""
        if not isinstance(source.model, Regression):
            return f"model.kind={source.config.model.kind!r} has no graph of whole recordings yet"
        if source.model.audio_features.encoders:
            features = ", ".join(source.config.audio.features)
            return f"audio.features={features}: a graph has mel and pitch, no speech encoder yet"
        return ""

    def inputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        tensors = [
            Tensor(
                "audio",
                "float32",
                ("B", "320 T"),
                "16 kHz mono, full scale 1, as recorded; zeros up to a whole number of frames",
            ),
            Tensor("samples", "int32", ("B",), "number of samples of each recording, at least 1"),
            Tensor(
                "speech_level",
                "float32",
                ("B",),
                "RMS of the speech; 0 measures it, as for a recording that is given whole",
            ),
        ]
        if source.has_identity:
            meaning = "who speaks: output of the graph identity; zeros are the mean identity"
            width = source.backbone.identity_width
            tensors.append(Tensor("identity", "float32", ("B", width), meaning))
        meaning = f"weights of {', '.join(rig.EMOTIONS)} in each frame, with the sum 1"
        tensors.append(Tensor("emotion", "float32", ("B", "T", rig.NUM_EMOTIONS), meaning))
        return tuple(tensors)

    def outputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        meaning = (
            "rig channels at 50 frames a second; frames from ceil(samples / 320) on mean nothing"
        )
        return (Tensor("motion", "float32", ("B", "T", rig.NUM_CHANNELS), meaning),)

    def columns(self, source: Source, output: str) -> Sequence[str]:
        """See `Graph`."""
        return rig.CHANNELS

    def function(self, source: Source) -> Callable[..., tuple[Any, ...]]:
        """See `Graph`."""
        has_identity = source.has_identity
        variables = jax.tree.map(jnp.asarray, source.variables)
        mean = source.mean_identity
        known = source.emotion_map
        points = source.config.data.identity_points

        def apply(audio: Array, samples: Array, level: Array, *conditions: Array) -> tuple[Array]:
            size, frames = conditions[-1].shape[:2]
            vector = jnp.asarray(mean) + conditions[0] if has_identity else None
            emotion = conditions[-1]
            if known is not None:
                emotion = emotion @ known
            batch = Batch(
                audio=speech_level.normalise(audio, samples, level),
                motion=jnp.zeros((size, frames, rig.NUM_CHANNELS)),
                channel_mask=jnp.ones((size, rig.NUM_CHANNELS), bool),
                frame_mask=jnp.ones((size, frames), bool),
                length=(samples + HOP - 1) // HOP,
                identity=jnp.zeros((size, points, 3)),
                identity_mask=jnp.ones(size, bool),
                subject=jnp.zeros(size, jnp.int32),
                emotion=emotion,
                clip=jnp.zeros(size, jnp.int32),
                start=jnp.zeros(size, jnp.int32),
            )
            with given_identity(vector, source.backbone):
                return (source.model.apply(variables, batch)["motion"],)

        return apply

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import regression
        from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

        inputs, outputs = self.inputs(source), self.outputs(source)
        g = GraphBuilder(f"a2fjax_{self.name}")
        motion = regression.build(g, source, self.half)
        return g.finish(inputs, {"motion": motion}, outputs)

    def cases(self, source: Source, recordings: Sequence[np.ndarray]) -> Iterator[Case]:
        """Yields one clip of each length, then all in one batch with the recordings' own levels."""
        clips = [
            recordings[i % len(recordings)][: round(seconds * SAMPLE_RATE)]
            for i, seconds in enumerate(_SECONDS)
        ]
        requests = [self._request(source, clip, i) for i, clip in enumerate(clips)]
        for request in requests:
            seconds = len(request.audio) / SAMPLE_RATE
            yield self._case(source, [request], f"{seconds:.3g} s alone")
        longest = round(_SECONDS[-1] * SAMPLE_RATE)
        rest = [self._request(source, r[:longest], i) for i, r in enumerate(recordings)]
        yield self._case(source, requests, f"batch of {len(requests)}")
        yield self._case(source, rest[:16], f"{len(rest[:16])} recordings in a batch")

    def _request(self, source: Source, audio: np.ndarray, number: int) -> Request:
        """Gives every clip another identity and emotion; the first has the defaults."""
        emotion = np.zeros((num_frames(len(audio)), rig.NUM_EMOTIONS), np.float32)
        weight = np.linspace(1.0, 0.2, len(emotion)) if number else np.ones(len(emotion))
        emotion[:, 0] = weight
        emotion[:, 1 + number % 4] = 1.0 - weight
        clouds = identity.clouds(source) if source.config.model.identity == "mesh" else []
        points = clouds[number % len(clouds)] if clouds and number else None
        subject = source.predictor.subjects[0] if number and source.predictor.subjects else None
        level = 0.05 if number % 2 else None
        return Request(audio, points, emotion, level, subject)

    def _case(self, source: Source, requests: Sequence[Request], name: str) -> Case:
        motions = source.predictor.batch(requests)
        inputs = clip_inputs(source, requests)
        size, frames = inputs["emotion"].shape[:2]
        expected = np.zeros((size, frames, rig.NUM_CHANNELS), np.float32)
        valid = np.zeros((size, frames), bool)
        for i, motion in enumerate(motions):
            expected[i, : len(motion)] = motion
            valid[i, : len(motion)] = True
        return Case(name, inputs, {"motion": expected}, valid)


class HalfModelGraph(ModelGraph):
    """The same with the network in float16; signals and the output stay float32."""

    name = "model_fp16"
    formats = ("onnx",)
    exact = False
    half = True


def clip_inputs(
    source: Source, requests: Sequence[Request], multiple: int = 1
) -> dict[str, np.ndarray]:
    """Returns the inputs of "model" for clips; "conditions" and "denoise" have them as well.

    Args:
      source: the model.
      requests: the clips, with emotions [T, 5].
      multiple: frames are padded to a multiple of it.
    """
    size = len(requests)
    frames = max(num_frames(len(request.audio)) for request in requests)
    frames = -(-frames // multiple) * multiple
    inputs = {
        "audio": np.zeros((size, HOP * frames), np.float32),
        "samples": np.array([len(r.audio) for r in requests], np.int32),
        "speech_level": np.array([r.speech_level or 0.0 for r in requests], np.float32),
    }
    if source.has_identity:
        vectors = [identity.vector(source, r.identity, r.subject) for r in requests]
        inputs["identity"] = np.stack(vectors)
    inputs["emotion"] = np.zeros((size, frames, rig.NUM_EMOTIONS), np.float32)
    for i, request in enumerate(requests):
        inputs["audio"][i, : len(request.audio)] = request.audio
        assert request.emotion is not None
        inputs["emotion"][i, : len(request.emotion)] = request.emotion
    return inputs
