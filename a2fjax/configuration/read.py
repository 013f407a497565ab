"""Reads experiment files and overrides into a `Resolved`, which a run saves and reads back."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import budgets, sealed_json
from a2fjax.configuration import plugins, python_file
from a2fjax.configuration.build import build_config
from a2fjax.configuration.experiment import Config
from a2fjax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A configuration with the origin of each value.

    Attributes:
      config: the dataclasses.
      sources: where each value was set, by dotted key ("default", a file, an override).
      plugins: digest of the code of each plugin, by package: that of now, or for a configuration
        read by `from_json` the one saved with it.
    """

    config: Config
    sources: dict[str, str]
    plugins: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the text of a run's config.json, sealed; `from_json` reads it back."""
        values = {
            "config": dataclasses.asdict(self.config),
            "sources": self.sources,
            "plugins": self.plugins,
            "fingerprint": fingerprint(self.config),
        }
        plain = json.loads(json.dumps(values, default=dict))
        return json.dumps(sealed_json.seal(plain), indent=2)


def fingerprint(config: Any) -> str:
    """Returns 16 hex digits that change when any value of the configuration does."""
    return digest(dataclasses.asdict(config))


def digest(values: Any) -> str:
    """Returns 16 hex digits that change when any of some JSON values does."""
    text = json.dumps(values, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def from_json(text: str | bytes, *, name: str = "config.json") -> Resolved:
    """Reads what `Resolved.to_json` wrote.

    Raises:
      InputError: not JSON, changed since it was written, a plugin that cannot be imported, or a key
        this version does not know.
    """
    try:
        data = budgets.parse_json(text, name=name)
        values, sources, pinned = data["config"], data["sources"], data.get("plugins", {})
        if not isinstance(values, dict):
            raise TypeError("config is not an object")
        for key, texts in (("sources", sources), ("plugins", pinned)):
            if not (isinstance(texts, dict) and all(isinstance(v, str) for v in texts.values())):
                raise TypeError(f"{key} is not an object of texts")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{name}: not a run's configuration ({error})") from None
    check_sealed(data, name=name)
    return Resolved(build_config(values, where=name), sources, pinned)


def check_sealed(values: Any, *, name: str) -> None:
    """Checks that the content of a config.json is what `Resolved.to_json` wrote.

    Raises:
      InputError: it is not; the message says how values are changed.

    Example:
        >>> check_sealed({"config": {"steps": 9}, "crc32": "00000000"}, name="run/config.json")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run/config.json: was changed after it was written (crc32 does \
not match); restore the file, and set values with flags instead: --config.KEY=VALUE
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{name}: not a run's configuration")
    if not sealed_json.is_sealed(values):
        why = "crc32 does not match" if sealed_json.KEY in values else "it has no crc32"
        raise InputError(
            f"{name}: was changed after it was written ({why}); restore the file, and set values "
            "with flags instead: --config.KEY=VALUE"
        )


def load(experiment: str | Path | None, overrides: Mapping[str, str] | None = None) -> Resolved:
    """Resolves an experiment file and overrides.

    Args:
      experiment: "path/to/file.py" or "path/to/file.py:variant"; a run's "config.json", which keeps
        where its values came from; None for the defaults.
      overrides: values by dotted key, as written on the command line.

    Raises:
      InputError: names the file or key, what was expected and the nearest valid key.

    Example:
        >>> resolved = load(None, {"optim.learning_rate": "1e-3", "model.kind": "diffusion"})
        >>> resolved.config.model.unet.heads
        4
        >>> resolved.sources["optim.learning_rate"]
        '--config.optim.learning_rate'
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if experiment is not None and str(experiment).endswith(".json"):
        pinned = _read_resolved(Path(experiment))
        # Through JSON: groups become plain dictionaries, which overrides can be set in.
        values = json.loads(json.dumps(dataclasses.asdict(pinned.config), default=dict))
        sources = dict(pinned.sources)
    elif experiment is not None:
        values = _read_experiment(str(experiment))
        sources = dict.fromkeys(flatten(values), str(experiment))
    for key, text in (overrides or {}).items():
        _set(values, key, parse_value(text))
        sources[key] = f"--config.{key}"
    config = build_config(values, where="config")
    every = flatten(dataclasses.asdict(config))
    where = {key: _source(sources, key) for key in every}
    return Resolved(config, where, plugins.digests(config))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested groups of values by dotted key; an empty group is a value."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            out |= flatten(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def parse_overrides(args: Sequence[str]) -> dict[str, str]:
    """Reads `--config.a.b=value` and `--config.a.b value` arguments.

    Raises:
      InputError: an argument of another form.
    """
    out: dict[str, str] = {}
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if not arg.startswith("--config."):
            raise InputError(f"unexpected argument {arg!r}; overrides are --config.key=value")
        key, equals, value = arg[len("--config.") :].partition("=")
        if not equals:
            if not rest:
                raise InputError(f"{arg}: a value is missing; write {arg}=value")
            value = rest.pop(0)
        out[key] = value
    return out


def parse_value(text: str) -> Any:
    """Reads a value as written on the command line: a Python literal, true/false, or a string."""
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _read_resolved(path: Path) -> Resolved:
    if not path.exists():
        near = sorted(str(p) for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        raise InputError(f"configuration {str(path)!r} cannot be read{nearest(str(path), near)}")
    return from_json(budgets.read_bytes(path), name=str(path))


def _read_experiment(text: str) -> dict[str, Any]:
    file, _, variant = text.partition(":")
    path = Path(file)
    module = python_file.load(path, "experiment")
    if not hasattr(module, "get_config"):
        raise InputError(f"{file}: expected a function get_config(variant='')")
    with python_file.guarded(path):
        try:
            config = module.get_config(variant) if variant else module.get_config()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Usually the experiment's own message about an unknown variant.
            raise InputError(f"{text}: {error}") from None
    values = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(values, Mapping):
        kind = type(values).__name__
        raise InputError(
            f"{text}: get_config gave a value of type {kind}, expected names with values"
        )
    return dict(values)


def _source(sources: Mapping[str, str], key: str) -> str:
    while key:
        if key in sources:
            return sources[key]
        key = key.rpartition(".")[0]
    return "default"


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"--config.{key}: {parent!r} is a value, not a group of keys")
    values[last] = value
