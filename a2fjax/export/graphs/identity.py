"""The graph "identity": points of a neutral mesh in, the vector that the model takes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import mesh_descriptor
from a2fjax.errors import InputError
from a2fjax.export.graph import Case, Graph, Tensor
from a2fjax.export.source import Source
from a2fjax.infer import identity as identity_lib
from a2fjax.models import conditioning, familiarity

if TYPE_CHECKING:
    import onnx

_CLOUDS = 4


class IdentityGraph(Graph):
    """The identity encoder."""

    name = "identity"

    def unsupported(self, source: Source) -> str:
        """See `Graph`."""
        if source.config.model.identity != "mesh":
            return "model.identity='none': the model reads no mesh"
        return ""

    def inputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        normals = source.config.model.identity_normals
        meaning = "points that cover the neutral mesh evenly, centred, of unit RMS radius"
        if normals:
            meaning += "; then their unit normals"
        return (Tensor("points", "float32", ("B", "P", 6 if normals else 3), meaning),)

    def outputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        width = source.backbone.identity_width
        counts = "how much the mesh counts, 1 to 0: 0 is unlike the people of the training"
        return (
            Tensor("identity", "float32", ("B", width), "input of the other graphs"),
            Tensor("components", "float32", ("B", conditioning.COMPONENTS), "shape of the face"),
            Tensor("counts", "float32", ("B",), counts),
        )

    def function(self, source: Source) -> Callable[..., tuple[Any, ...]]:
        """See `Graph`."""
        mean = source.mean_identity

        def encode(points: Array) -> tuple[Any, ...]:
            known = jnp.ones(points.shape[0], bool)
            components, counts = described(source, points)
            return source.embed(points, known) - mean, components, counts

        return encode

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import identity
        from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

        g = GraphBuilder("a2fjax_identity")
        inputs, outputs = self.inputs(source), self.outputs(source)
        values = identity.build(g, source)
        names = [tensor.name for tensor in outputs]
        return g.finish(inputs, dict(zip(names, values, strict=True)), outputs)

    def cases(self, source: Source, recordings: Sequence[np.ndarray]) -> Iterator[Case]:
        """Yields the clouds one by one, then all in a batch."""
        found = clouds(source)
        for i, batch in enumerate([*(cloud[None] for cloud in found), np.stack(found)]):
            name = f"cloud {i}" if i < len(found) else f"batch of {i}"
            outputs = self.function(source)(batch)
            names = [tensor.name for tensor in self.outputs(source)]
            expected = {n: np.asarray(v) for n, v in zip(names, outputs, strict=True)}
            yield Case(name, {"points": batch}, expected)


def described(source: Source, points: Any) -> tuple[Array, Array]:
    """Returns components [B, 16] in units of the training's deviation, and weights [B]."""
    constants = source.constants
    found = conditioning.descriptor(jnp.asarray(points))
    mean = constants["identity_mean"]
    components = jnp.matmul(found - mean, constants["identity_projection"], precision="highest")
    width = mesh_descriptor.WIDTH
    if "identity_bounds" not in constants:
        return components, jnp.ones(len(found))
    distance = familiarity.distance(found[:, :width], mean[:width], constants["identity_deviation"])
    return components, familiarity.weight(distance, constants["identity_bounds"])


def clouds(source: Source) -> list[np.ndarray]:
    """Returns points [P, 3 or 6] of some faces: training people where the shards are at hand."""
    rng = np.random.default_rng(0)
    config = source.config
    found: list[np.ndarray] = []
    for name in source.predictor.subjects[: _CLOUDS - 1]:
        try:
            mesh = identity_lib.load_mesh(name, config.data.shards)
        except InputError:
            break  # The shards are elsewhere.
        found.append(source.predictor.points(mesh, name))
    while len(found) < _CLOUDS:
        shape = rng.normal(size=(config.data.identity_points, 3)) * rng.uniform(0.6, 1.4, 3)
        normals = shape / np.linalg.norm(shape, axis=1, keepdims=True)
        shape = normals * rng.uniform(0.8, 1.1, 3)
        shape /= np.sqrt((shape**2).sum(1).mean())
        parts = [shape, normals] if config.model.identity_normals else [shape]
        found.append(np.concatenate(parts, axis=1).astype(np.float32))
    return found


def vector(source: Source, points: Any, subject: str | None = None) -> np.ndarray:
    """Returns the input `identity` [E] for points of a mesh, None for the mean, and a subject."""
    out = np.zeros(source.backbone.identity_width, np.float32)
    if points is not None:
        out = np.asarray(source.embed(points[None], np.ones(1, bool))[0]) - source.mean_identity
    return out + residual(source, subject)


def residual(source: Source, subject: str | None) -> np.ndarray:
    """Returns the learned vector [E] of a training subject; zeros for None."""
    width = source.backbone.identity_width
    if subject is None:
        return np.zeros(width, np.float32)
    table = source.backbone_params["identity_residual"]["table"]
    return np.asarray(table[source.predictor.subjects.index(subject)])
