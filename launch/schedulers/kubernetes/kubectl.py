"""Calls of kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from a2fjax.errors import InputError, WorkFailed
from launch.jobs.formats import last_line
from launch.schedulers.base import call

_NO_ANSWER = "connection|connect|timeout|refused|no such host|unavailable"


def run(*words: str) -> str:
    """Runs kubectl and returns its output.

    Raises:
      InputError: kubectl is missing or refuses.
      WorkFailed: the cluster does not answer.
    """
    missing = f"apply {words[-1]} where it is" if words[0] == "apply" else "ask where it is"
    done = call(["kubectl", *words], missing=missing)
    if not done.returncode:
        return done.stdout
    if re.search(_NO_ANSWER, done.stderr, re.I):
        raise WorkFailed(f"kubectl: {last_line(done.stderr)}")
    raise InputError(f"kubectl refuses: {last_line(done.stderr)}")


def status(kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    """Returns the status of an object, {} before it has one; None if the object does not exist.

    Raises:
      InputError, WorkFailed: as `run`.
    """
    text = run("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "-o", "json")
    if not text.strip():
        return None
    try:
        return dict(json.loads(text).get("status") or {})
    except (ValueError, AttributeError, TypeError):
        raise WorkFailed("kubectl answered something that is not JSON") from None


def conditions(status: Mapping[str, Any]) -> set[str]:
    """Returns the types of the conditions that hold."""
    return {c.get("type", "") for c in status.get("conditions", []) if c.get("status") == "True"}
