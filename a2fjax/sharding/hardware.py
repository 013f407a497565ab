"""Memory and speed of accelerators by name, from NVIDIA's data sheets."""

from __future__ import annotations

MEMORY = {"H100": 80e9, "H200": 141e9, "A100": 80e9, "L40S": 48e9, "L4": 24e9, "A10G": 24e9}
"""Memory of a device in bytes, by a word in the device's name."""

PEAKS = {
    "H100": (989.4e12, 494.7e12),
    "H200": (989.4e12, 494.7e12),
    "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12),
    "L4": (121e12, 60e12),
}
"""Peak dense operations per second of a device in bfloat16 and in TF32 (used for float32 products),
by a word in the device's name; from NVIDIA's data sheets, without sparsity."""


def peak(device_kind: str, precision: str) -> float | None:
    """Returns the peak operations per second of a kind of device, None if unknown."""
    for part, (half, single) in PEAKS.items():
        if part in device_kind.split() or part in device_kind.replace("-", " ").split():
            return half if precision == "bfloat16" else single
    return None
