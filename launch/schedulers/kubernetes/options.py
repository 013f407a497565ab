"""Options of pods: flags and profile keys that runs and arrays share, and their checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from a2fjax.errors import InputError, nearest
from launch.jobs import formats
from launch.schedulers.base import Option
from launch.schedulers.kubernetes import manifests

FLAGS = (
    Option(name="image", help="image that contains a2fjax, NAME@sha256:DIGEST"),
    Option(name="allow_tag", help="accept an image without a digest", kind=bool),
    Option(name="namespace", help="namespace (default: default)"),
    Option(
        name="volume",
        help="claim and where it is mounted; may be repeated",
        repeated=True,
        metavar="CLAIM:PATH[:ro]",
    ),
    Option(name="shm", help="size of /dev/shm, such as 16G (default: 16G, at most half of --mem)"),
    Option(name="queue", help="local queue of Kueue"),
    Option(name="priority", help="priority class of the pods"),
    Option(name="kueue_priority", help="workload priority class of Kueue"),
    Option(name="suspend", help="create it suspended", kind=bool),
    Option(name="max_restarts", help="restarts of all pods (50)", kind=int, least=0, arrays=False),
    Option(name="keep_seconds", help="until ended jobs are deleted (7 days)", kind=int, least=0),
    Option(
        name="node_selector",
        help="label that nodes must have; may be repeated",
        repeated=True,
        metavar="LABEL=VALUE",
    ),
    Option(
        name="toleration",
        help="taint that pods tolerate; may be repeated",
        repeated=True,
        metavar="KEY[=VALUE][:EFFECT]",
    ),
    Option(
        name="pull_secret",
        help="Secret with the registry's password; may be repeated",
        repeated=True,
        metavar="NAME",
    ),
    Option(name="service_account", help="service account of the pods"),
    Option(
        name="rdma",
        help="RDMA devices of a pod, such as rdma/hca=8; may be repeated",
        repeated=True,
        metavar="RESOURCE=N",
    ),
    Option(name="run_as_user", help="user id of the processes", kind=int, least=0),
    Option(name="run_as_group", help="group id of the processes", kind=int, least=0),
    Option(name="fs_group", help="group id that volumes are made writable for", kind=int, least=0),
)
"""Command-line options; a profile's table `kubernetes` has the same keys."""

SECRETS = ("secrets", "secret_keys")
"""Further keys of the profile: names of Secrets, and "SECRET/KEY" by environment variable."""

NAMES = frozenset(o.name for o in FLAGS) | {*SECRETS}
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_DIGEST = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_PART = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_QUALIFIED = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?{_PART}")
_LABEL_VALUE = re.compile(rf"(?:{_PART})?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_OBJECTS = ("queue", "priority", "kueue_priority", "service_account")


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that are set, as JSON, after checking them.

    Args:
      given: values by the names of `NAMES`; None is the default.

    Raises:
      InputError: one is missing or has the wrong form.
    """
    values = {k: v for k, v in given.items() if v is not None}
    for option in FLAGS:
        if option.name in values:
            check_type(option, values[option.name])
        if option.name in values and option.name in _OBJECTS:
            _object(values[option.name], option.flag)
    _check_image(values.get("image"), bool(values.get("allow_tag")))
    manifests.namespace(values.get("namespace"))
    manifests.volumes(values.get("volume", []))
    if "shm" in values:
        formats.memory_mib(values["shm"], "--shm")
    selector(values.get("node_selector", []))
    tolerations(values.get("toleration", []))
    devices(values.get("rdma", []))
    for name in values.get("pull_secret", []):
        _object(name, "--pull-secret")
    _check_secrets(values)
    return values


def selector(texts: Sequence[str]) -> dict[str, str]:
    """Returns `nodeSelector` of a pod.

    Raises:
      InputError: a text is not LABEL=VALUE.
    """
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not _QUALIFIED.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InputError(f"--node-selector {text}: expected LABEL=VALUE")
        result[key] = value
    return result


def tolerations(texts: Sequence[str]) -> list[dict[str, str]]:
    """Returns `tolerations` of a pod; without an effect, every effect is tolerated.

    Raises:
      InputError: a text is not KEY[=VALUE][:EFFECT].
    """
    result = []
    for text in texts:
        taint, colon, effect = text.partition(":")
        key, equals, value = taint.partition("=")
        if not _QUALIFIED.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InputError(f"--toleration {text}: expected KEY[=VALUE][:EFFECT]")
        if colon and effect not in EFFECTS:
            raise InputError(f"--toleration {text}: effect {effect!r}{nearest(effect, EFFECTS)}")
        operator = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
        result.append({"key": key, **operator, **({"effect": effect} if colon else {})})
    return result


def devices(texts: Sequence[str]) -> dict[str, str]:
    """Returns the number of each RDMA device as `limits` of a container.

    Raises:
      InputError: a text is not RESOURCE=N.
    """
    result = {}
    for text in texts:
        name, _, count = text.partition("=")
        if "/" not in name or not _QUALIFIED.fullmatch(name) or not _positive(count):
            raise InputError(f"--rdma {text}: expected RESOURCE=N, such as rdma/hca=8")
        result[name] = count
    return result


def _positive(text: str) -> bool:
    return bool(re.fullmatch(r"[1-9]\d{0,5}", text))


def check_type(option: Option, value: Any) -> None:
    """Checks the type of a value, which from a profile may be any.

    Raises:
      InputError: it is another.
    """
    name = option.flag
    if option.repeated:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise InputError(f"{name} {value!r}: expected a list of strings")
    elif option.kind is int:
        if not isinstance(value, int) or isinstance(value, bool) or value < option.least:
            raise InputError(f"{name} {value}: expected a whole number, {option.least} or more")
    elif not isinstance(value, option.kind):
        expected = "true or false" if option.kind is bool else "a string"
        raise InputError(f"{name} {value!r}: expected {expected}")


def _object(name: str, where: str) -> None:
    if not manifests.NAME.fullmatch(name) or len(name) > 253:
        raise InputError(f"{where} {name!r}: expected the name of an object")


def _check_image(image: str | None, allow_tag: bool) -> None:
    if not image:
        raise InputError("--image: an image that contains a2fjax is needed, by its digest")
    if re.search(r"\s", image):
        raise InputError(f"--image {image!r}: expected a name without spaces")
    if not _DIGEST.fullmatch(image) and not allow_tag:
        raise InputError(
            f"--image {image}: expected NAME@sha256:DIGEST; the image of a tag can change "
            "between the starts of pods (--allow-tag accepts it)"
        )


def _check_secrets(values: Mapping[str, Any]) -> None:
    names, keys = values.get("secrets", []), values.get("secret_keys", {})
    strings: Callable[[Any], bool] = lambda texts: all(isinstance(t, str) for t in texts)  # noqa: E731
    if not isinstance(names, list | tuple) or not strings(names):
        raise InputError(f"kubernetes.secrets = {names!r}: expected a list of strings")
    if not isinstance(keys, Mapping) or not strings(keys.values()):
        raise InputError(f"kubernetes.secret_keys = {keys!r}: expected VARIABLE = SECRET/KEY")
    for name in names:
        _object(name, "kubernetes.secrets")
    for variable, text in keys.items():
        name, slash, key = text.partition("/")
        if not VARIABLE.fullmatch(variable):
            raise InputError(f"kubernetes.secret_keys {variable!r}: expected a variable")
        if not slash or not manifests.NAME.fullmatch(name) or not _SECRET_KEY.fullmatch(key):
            raise InputError(f"kubernetes.secret_keys.{variable} = {text!r}: expected SECRET/KEY")
