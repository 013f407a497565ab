"""Parses topologies by name and compiles for each one in a separate process.

The number of simulated CPU devices is fixed when JAX starts, and describing GPUs needs other
settings than running on a CPU, so each topology gets a new process (`compile_stats`). This module
does not import JAX.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from a2fjax import configuration as config_lib
from a2fjax.errors import InputError, WorkFailed, nearest

PER_HOST = 8
"""Devices per host, as in NVIDIA's DGX and HGX H100; simulated CPU hosts have the same."""

MOST = 1024
KINDS = ("cpu", "h100")
PACKAGES = ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")
"""Packages that describe GPUs and compile for them; the first two have the version of JAX."""

RESHARDED = "Involuntary full rematerialization"
"""Text of XLA's warning that it gathers a whole array because two shardings are incompatible."""

ANSWER = "a2fjax.plan: "
"""Prefix of the line in a child's output that holds its answer."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of identical devices.

    Attributes:
      kind: one of `KINDS`.
      devices: number of devices; each group of eight is a host.
    """

    kind: str
    devices: int

    @property
    def name(self) -> str:
        """Name in the format of `parse`, such as "cpu:64"."""
        return f"{self.kind}:{self.devices}"

    @property
    def hosts(self) -> int:
        """Number of hosts; the last CPU host may have fewer devices."""
        return -(-self.devices // PER_HOST)


def parse(text: str) -> list[Topology]:
    """Parses topologies: "cpu:64", or several as "h100:8,h100:64".

    Raises:
      InputError: the text is invalid; the message names the part, the expected format and the
        nearest valid value.
    """
    parsed = []
    for part in text.split(","):
        kind, colon, number = part.strip().partition(":")
        if kind.lower() not in KINDS:
            raise InputError(f"--devices {part}: unknown kind {kind!r}{nearest(kind, KINDS)}")
        if not colon or not re.fullmatch(r"[0-9]+", number):
            raise InputError(f"--devices {part}: expected KIND:COUNT, such as {kind.lower()}:64")
        count = int(number)
        if not 1 <= count <= MOST:
            near = min(max(count, 1), MOST)
            raise InputError(f"--devices {part}: expected 1 to {MOST} devices; nearest is {near}")
        if kind.lower() == "h100" and count > PER_HOST and count % PER_HOST:
            near = max(PER_HOST, round(count / PER_HOST) * PER_HOST)
            raise InputError(
                f"--devices {part}: hosts have {PER_HOST} GPUs: expected up to {PER_HOST}, or a "
                f"multiple; the nearest is h100:{near}"
            )
        parsed.append(Topology(kind.lower(), count))
    return parsed


def missing(topology: Topology) -> str:
    """Returns the command that installs the missing packages for a topology, "" if none is missing.

    Raises:
      InputError: an installed package has another version than JAX.
    """
    if topology.kind == "cpu":
        return ""
    jax = importlib.metadata.version("jax")
    wanted = [f"{PACKAGES[0]}=={jax}", f"{PACKAGES[1]}=={jax}", PACKAGES[2]]
    absent = []
    for package, requirement in zip(PACKAGES, wanted, strict=True):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            absent.append(requirement)
            continue
        if "==" in requirement and version != jax:
            raise InputError(
                f"--devices {topology.name}: {package} is {version} and jax is {jax}: expected the "
                f"same; pip install --no-deps {requirement}"
            )
    return f"pip install --no-deps {' '.join(absent)}" if absent else ""


def not_here(topology: Topology, install: str) -> InputError:
    """Returns the error for missing packages, with the command from `missing`."""
    return InputError(
        f"--devices {topology.name}: compiling for GPUs that are not here needs packages that are "
        f"not here either: {install}"
    )


def environment(topology: Topology) -> dict[str, str]:
    """Returns the environment of the process that compiles for a topology."""
    out = dict(os.environ)
    flags = out.get("XLA_FLAGS", "").split()
    flags = [f for f in flags if not f.startswith("--xla_force_host_platform_device_count")]
    out["XLA_FLAGS"] = " ".join(flags)
    out["TF_CPP_MIN_LOG_LEVEL"] = "1"  # Keep warnings, because `look` returns them.
    root = str(Path(__file__).resolve().parents[2])
    out["PYTHONPATH"] = os.pathsep.join(filter(None, [root, out.get("PYTHONPATH", "")]))
    out.pop("JAX_PLATFORMS", None)
    out.pop("JAX_NUM_CPU_DEVICES", None)
    if topology.kind == "cpu":
        out["JAX_PLATFORMS"] = "cpu"
    else:
        # Without a driver the plugin would refuse to start; with one, it must allocate no memory.
        out["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
        out["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return out


def look(
    resolved: config_lib.Resolved,
    topology: Topology,
    *,
    batch_per_device: int | None = None,
    hlo: str | Path | None = None,
) -> dict[str, Any]:
    """Compiles the training step of an experiment for a topology, in a separate process.

    Args:
      resolved: the experiment.
      topology: the devices.
      batch_per_device: batch size per device; replaces `data.batch_size`, the global batch size.
      hlo: output file for the text of the compiled program.

    Returns:
      Statistics of `compile_stats.find`, and "warnings", XLA's warnings about arrays that it
      gathers as a whole.

    Raises:
      InputError: packages are missing, or the experiment does not fit the devices.
      WorkFailed: XLA cannot compile the step, or the process ended without an answer.
    """
    install = missing(topology)
    if install:
        raise not_here(topology, install)
    request = {
        "resolved": resolved.to_json(),
        "kind": topology.kind,
        "devices": topology.devices,
        "batch_per_device": batch_per_device,
        "hlo": str(hlo) if hlo else None,
    }
    done = subprocess.run(
        [sys.executable, "-m", "a2fjax.plan.compile_stats"],
        input=json.dumps(request),
        env=environment(topology),
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    if not lines:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise WorkFailed(
            f"{topology.name}: the compiling process ended with {done.returncode}: "
            f"{said[-1] if said else 'it said nothing'}"
        )
    answer: dict[str, Any] = json.loads(lines[-1].removeprefix(ANSWER))
    if "error" in answer:
        raise InputError(f"{topology.name}: {answer['error']}")
    if "failed" in answer:
        raise WorkFailed(f"{topology.name}: XLA cannot compile the step: {answer['failed'][:300]}")
    answer["warnings"] = [line for line in done.stderr.splitlines() if RESHARDED in line]
    return answer
