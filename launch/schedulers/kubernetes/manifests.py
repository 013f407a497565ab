"""Parts of manifests shared by all kinds of Kubernetes objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from a2fjax.errors import InputError

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Names of most objects: a DNS subdomain."""

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Names of namespaces and hosts: one label of a DNS name."""

DISRUPTED = {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}
"""Rule of a pod failure policy: evictions, preemptions and drained nodes do not count."""

_TAKEN = ("/", "//", "/dev", "/dev/shm", "/proc", "/sys")

Volume = tuple[str, str, bool]
"""Claim, path in the container, and whether it is read-only."""


def literal(word: str) -> str:
    """Escapes a word against expansion: $(NAME) would be expanded, and "$$" stands for one "$"."""
    return word.replace("$", "$$")


def volume(text: str) -> Volume:
    """Reads "CLAIM:/PATH" or "CLAIM:/PATH:ro".

    Raises:
      InputError: another form.
    """
    claim, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not NAME.fullmatch(claim) or not path.startswith("/") or mode not in ("", "ro", "rw"):
        raise InputError(f"--volume {text}: expected CLAIM:/PATH or CLAIM:/PATH:ro")
    mount = str(PurePosixPath(path))
    if mount in _TAKEN:
        raise InputError(f"--volume {text}: {mount} belongs to the container; expected a folder")
    return claim, mount, mode == "ro"


def volumes(texts: Sequence[str]) -> list[Volume]:
    """Returns the volumes of a job.

    Raises:
      InputError: one has another form, or two have the same path.
    """
    result = [volume(text) for text in texts]
    if len({v[1] for v in result}) < len(result):
        raise InputError("--volume: two volumes have the same path")
    return result


def mounted(
    volumes: Sequence[Volume],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns `volumeMounts` of a container and `volumes` of its pod."""
    mounts, claims = [], []
    for number, (claim, path, read_only) in enumerate(volumes):
        mounts.append({"name": f"volume-{number}", "mountPath": path, "readOnly": read_only})
        claims.append({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}})
    return mounts, claims


def environment(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns `env` of a container."""
    return [{"name": k, "value": literal(v)} for k, v in sorted(values.items())]


def secret(name: str, namespace: str, value: str) -> dict[str, Any]:
    """Returns a Secret with one key, "secret"."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "a2fjax", "app.kubernetes.io/instance": name},
        },
        "immutable": True,
        "stringData": {"secret": value},
    }


def namespace(text: str | None) -> str:
    """Returns a namespace, "default" for none.

    Raises:
      InputError: it cannot be one.
    """
    name = text or "default"
    if not LABEL.fullmatch(name) or len(name) > 63:
        raise InputError(f"--namespace {name!r}: expected lower-case letters, digits and '-'")
    return name


def to_yaml(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Returns manifests as one YAML text.

    Raises:
      InputError: the extra `launch` is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise InputError(
            "Kubernetes needs the extra `launch`: pip install 'a2fjax[launch]'"
        ) from None
    return str(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True, width=1000))
