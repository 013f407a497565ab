"""What manifests of Kubernetes have in common, whatever kind they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from a2fjax.errors import InputError

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Of most objects: a DNS subdomain."""

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Of namespaces and hosts: one word of a DNS name."""

DISRUPTED = {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}
"""Rule of a pod failure policy: evictions, preemptions and drained nodes are not counted."""

Volume = tuple[str, str, bool]
"""Claim, path in the container, and whether it is only read."""


def literal(word: str) -> str:
    """Returns a word that arrives as it is: $(NAME) is expanded, and "$$" stands for one "$"."""
    return word.replace("$", "$$")


def volume(text: str) -> Volume:
    """Returns what "CLAIM:/PATH" or "CLAIM:/PATH:ro" says.

    Raises:
      InputError: of another form.
    """
    claim, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not NAME.fullmatch(claim) or not path.startswith("/") or mode not in ("", "ro", "rw"):
        raise InputError(f"--volume {text}: expected CLAIM:/PATH or CLAIM:/PATH:ro")
    return claim, str(PurePosixPath(path)), mode == "ro"


def volumes(texts: Sequence[str]) -> list[Volume]:
    """Returns the volumes of a job.

    Raises:
      InputError: one is of another form, or two have the same path.
    """
    found = [volume(text) for text in texts]
    if len({v[1] for v in found}) < len(found):
        raise InputError("--volume: two volumes have the same path")
    return found


def mounted(
    found: Sequence[Sequence[Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns `volumeMounts` of a container and `volumes` of its pod."""
    mounts, claims = [], []
    for number, (claim, path, read_only) in enumerate(found):
        mounts.append({"name": f"volume-{number}", "mountPath": path, "readOnly": read_only})
        claims.append({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}})
    return mounts, claims


def environment(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns `env` of a container."""
    return [{"name": k, "value": literal(v)} for k, v in sorted(values.items())]


def namespace(text: str | None) -> str:
    """Returns a namespace, "default" for none.

    Raises:
      InputError: it cannot be one.
    """
    found = text or "default"
    if not LABEL.fullmatch(found) or len(found) > 63:
        raise InputError(f"--namespace {found!r}: expected lower-case letters, digits and '-'")
    return found


def to_yaml(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Returns manifests as one text.

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
