"""Named implementations: models, losses, metrics, encoders, sources, graphs, formats, listeners.

Each kind has one `Registry`. Built-in entries are registered by import path, so that names and
settings can be listed without importing what implements them. A plugin is an importable package
that registers its own entries when it is imported:

    from a2fjax import registry

    registry.losses.register("jerk", "my_package.jerk:Jerk", settings="my_package.jerk:Settings")

`config.plugins` names the packages; `load_plugins` imports them, and those that an installed
distribution offers as entry points of the group `a2fjax.plugins`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from a2fjax.errors import InputError, nearest

ENTRY_POINT_GROUP = "a2fjax.plugins"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered implementation.

    Attributes:
      name: what configurations and flags call it.
      target: the implementation, or its import path "package.module:attribute"; without an
        attribute the module itself.
      settings: dataclass of its settings, its import path, or None where it has none.
      origin: top-level package that registered it.
    """

    name: str
    target: Any
    settings: Any
    origin: str

    def load(self) -> Any:
        """Returns the implementation; imports it when needed.

        Raises:
          InputError: a plugin's import path does not lead anywhere.
        """
        return _resolve(self.target, self)

    def settings_class(self) -> type | None:
        """Returns the dataclass of the settings, or None.

        Raises:
          InputError: a plugin's import path does not lead anywhere.
        """
        return None if self.settings is None else _resolve(self.settings, self)


