"""Containers of Slurm jobs: pyxis (options of srun) or Apptainer (a command before the worker)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from a2fjax.errors import InputError, nearest
from launch.jobs.spec import JobSpec
from launch.schedulers.base import Option

RUNTIMES = ("pyxis", "apptainer")
FLAGS = (
    Option(
        name="container_image", help="image, such as /shared/a2fjax.sqsh or .sif", metavar="IMAGE"
    ),
    Option(
        name="container_mounts",
        help="further mount beside those of the job's own paths; may be repeated",
        repeated=True,
        metavar="PATH[:PATH[:ro]]",
    ),
    Option(name="container_runtime", help="pyxis (default) or apptainer", metavar="NAME"),
)
"""Command-line options; a profile has the same keys."""

_IMAGE = re.compile(r"[^\s\0'\"\\\\]+")
# Set by the script for every step.
_PORTS = ("A2F_PORT", "JAX_COORDINATOR_PORT")


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the options of containers and returns all of them, as JSON.

    Raises:
      InputError: one has the wrong form, or belongs to an image that is not given.
    """
    image, runtime = given.get("container_image"), given.get("container_runtime")
    mounts = list(given.get("container_mounts") or [])
    if runtime is not None and runtime not in RUNTIMES:
        raise InputError(f"--container-runtime {runtime}{nearest(runtime, RUNTIMES)}")
    if image is None:
        for name, value in (("mounts", mounts), ("runtime", runtime)):
            if value:
                raise InputError(f"--container-{name}: is for jobs with --container-image")
    elif not _IMAGE.fullmatch(image):
        raise InputError(f"--container-image {image!r}: expected a name without spaces or quotes")
    elif image.startswith((".", "~")) or re.fullmatch(r"[^:#]+\.(sqsh|sif)", image):
        if not image.startswith("/"):
            raise InputError(f"--container-image {image}: expected an absolute path")
    for mount in mounts:
        _check_mount(mount)
    return {
        "container_image": image,
        "container_mounts": mounts,
        "container_runtime": (runtime or RUNTIMES[0]) if image else None,
    }


def mounted(paths: Sequence[str]) -> list[str]:
    """Returns the folders and files that a container must mount to see paths.

    A path that does not exist yet is seen through the nearest folder that does.

    Raises:
      InputError: a path cannot be mounted.
    """
    existing = {_existing(path) for path in paths}
    for path in existing:
        if re.search(r"[,:\\\\]", path):
            raise InputError(f"{path}: holds ',', ':' or a backslash, which no mount can name")
    inside = [PurePosixPath(path) for path in existing]
    return sorted(
        str(path) for path in inside if not any(other in path.parents for other in inside)
    )


def of_srun(spec: JobSpec) -> list[str]:
    """Returns the options of srun that start a step in its container; [] without pyxis."""
    values = spec.options
    if not values.get("container_image") or values["container_runtime"] != "pyxis":
        return []
    # Variables of the image would win over those of the job.
    names = ",".join(sorted({*spec.environment, *_PORTS}))
    return [
        f"--container-image={values['container_image']}",
        f"--container-mounts={_joined(values)}",
        f"--container-workdir={spec.directory}",
        f"--container-env={names}",
    ]


def before_command(spec: JobSpec) -> list[str]:
    """Returns the words before a command that run it in its container; [] without Apptainer."""
    values = spec.options
    if not values.get("container_image") or values["container_runtime"] != "apptainer":
        return []
    gpus = ["--nv"] if spec.resources.gpus else []
    binds = ["--bind", _joined(values), "--pwd", spec.directory]
    return ["apptainer", "exec", *gpus, *binds, values["container_image"]]


def _joined(values: Mapping[str, Any]) -> str:
    given = [mount if ":" in mount else f"{mount}:{mount}" for mount in values["container_mounts"]]
    own = [f"{path}:{path}" for path in values.get("container_paths", [])]
    return ",".join(dict.fromkeys([*own, *given]))


def _existing(path: str) -> str:
    """Returns a path, or its nearest parent that exists."""
    existing = Path(os.path.normpath(path))
    while not existing.exists():
        existing = existing.parent
    if existing == Path("/"):
        raise InputError(f"{path}: does not exist, nor does a folder above it to mount")
    return str(existing)


def _check_mount(text: str) -> None:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if (
        not source.startswith("/")
        or (rest and not target.startswith("/"))
        or mode not in ("", "ro", "rw")
        or re.search(r"[,\s\0\\\\]", text)
    ):
        raise InputError(f"--container-mounts {text}: expected PATH, PATH:PATH or PATH:PATH:ro")
