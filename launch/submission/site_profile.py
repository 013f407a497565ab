"""Reads a site's defaults from a TOML file that its users share.

    partition = "h100"              # also account, qos, constraint, time, mem, array_limit
    gpus = 8                        # GPUs of a node, unless --gpus is given
    gpu_option = "gres"             # --gres=gpu:N (with gpu_type: --gres=gpu:TYPE:N); default
                                    # "gpus-per-node"
    cpus_per_node = 96
    layout = "per-node"             # or "per-gpu"
    notice_seconds = 300            # before the time limit and preemption
    python = "/shared/venv/bin/python"
    container_image = "/shared/a2fjax.sqsh"
    container_runtime = "pyxis"     # or "apptainer"
    container_mounts = ["/scratch"] # beside the job's own paths
    setup = ["module load cuda"]    # lines of the job's script, verbatim
    sbatch = ["--exclusive"]        # options of sbatch
    srun = ["--cpu-bind=cores"]     # options of srun
    pass = ["WANDB_API_KEY"]        # variables that jobs need; their values are never written
    [environment]
    NCCL_SOCKET_IFNAME = "ib0"
    [kubernetes]                    # keys: the flags of Kubernetes, and those of its pods' Secrets
    image = "registry.example.org/a2fjax:1.2"
    allow_tag = true
    volume = ["scans:/data"]
    secret_keys.WANDB_API_KEY = "wandb/key"
    [arrays]                        # the same keys, and cpus, for builds and caches; gpus,
    cpus = 4                        # cpus_per_node, mem and layout above are not theirs
    [arrays.kubernetes]
    queue = "cpu"

Options of other schedulers are in a table named after the scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from a2fjax import budgets, printing
from a2fjax.errors import InputError, nearest
from launch import schedulers
from launch.jobs.spec import LAYOUTS

KEYS: dict[str, Any] = {
    "partition": str,
    "account": str,
    "qos": str,
    "constraint": str,
    "time": str,
    "mem": str,
    "array_limit": int,
    "gpus": int,
    "gpu_option": str,
    "gpu_type": str,
    "cpus_per_node": int,
    "layout": str,
    "notice_seconds": int,
    "python": str,
    "container_image": str,
    "container_runtime": str,
    "container_mounts": list,
    "setup": list,
    "sbatch": list,
    "srun": list,
    "pass": list,
    "environment": dict,
}
ARRAYS = "arrays"
_OF_NODES = ("gpus", "cpus_per_node", "mem", "layout")
GPU_OPTIONS = ("gpus-per-node", "gres")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_SECRET = re.compile(
    r"(?:^|_)(?:(?:API)?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE
)
_KINDS = {str: "a string", int: "a whole number", list: "a list of strings", dict: "a table"}


def read(path: str | None, *, arrays: bool = False) -> dict[str, Any]:
    """Returns the content of a profile; {} without one.

    Args:
      path: the file.
      arrays: whether the values are for a build or cache rather than a run.

    Raises:
      InputError: names the file, the key, the expected value and the nearest valid key.
    """
    if path is None:
        return {}
    file = Path(path)
    try:
        values = budgets.load_toml(file)
    except InputError as error:
        near = sorted(str(p) for p in file.parent.glob("*.toml")) if file.parent.is_dir() else []
        why = nearest(path, near) if not file.exists() else ""
        raise InputError(f"--profile {error}{why}") from None
    if not values:
        raise InputError(f"--profile {path}: has no settings; leave --profile out to use none")
    for key, value in values.items():
        _check(f"--profile {path}: ", key, value)
    own = values.pop(ARRAYS, {})
    for key, value in own.items():
        _check(f"--profile {path}: {ARRAYS}.", key, value)
    return _of_array(values, own) if arrays else values


def _of_array(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values for arrays: tables are joined, and sizes of nodes are left out."""
    result = {k: v for k, v in values.items() if k not in _OF_NODES}
    for key, value in own.items():
        result[key] = {**result.get(key, {}), **value} if isinstance(value, dict) else value
    if "cpus" in result:
        result["cpus_per_node"] = result.pop("cpus")
    return result


def _check(start: str, key: str, value: Any) -> None:
    where = start + key
    keys = {**dict.fromkeys(schedulers.names(), dict), **KEYS}
    keys |= {"cpus": int} if start.endswith(f"{ARRAYS}.") else {ARRAYS: dict}
    if key not in keys:
        raise InputError(f"{where}: is no key of a profile{nearest(key, keys)}")
    kind = keys[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where} = {value!r}: expected {_KINDS[kind]}")
    if kind is list and not all(isinstance(v, str) and "\0" not in v for v in value):
        raise InputError(f"{where} = {value!r}: expected a list of strings")
    if kind is int and value < 0:
        raise InputError(f"{where} = {value}: expected 0 or more")
    choices = {"layout": LAYOUTS, "gpu_option": GPU_OPTIONS}.get(key)
    if choices and value not in choices:
        raise InputError(f"{where} = {value!r}{nearest(value, choices)}")
    if key == "environment":
        check_environment(value, where)
    if key == "pass":
        for name in value:
            check_variable(name, where)


def check_environment(values: Mapping[str, Any], where: str) -> None:
    """Checks the names and values of environment variables for jobs.

    Raises:
      InputError: a name is not valid, or a value looks like a secret.
    """
    for name, value in values.items():
        check_variable(name, where)
        if not isinstance(value, str) or "\0" in value:
            raise InputError(f"{where}.{name} = {value!r}: expected a string")
        if _SECRET.search(name) or printing.secret_in(name, value):
            raise InputError(
                f"{where}.{name}: looks like a secret, and values are written to files; set it in "
                f'your environment and set pass = ["{name}"]'
            )


def check_variable(name: str, where: str) -> str:
    """Returns the name of an environment variable after checking it.

    Raises:
      InputError: the name is not valid.
    """
    if not _VARIABLE.fullmatch(name):
        raise InputError(f"{where} {name!r}: expected a variable, such as WANDB_API_KEY")
    return name