class Registry:
    """Implementations of one kind by name.

    Example:
        >>> shapes = Registry("shape")
        >>> @shapes.register("square")
        ... def area(side):
        ...     return side * side
        >>> shapes.get("square").load()(3)
        9
        >>> shapes.get("sqare")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: unknown shape 'sqare'; did you mean 'square'?...

    Attributes:
      kind: what the entries are, for messages: "loss", "model".
    """

    def __init__(self, kind: str) -> None:
        """Makes an empty registry."""
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, target: Any = None, *, settings: Any = None) -> Callable[[T], T]:
        """Registers an implementation; also a decorator when `target` is left out.

        Args:
          name: unique within the kind.
          target: the implementation, "package.module:attribute" or "package.module".
          settings: frozen dataclass of its settings, or the import path of one.

        Raises:
          ValueError: another package has registered this name.
        """

        def add(value: T) -> T:
            origin = _origin(value)
            known = self._entries.get(name)
            if known is not None and (known.origin, _path(known.target)) != (origin, _path(value)):
                raise ValueError(f"{self.kind} {name!r} is already registered by {known.origin}")
            self._entries[name] = Entry(name, value, settings, origin)
            return value

        if target is not None:
            add(target)
        return add

    def get(self, name: str, *, where: str = "") -> Entry:
        """Returns an entry.

        Args:
          name: of the entry.
          where: prefix of the error, such as the configuration key that names it.

        Raises:
          InputError: nothing is registered under the name; says the nearest and how to register.
        """
        if name in self._entries:
            return self._entries[name]
        raise InputError(
            f"{where}unknown {self.kind} {name!r}{nearest(name, self.names())}; a package that "
            "registers another one is named in config.plugins (docs/extending.md)"
        )

    def names(self) -> list[str]:
        """Returns the registered names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        """Returns whether the name is registered."""
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        """Yields the entries by name."""
        return iter(self._entries[name] for name in self.names())


def load_plugins(packages: Sequence[str] = ()) -> None:
    """Imports the packages named, and those installed under the entry point group.

    Raises:
      InputError: one cannot be imported; names it and says why.
    """
    installed = [e.value for e in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)]
    for package in dict.fromkeys([*installed, *packages]):
        try:
            importlib.import_module(package)
        except Exception as error:  # noqa: BLE001 - any failure of a plugin is one line
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"plugins: {package!r} cannot be imported ({why})") from None


def _resolve(target: Any, entry: Entry) -> Any:
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except (ImportError, AttributeError) as error:
        if entry.origin in ("a2fjax", "data_pipeline"):
            raise
        raise InputError(f"plugin {entry.origin}: {target!r} cannot be loaded ({error})") from None


def _path(target: Any) -> str:
    if isinstance(target, str):
        return target
    if isinstance(target, types.ModuleType):
        return target.__name__
    return f"{target.__module__}:{target.__qualname__}"


def _origin(target: Any) -> str:
    return _path(target).partition(":")[0].partition(".")[0]


models = Registry("model")
losses = Registry("loss")
metrics = Registry("metric")
sample_metrics = Registry("metric of samples")
encoders = Registry("speech encoder")
sources = Registry("capture layout")
schedulers = Registry("scheduler")
writers = Registry("animation format")
heads = Registry("head")
graphs = Registry("graph")
bundle_formats = Registry("bundle format")
listeners = Registry("listener")

# The built-in parts, by import path: names and settings are listed without what implements them.
models.register(
    "regression",
    "a2fjax.tasks.regression:RegressionTask",
    settings="a2fjax.configuration.models:RegressionConfig",
)
models.register(
    "streaming",
    "a2fjax.tasks.streaming:StreamingTask",
    settings="a2fjax.configuration.models:StreamingConfig",
)
models.register(
    "diffusion",
    "a2fjax.tasks.diffusion:DiffusionTask",
    settings="a2fjax.configuration.models:DiffusionConfig",
)
models.register(
    "conv_w2v_autocorr",
    "a2fjax.tasks.nvidia:ConvW2vAutocorrTask",
    settings="a2fjax.configuration.nvidia:ConvW2vAutocorrConfig",
)
models.register(
    "diffusion_rnn",
    "a2fjax.tasks.nvidia:DiffusionRnnTask",
    settings="a2fjax.configuration.nvidia:DiffusionRnnConfig",
)
models.register(
    "syncnet",
    "a2fjax.tasks.syncnet:SyncnetTask",
    settings="a2fjax.configuration.sync:SyncnetConfig",
)
models.register(
    "syncnet_inverse",
    "a2fjax.tasks.syncnet_inverse:SyncnetInverseTask",
    settings="a2fjax.configuration.sync:SyncnetInverseConfig",
)
encoders.register("wav2vec2", "a2fjax.encoders.wav2vec2.speech_encoder:Wav2Vec2SpeechEncoder")
encoders.register("hubert", "a2fjax.encoders.wav2vec2.speech_encoder:Wav2Vec2SpeechEncoder")
encoders.register("whisper", "a2fjax.encoders.whisper.speech_encoder:WhisperSpeechEncoder")
losses.register("position", "a2fjax.losses.channels:position")
losses.register("velocity", "a2fjax.losses.channels:velocity")
losses.register("aperture", "a2fjax.losses.lips:aperture")
losses.register("closure", "a2fjax.losses.lips:closure")
for _name in ("Fidelity", "Lips", "Timing", "Dynamics", "Energy", "Silence"):
    metrics.register(_name.lower(), f"a2fjax.metrics.built_in:{_name}")
for _name in ("mtm", "sync", "slcc", "nonspeech", "eyes", "vertices"):
    metrics.register(_name, f"a2fjax.metrics.{_name}")
metrics.register("phones", "a2fjax.metrics.phones.metric")
for _name in ("scores", "ranks", "agreement"):
    sample_metrics.register(_name, f"a2fjax.metrics.{_name}")
writers.register(".csv", "a2fjax.animation.livelink_format:LiveLinkFormat")
writers.register(".channels.csv", "a2fjax.animation.named_curves:ChannelsFormat")
writers.register(".json", "a2fjax.animation.named_curves:JsonFormat")
writers.register(".npz", "a2fjax.animation.named_curves:NpzFormat")
writers.register(".glb", "a2fjax.animation.scenes.glb:GlbFormat")
writers.register(".anim", "a2fjax.animation.maya_anim:AnimFormat")
for _name in ("Usd", "Usda", "Usdc", "Usdz"):
    writers.register(f".{_name.lower()}", f"a2fjax.animation.scenes.usd:{_name}Format")
heads.register("demo", "data_pipeline.demo.shown_head:shown_head")
writers.register(".nim.csv", "a2fjax.animation.nvidia_files:NimFormat")
writers.register(".omniverse.json", "a2fjax.animation.nvidia_files:OmniverseFormat")
graphs.register("model", "a2fjax.export.graphs.model:ModelGraph")
graphs.register("model_fp16", "a2fjax.export.graphs.model:HalfModelGraph")
graphs.register("step", "a2fjax.export.graphs.step:StepGraph")
graphs.register("step_fp16", "a2fjax.export.graphs.reduced_step:HalfStepGraph")
graphs.register("step_int8", "a2fjax.export.graphs.reduced_step:Int8StepGraph")
graphs.register("identity", "a2fjax.export.graphs.identity:IdentityGraph")
graphs.register("conditions", "a2fjax.export.graphs.conditions:ConditionsGraph")
graphs.register("denoise", "a2fjax.export.graphs.denoise:DenoiseGraph")
bundle_formats.register("onnx", "a2fjax.export.formats.onnx:Onnx")
bundle_formats.register("pytorch", "a2fjax.export.formats.pytorch:PyTorch")
bundle_formats.register("stablehlo", "a2fjax.export.formats.stablehlo:StableHlo")
for _name, _target in {
    "meter": "meter:Meter",
    "livelink": "livelink:LiveLink",
    "osc": "osc:Osc",
    "vmc": "osc:Vmc",
    "websocket": "websocket:WebSocket",
    "file": "file:File",
}.items():
    listeners.register(_name, f"a2fjax.live.listeners.{_target}")
