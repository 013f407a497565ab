"""Parity and speed of audio encoders beside the PyTorch models their checkpoints come from.

    python benchmarks/encoders.py [--encoders wav2vec2-base ...] [--seconds 0.4 2 10] [--rounds 3]
                                  [--precision float32] [--json FILE]

Weights are random, each moved off where it starts, so what is compared is the arithmetic. Errors
are the largest absolute differences in the features that come out, of two items; with a mask, the
second has five eighths of the audio. Time is CPU time of the process (all threads): the two take
turns, so that other work on the machine hits both alike; medians of the rounds. Needs the extra
`torch`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files
from a2fjax.audio import SAMPLE_RATE
from a2fjax.audio import wav2vec2 as w

ENCODERS = {
    f"{kind}-{size}": dataclasses.replace(layout, model_type=kind)
    for kind in ("wav2vec2", "hubert")
    for size, layout in (("base", w.BASE), ("large", w.LARGE))
}
BOUND = 2e-5


def torch_model(layout: w.Layout, folder: Path) -> Any:
    """Returns a random model of transformers and leaves its checkpoint in `folder`."""
    import torch
    import transformers

    (folder / "config.json").write_text(json.dumps(layout.to_config()))
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape)
            if value.ndim == 1:
                value.copy_(float("norm" in name and name.endswith("weight")) + 0.1 * noise)
            elif name.endswith("original0"):
                value.mul_(1 + 0.3 * noise)
    model.save_pretrained(folder)
    return model.eval()


def voice(samples: int, seed: int) -> np.ndarray:
    """Returns harmonics in syllables over noise, zero mean and unit variance."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / SAMPLE_RATE
    sound = sum((np.sin(2 * np.pi * 120 * h * t + h) / h for h in range(1, 20)), np.zeros(samples))
    sound = sound * np.clip(np.sin(2 * np.pi * 3 * t), 0, None) + 0.05 * rng.normal(size=samples)
    return ((sound - sound.mean()) / sound.std()).astype(np.float32)


def clock(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def row(
    name: str,
    model: Any,
    encoder: w.Encoder,
    params: Any,
    seconds: float,
    masked: bool,
    rounds: int,
) -> dict[str, Any]:
    """Compares both on one length, with or without a mask."""
    import jax
    import jax.numpy as jnp
    import torch

    samples = round(SAMPLE_RATE * seconds)
    audio = np.stack([voice(samples, 0), voice(samples, 1)])
    mask, options = None, {}
    if masked:
        lengths = np.array([samples, samples * 5 // 8])
        exists = np.arange(samples) < lengths[:, None]
        audio = np.where(exists, audio, 0).astype(np.float32)
        mask = torch.tensor(exists.astype(np.int64))
        options = {"lengths": jnp.asarray(lengths), "count_padding": True}

    def theirs() -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor(audio), attention_mask=mask).last_hidden_state.numpy()

    apply = jax.jit(lambda p, a: encoder.apply(p, a, **options).features)

    def ours() -> np.ndarray:
        return np.asarray(apply(params, audio))

    expected, got = theirs(), ours()
    times = [(clock(theirs), clock(ours)) for _ in range(rounds)]
    return {
        "encoder": name,
        "seconds": seconds,
        "mask": masked,
        "largest": float(np.abs(expected).max()),
        "error": float(np.abs(got - expected).max()),
        "torch_cpu_s": statistics.median(t for t, _ in times),
        "jax_cpu_s": statistics.median(o for _, o in times),
        "ratio": statistics.median(o / t for t, o in times),
    }


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.4, 2.0, 10.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--torch-threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import jax
    import torch

    torch.set_num_threads(args.torch_threads)
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, PyTorch {torch.__version__}")
    print(f"{'encoder':15} {'s':>5} mask  {'error':>8} {'of':>5}  torch s  jax s  jax/torch")
    rows = []
    for name in args.encoders:
        with tempfile.TemporaryDirectory() as folder:
            model = torch_model(ENCODERS[name], Path(folder))
            encoder, params = w.Encoder.load(folder, precision=args.precision)
        params = jax.device_put(params)
        for seconds in args.seconds:
            for masked in (False, True):
                rows.append(row(name, model, encoder, params, seconds, masked, args.rounds))
                r = rows[-1]
                print(
                    f"{name:15} {seconds:5.1f} {'yes' if masked else 'no':4}  {r['error']:8.1e} "
                    f"{r['largest']:5.1f}  {r['torch_cpu_s']:7.2f} {r['jax_cpu_s']:6.2f}  "
                    f"{r['ratio']:9.2f}",
                    flush=True,
                )
    worst = max(r["error"] for r in rows)
    bound = f", bound {BOUND:.0e}" if args.precision == "float32" else ""
    print(f"largest difference {worst:.1e}{bound}")
    if args.json:
        files.write_text(args.json, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
