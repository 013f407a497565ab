"""The graph "denoise": one call of a diffusion model's network, and the loop that calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax import rig
from a2fjax.configuration import DiffusionConfig
from a2fjax.diffusion import guidance, samplers, schedule
from a2fjax.export.graph import Case, Tensor
from a2fjax.export.graphs import conditions
from a2fjax.export.graphs.model import clip_inputs
from a2fjax.export.source import Source
from a2fjax.models import conditioning, unet
from a2fjax.models.diffusion_checks import guidance_strengths

if TYPE_CHECKING:
    import onnx

LOOP = (
    "x = noise; for each visit i: D = denoise(x, alpha[i], sigma[i]); "
    "x = clean[i] (D + change[i] (D - D of the visit before)) + noisy[i] x + fresh[i] new noise; "
    "motion = motion_mean + motion_std x, within low and high of the channels"
)


class DenoiseGraph(conditions.ConditionsGraph):
    """Noisy motion at one noise level to the clean motion that the model expects."""

    name = "denoise"

    def inputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        heard = conditions.ConditionsGraph().outputs(source)
        *_, emotion = super().inputs(source)
        who = [tensor for tensor in super().inputs(source) if tensor.name == "identity"]
        noisy = (
            f"motion with noise, in deviations from the mean; T is a multiple of "
            f"{source.model.stride}"
        )
        return (
            Tensor("noisy", "float32", ("B", "T", rig.NUM_CHANNELS), noisy),
            Tensor("alpha", "float32", ("B",), "share of the clean motion, 0 to 1"),
            Tensor("sigma", "float32", ("B",), "share of the noise, (1 - alpha^2)^0.5"),
            *(dataclasses.replace(t, meaning="output of conditions") for t in heard),
            Tensor("length", "int32", ("B",), "frames of each item, ceil(samples / 320)"),
            *who,
            emotion,
        )

    def outputs(self, source: Source) -> tuple[Tensor, ...]:
        """See `Graph`."""
        meaning = (
            "expected motion without noise, in deviations from the mean, within the rig's ranges; "
            "frames from length on mean nothing"
        )
        return (Tensor("clean", "float32", ("B", "T", rig.NUM_CHANNELS), meaning),)

    def facts(self, source: Source) -> dict[str, Any]:
        """Returns what the loop over this graph needs: levels, coefficients and units."""
        config = source.config.model
        assert isinstance(config, DiffusionConfig)
        sample = config.sample
        levels = schedule.levels(config.schedule, sample.steps, source.model.last_time)
        found = samplers.coefficients(sample.sampler, levels, eta=sample.eta)
        strengths = {} if config.distill_steps else guidance_strengths(sample)
        return {
            "stride": source.model.stride,
            "motion_mean": np.asarray(source.constants["motion_mean"]).tolist(),
            "motion_std": np.asarray(source.constants["motion_std"]).tolist(),
            "sampler": {
                "name": sample.sampler,
                "loop": LOOP,
                "alpha": levels.alpha[:-1].tolist(),
                "sigma": levels.sigma[:-1].tolist(),
                **{k: v.tolist() for k, v in dataclasses.asdict(found).items()},
                "guided": list(guidance.guided_conditions(strengths)),
            },
        }

    def function(self, source: Source) -> Callable[..., tuple[Any, ...]]:
        """See `Graph`."""
        model, variables = source.model, source.variables
        config, encoder = model.config, variables["params"]["condition_encoder"]

        def project(name: str, level: int, x: Any) -> tuple[Any, Any]:
            width, heads = config.unet.widths[level], config.unet.heads
            both = jnp.matmul(x, encoder[f"{name}_keys_values"]["kernel"])
            key, value = jnp.split(both, 2, axis=-1)
            shape = (*x.shape[:-1], heads, width // heads)
            return key.reshape(shape), value.reshape(shape)

        def apply(
            noisy: Any, alpha: Any, sigma: Any, coarse: Any, context: Any, length: Any, *given: Any
        ) -> tuple[Any]:
            emotion = given[-1] if source.emotion_map is None else given[-1] @ source.emotion_map
            embedded: Any = conditioning.EmotionEncoder(config.emotion_width).apply(
                {"params": source.backbone_params["emotion"]}, emotion
            )
            who = [given[0] + source.mean_identity] if source.has_identity else []
            valid = jnp.arange(noisy.shape[1]) < length[:, None]
            coarse, context = (jnp.where(valid[..., None], x, 0.0) for x in (coarse, context))
            found = unet.assembled(config.unet, coarse, context, valid, embedded, who, project)
            clean = model.denoise(variables["params"]["unet"], noisy, alpha, sigma, found)
            return (jnp.clip(clean, *model.bounds(variables["constants"])),)

        return apply

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import unet as networks
        from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

        g = GraphBuilder(f"a2fjax_{self.name}")
        clean = networks.build_step(g, source)
        return g.finish(self.inputs(source), {"clean": clean}, self.outputs(source))

    def cases(self, source: Source, recordings: Sequence[np.ndarray]) -> Iterator[Case]:
        """Yields a batch of clips at the noisiest level that is visited, a middle and a low one."""
        clips = [recordings[i % len(recordings)][:n] for i, n in enumerate((100, 30_000, 61_000))]
        requests = [self._request(source, clip, i) for i, clip in enumerate(clips)]
        model, variables = source.model, source.predictor.params
        inputs = clip_inputs(source, requests, model.stride)
        frames = inputs["emotion"].shape[1]
        batch = source.predictor.stacked(requests, frames)
        found = conditions.encoder(source)(variables, batch)
        plain = dataclasses.replace(model.config.sample, audio=1.0, emotion=1.0, identity=1.0)

        @jax.jit
        def denoise(x: Any, alpha: Any, sigma: Any) -> Any:
            params = variables["params"]["unet"]
            return model.predict_clean(variables, params, found, (), plain, x, alpha, sigma)

        conditioned = {"identity", "emotion"}
        given = {name: value for name, value in inputs.items() if name in conditioned}
        given |= {
            "coarse": np.asarray(found["coarse_prediction"]),
            "context": np.asarray(found["audio"]),
            "length": np.asarray(batch.length),
        }
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(len(clips), frames, rig.NUM_CHANNELS))
        for time in (model.last_time, 0.5, 0.05):
            alpha, sigma = (float(v) for v in schedule.level(model.config.schedule, time, np))
            own = {
                "noisy": (alpha * given["coarse"] + sigma * noise).astype(np.float32),
                "alpha": np.full(len(clips), alpha, np.float32),
                "sigma": np.full(len(clips), sigma, np.float32),
            }
            expected = {"clean": np.asarray(denoise(*own.values()))}
            valid = np.arange(frames) < given["length"][:, None]
            yield Case(f"{len(clips)} clips at alpha {alpha:.3g}", own | given, expected, valid)
