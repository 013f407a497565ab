"""The graph "step": one frame of live audio and the state in, one frame of motion and it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.errors import InputError
from a2fjax.export.formats.base import Run
from a2fjax.export.graph import Case, Graph, Tensor
from a2fjax.export.graphs import identity
from a2fjax.export.source import Source
from a2fjax.infer import lookahead
from a2fjax.models.streaming import StreamingRegression
from a2fjax.streaming.compiled import CompiledStep
from a2fjax.streaming.step import StreamingStep

if TYPE_CHECKING:
    import onnx

_SECONDS = 10.0
_ROWS = 4
_EXAMPLE_CALLS = 75


class StepGraph(Graph):
    """The streaming model at one look-ahead.

    Attributes:
      lookahead_ms: look-ahead; None for that of the run's configuration.
    """

    name = "step"

    def __init__(self, lookahead_ms: int | None = None) -> None:
        """Creates the graph of a look-ahead; None is the configuration's."""
        self.lookahead_ms = lookahead_ms
        if lookahead_ms is not None:
            self.name = f"step_{lookahead_ms}ms"

    def variants(self, source: Source) -> Sequence[Graph]:
        """Returns a graph for the default look-ahead and one for each other that was asked for."""
        if self.unsupported(source):
            return (self,)
        config = source.model.config
        others = [ms for ms in source.lookaheads_ms if ms != config.lookahead_ms]
        return (self, *map(type(self), dict.fromkeys(others)))

    def unsupported(self, source: Source) -> str:
        """See `Graph`."""
        try:
            lookahead.check_can_stream(source.config)
        except InputError as error:
            return str(error)
        return ""

    def step(self, source: Source) -> StreamingStep:
        """Returns the step of this look-ahead."""
        model = source.model
        assert isinstance(model, StreamingRegression)
        ms = model.config.lookahead_ms if self.lookahead_ms is None else self.lookahead_ms
        return StreamingStep(model, ms * rig.FPS // 1000)

    def facts(self, source: Source) -> dict[str, Any]:
        """Returns look-ahead, hop and the state with its bytes."""
        step = self.step(source)
        entries = step.entries.items()
        return {
            "look_ahead": {
                "frames": step.lookahead,
                "seconds": (step.lookahead + step.hop) / rig.FPS,
            },
            "hop": step.hop * HOP,
            "state": [
                {"name": n, "dtype": e.dtype, "shape": ["B", *e.shape], "bytes": e.nbytes}
                for n, e in entries
            ],
        }

    def inputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        step = self.step(source)
        heard = "16 kHz mono, full scale 1, as recorded: the next samples of each stream"
        tensors = [Tensor("audio", "float32", ("B", step.hop * HOP), heard)]
        if source.has_identity:
            who = "who speaks: output of the graph identity; zeros are the mean identity"
            tensors.append(Tensor("identity", "float32", ("B", step.identity_width), who))
        how = f"weights of {', '.join(rig.EMOTIONS)} in the frame that leaves, with the sum 1"
        rows = "streams that hear; the others' state stays as it is and their motion is zero"
        anew = "streams that start anew before they hear"
        tensors += [
            Tensor("emotion", "float32", ("B", rig.NUM_EMOTIONS), how),
            Tensor("active", "bool", ("B",), rows),
            Tensor("reset", "bool", ("B",), anew),
        ]
        return (*tensors, *_state_tensors(step, "in", "state before; zeros are the start"))

    def outputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        step = self.step(source)
        meaning = (
            f"rig channels of the frame {step.lookahead} before the one heard; zeros for the "
            f"first {step.lookahead} frames of a stream"
        )
        motion = Tensor("motion", "float32", ("B", step.hop, rig.NUM_CHANNELS), meaning)
        return (motion, *_state_tensors(step, "out", "state after: the next call's input"))

    def columns(self, source: Source, output: str) -> Sequence[str]:
        """See `Graph`."""
        return rig.CHANNELS if output == "motion" else ()

    def function(self, source: Source) -> Callable[..., tuple[Any, ...]]:
        """See `Graph`."""
        step = self.step(source)
        weights = jax.tree.map(jnp.asarray, step.weights(source.variables))
        names = [tensor.name for tensor in self.inputs(source)]

        def apply(*values: Array) -> tuple[Any, ...]:
            given = dict(zip(names, values, strict=True))
            state = {name: given[f"in.{name}"] for name in step.entries}
            who = jnp.zeros((given["audio"].shape[0], 0))
            if source.has_identity:
                who = given["identity"] + source.mean_identity
            emotion = given["emotion"]
            if source.emotion_map is not None:
                emotion = emotion @ source.emotion_map
            motion, new = step(
                weights, given["audio"], state, who, emotion, given["active"], given["reset"]
            )
            return (motion, *(new[name] for name in step.entries))

        return apply

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import step
        from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

        g = GraphBuilder(f"a2fjax_{self.name}")
        outputs = step.build(g, source, self.step(source))
        return g.finish(self.inputs(source), outputs, self.outputs(source))

    def cases(self, source: Source, recordings: Sequence[np.ndarray]) -> Iterator[Case]:
        """Yields several streams, of which the first has no pause or reset, then that one alone.

        Each input has an axis for the calls before that of the streams; see `driven`.
        """
        key = (StepGraph, self.lookahead_ms)
        if key not in source.shared:
            inputs = self._inputs(source, recordings)
            source.shared[key] = inputs, *self._expected(source, inputs)
        inputs, motion, _ = source.shared[key]
        yield Case(f"{_ROWS} streams with pauses and resets", inputs, {"motion": motion})
        alone = {name: value[:, :1] for name, value in inputs.items()}
        yield Case("one stream", alone, {"motion": motion[:1]})

    def example(self, source: Source) -> dict[str, np.ndarray]:
        """Returns the first calls of two streams: the first alone, one with pauses and resets."""
        if self.lookahead_ms is not None or (StepGraph, None) not in source.shared:
            return {}
        inputs, motion, state = source.shared[StepGraph, None]
        out = {name: value[:_EXAMPLE_CALLS, :2] for name, value in inputs.items()}
        out["motion"] = motion[:2, :_EXAMPLE_CALLS].swapaxes(0, 1)[:, :, None]
        return out | {f"out.{name}": value[:2] for name, value in state.items()}

    def _inputs(self, source: Source, recordings: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        calls = min(round(_SECONDS * rig.FPS), max(-(-len(r) // HOP) for r in recordings))
        shape = (calls, _ROWS)
        audio = np.zeros((_ROWS, calls * HOP), np.float32)
        for i in range(_ROWS):
            part = recordings[i % len(recordings)][: calls * HOP]
            audio[i, : len(part)] = part
        emotion = rng.dirichlet(np.ones(rig.NUM_EMOTIONS), shape).astype(np.float32)
        emotion[:, 0] = np.eye(rig.NUM_EMOTIONS)[0]
        active = np.repeat(rng.random((-(-calls // 8), _ROWS)) < 0.8, 8, axis=0)[:calls]
        reset = rng.random(shape) < 0.01
        active[:, 0], reset[:, 0] = True, False
        # The second stream has both within the calls of the example.
        active[16:24, 1], reset[40:41, 1] = False, True
        inputs = {
            "audio": np.ascontiguousarray(audio.reshape(_ROWS, calls, HOP).swapaxes(0, 1)),
            "emotion": emotion,
            "active": active,
            "reset": reset,
        }
        if source.has_identity:
            who = np.zeros((_ROWS, self.step(source).identity_width), np.float32)
            clouds = identity.clouds(source) if source.config.model.identity == "mesh" else []
            subject = source.predictor.subjects[0] if source.predictor.subjects else None
            for i in range(1, _ROWS):
                who[i] = identity.vector(source, clouds[i] if clouds else None, subject)
            inputs["identity"] = np.tile(who, (calls, 1, 1))
        return inputs

    def _expected(
        self, source: Source, inputs: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns what the product's own compiled step gives.

        Returns:
          The motion [B, T, 72], and the state after the calls of the example.
        """
        calls, size = inputs["audio"].shape[:2]
        step = CompiledStep(
            self.step(source), source.predictor.params, size, fingerprint=source.fingerprint
        )
        state, out = step.start(), []
        after: dict[str, np.ndarray] = {}
        who = np.zeros((size, 0), np.float32)
        for i in range(calls):
            if source.has_identity:
                who = source.mean_identity + inputs["identity"][i]
            emotion = source.predictor.training.known_emotion(inputs["emotion"][i])
            masks = inputs["active"][i], inputs["reset"][i]
            motion, state = step(inputs["audio"][i], state, who, emotion, *masks)
            out.append(motion)
            if i == min(calls, _EXAMPLE_CALLS) - 1:
                after = {name: np.asarray(value) for name, value in state.items()}
        return np.concatenate(out, axis=1), after

    def driven(self, source: Source, run: Run) -> Run:
        """Returns what calls a file's step for each hop, with the state that it returned before."""
        step = self.step(source)

        def play(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            size = inputs["audio"].shape[1]
            state = {
                f"in.{name}": np.zeros((size, *entry.shape), entry.dtype)
                for name, entry in step.entries.items()
            }
            out = []
            for i in range(len(inputs["audio"])):
                motion, *new = run({**{k: v[i] for k, v in inputs.items()}, **state})
                state = dict(zip(state, new, strict=True))
                out.append(motion)
            return [np.concatenate(out, axis=1)]

        return play


def _state_tensors(step: StreamingStep, side: str, meaning: str) -> list[Tensor]:
    return [
        Tensor(f"{side}.{name}", entry.dtype, ("B", *entry.shape), meaning)
        for name, entry in step.entries.items()
    ]
