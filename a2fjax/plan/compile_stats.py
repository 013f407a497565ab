"""Compiles a training step for devices that are not available, and reports program statistics.

`topologies.look` runs this module as a process, which reads a request from standard input and
prints one line.

The compiler gets a text description of the GPUs (XLA's `GpuTargetConfigProto`). Its figures come
from NVIDIA's "H100 Tensor Core GPU" data sheet and the "CUDA C++ Programming Guide" (compute
capability 9.0). Without a device there is no autotuning, so the compiler guesses which kernels to
use.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
import types
from pathlib import Path
from typing import Any

import jax

from a2fjax import configuration as config_lib
from a2fjax import tasks
from a2fjax.batch import Batch
from a2fjax.data import loader
from a2fjax.errors import InputError
from a2fjax.models import params as params_lib
from a2fjax.plan import collectives, hlo
from a2fjax.plan.topologies import ANSWER, PER_HOST, Topology
from a2fjax.sharding import device_mesh
from a2fjax.tasks.base import Task
from a2fjax.training import compiled_steps

H100 = """gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84978434048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

_OPTIONS: dict[str, dict[str, bool | int]] = {
    # Skips optimisation of the machine code; only the HLO program is needed.
    "cpu": {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
    # XLA selects its own matrix-product kernels by timing them on the device. Without a device,
    # its choice may fail to compile, so cuBLAS is used instead.
    "h100": {"xla_gpu_enable_triton_gemm": False, "xla_llvm_disable_expensive_passes": True},
}


def describe(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a topology; JAX must not have used its CPU devices before."""
    if topology.kind == "cpu":
        jax.config.update("jax_num_cpu_devices", topology.devices)
        return list(jax.devices("cpu"))
    from jax.experimental import topologies

    # Slices x hosts x GPUs per host.
    shape = f"1x{topology.hosts}x{min(PER_HOST, topology.devices)}"
    described = topologies.get_topology_desc(
        platform="cuda", target_config=H100, topology=shape
    ).devices
    return sorted(described, key=lambda device: device.id)


def batch_spec(config: config_lib.Config, task: Task) -> Batch:
    """Returns a global batch of `jax.ShapeDtypeStruct`s without reading shards.

    Args:
      config: configuration of the experiment.
      task: task whose encoders determine the cached features of a batch, if caching is enabled.
    """
    cached = config.data.encoder_features == "cached"
    read: dict[str, Any] = dict(task.model.audio_features.encoders) if cached else {}
    return loader.spec(config, cached=read)


def find(
    config: config_lib.Config, topology: Topology, *, text_to: str | Path | None = None
) -> dict[str, Any]:
    """Compiles the training step for a topology and returns statistics of the program.

    Args:
      config: configuration of the experiment; the batch size is that of all devices together.
      topology: the devices.
      text_to: file for the text of the compiled program.

    Returns:
      "parameters" (number of trained and constant parameters), "bytes" (of all trained parameters,
      and of the trained and constant ones that are sharded), "memory" (bytes on a device by use),
      "flops" (of a step on all devices, by kind), "collectives" (rows of `collectives.summary`),
      "kernels" (launched per step on a device), and the settings of the compilation.

    Raises:
      InputError: the experiment does not fit the devices.
    """
    devices = describe(topology)
    task = tasks.build(config)
    spec = batch_spec(config, task)
    if config.sharding.preset:
        # The preset needs one process per host, but all CPU devices belong to one process.
        hosts = [
            types.SimpleNamespace(process_index=i // PER_HOST, device_kind=devices[0].device_kind)
            for i in range(len(devices))
        ]
        size = compiled_steps.state_bytes(config, task, spec)
        chosen = device_mesh.resolve_preset(config.sharding, hosts, size)  # type: ignore[arg-type]
        config = dataclasses.replace(config, sharding=chosen)
    mesh = compiled_steps.build_mesh(config, task, spec, devices)
    made = compiled_steps.CompiledSteps(config, task, spec, mesh)
    began = time.perf_counter()
    lowered = made.lower()
    traced = time.perf_counter()
    compiled = lowered.compile(compiler_options=_OPTIONS[topology.kind])
    done = time.perf_counter()
    text = compiled.as_text()
    if text_to:
        Path(text_to).write_text(text)
    program = hlo.parse(text)
    memory = compiled.memory_analysis()
    trained, fixed = made.abstract.params, made.abstract.frozen
    return {
        "topology": topology.name,
        "devices": mesh.size,
        "hosts": -(-mesh.size // PER_HOST),
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "batch_size": config.data.batch_size,
        "window_frames": config.data.window_frames,
        "accumulate": config.accumulate,
        "remat": config.remat,
        "precision": config.precision,
        "parameters": {
            "trained": params_lib.count(trained),
            "constant": params_lib.count(fixed),
        },
        "bytes": {
            "trained": _bytes(trained),
            "trained_cut": _bytes(trained, cut=True),
            "constant_cut": _bytes(fixed, cut=True),
        },
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "aliased": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "flops": operations(config, task, spec, made),
        "flops_compiled": hlo.flops(program),
        "collectives": collectives.summary(collectives.count(program, mesh.size, PER_HOST)),
        "kernels": hlo.launches(program),
        "unknown_loops": hlo.unknown_loops(program),
        "seconds": {"trace": round(traced - began, 1), "compile": round(done - traced, 1)},
    }


def operations(
    config: config_lib.Config,
    task: Task,
    spec: Batch,
    made: compiled_steps.CompiledSteps,
) -> dict[str, int]:
    """Returns the floating point operations of a step on all devices, by kind (`models.flops`).

    They are counted before compiling, because a compiled GPU program does not state them. The count
    uses the batch in one part; a batch in several parts takes the same (a test compares them).
    """
    if config.accumulate > 1:
        config = dataclasses.replace(config, accumulate=1)
        made = compiled_steps.CompiledSteps(config, task, spec, made.mesh)
    return dict(made.operations())


def _bytes(tree: Any, *, cut: bool = False) -> int:
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if not (cut and leaf.sharding.is_fully_replicated)
    )


def main() -> None:
    """Reads a request from standard input and prints the answer as one line."""
    request = json.loads(sys.stdin.read())
    topology = Topology(request["kind"], request["devices"])
    try:
        config = config_lib.from_json(request["resolved"]).config
        if request["batch_per_device"]:
            taken = math.prod(device_mesh.shape(config.sharding, topology.devices))
            size = request["batch_per_device"] * (
                topology.devices if config.sharding.preset else taken
            )
            config = dataclasses.replace(
                config, data=dataclasses.replace(config.data, batch_size=size)
            )
        answer = find(config, topology, text_to=request["hlo"])
    except InputError as error:
        answer = {"error": str(error)}
    except jax.errors.JaxRuntimeError as error:
        answer = {"failed": str(error).splitlines()[0]}
    print(ANSWER + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
