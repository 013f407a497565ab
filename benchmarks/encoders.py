"""Parity and speed of speech encoders compared with the runtimes of their checkpoints.

    python benchmarks/encoders.py [--encoders wav2vec2-base ...] [--seconds 0.4 2 10] [--rounds 3]
                                  [--precision float32] [--whisper FOLDER] [--json FILE]

wav2vec 2.0 and HuBERT are compared with transformers' PyTorch models. Weights are random, each
shifted from its initial value, so the comparison covers the arithmetic only. Whisper is compared
with CTranslate2, with the weights of FOLDER (model.bin and its config.json; A2FJAX_WHISPER_CT2 by
default) and the same spectrogram, whose computation counts for a2fjax only.

Errors are the largest absolute differences of features, for two examples; with a mask, the second
has five eighths of the audio (CTranslate2 has no mask and runs that example separately). Time is
CPU time of the process (all threads). The two alternate, so that other work on the machine affects
both equally; results are medians of the rounds. Needs the extra `torch`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files
from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.encoders import wav2vec2, whisper

ENCODERS = {
    f"{kind}-{size}": dataclasses.replace(config, model_type=kind)
    for kind in ("wav2vec2", "hubert")
    for size, config in (("base", wav2vec2.BASE), ("large", wav2vec2.LARGE))
}
WHISPER = "whisper"
BOUND = 2e-5
"""Largest error with random weights; trained Whisper has larger values, and larger rounding."""


def torch_model(config: wav2vec2.Wav2Vec2Config, folder: Path) -> Any:
    """Returns a randomly initialised transformers model and saves its checkpoint in `folder`."""
    import torch
    import transformers

    (folder / "config.json").write_text(json.dumps(config.to_config()))
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
    """Returns syllables of harmonics over noise, with zero mean and unit variance."""
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
    encoder: wav2vec2.Wav2Vec2Encoder,
    params: Any,
    seconds: float,
    masked: bool,
    rounds: int,
) -> dict[str, Any]:
    """Compares both implementations for one length, with or without a mask."""
    import jax
    import jax.numpy as jnp
    import torch

    samples = round(SAMPLE_RATE * seconds)
    audio = np.stack([voice(samples, 0), voice(samples, 1)])
    mask, options = None, {}
    if masked:
        lengths = np.array([samples, samples * 5 // 8])
        valid = np.arange(samples) < lengths[:, None]
        audio = np.where(valid, audio, 0).astype(np.float32)
        mask = torch.tensor(valid.astype(np.int64))
        options = {"lengths": jnp.asarray(lengths), "count_padding": True}

    def reference() -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor(audio), attention_mask=mask).last_hidden_state.numpy()

    apply = jax.jit(lambda p, a: encoder.apply(p, a, **options).features)

    def jax_output() -> np.ndarray:
        return np.asarray(apply(params, audio))

    return compared(name, seconds, masked, reference, jax_output, rounds)


def compared(
    name: str,
    seconds: float,
    masked: bool,
    reference: Callable[[], np.ndarray],
    jax_output: Callable[[], np.ndarray],
    rounds: int,
) -> dict[str, Any]:
    expected, got = reference(), jax_output()
    times = [(clock(reference), clock(jax_output)) for _ in range(rounds)]
    return {
        "encoder": name,
        "seconds": seconds,
        "mask": masked,
        "largest": float(np.abs(expected).max()),
        "error": float(np.abs(got - expected).max()),
        "reference_cpu_s": statistics.median(t for t, _ in times),
        "jax_cpu_s": statistics.median(o for _, o in times),
        "ratio": statistics.median(o / t for t, o in times),
    }


def whisper_row(
    model: Any,
    encoder: whisper.WhisperEncoder,
    params: Any,
    seconds: float,
    masked: bool,
    rounds: int,
) -> dict[str, Any]:
    """Compares Whisper's encoder with CTranslate2's for one length."""
    import ctranslate2
    import jax

    frames = round(SAMPLE_RATE * seconds) // HOP
    lengths = np.array([frames, frames * 5 // 8 if masked else frames]) * HOP
    audio = np.stack([0.05 * voice(frames * HOP, 0), 0.05 * voice(frames * HOP, 1)])
    rows = [audio[i : i + 1, :n] for i, n in enumerate(lengths)]
    spectra = [
        np.ascontiguousarray(np.asarray(whisper.log_mel(row, bins=encoder.mels)).swapaxes(1, 2))
        for row in (rows if masked else [audio])
    ]

    def reference() -> np.ndarray:
        result = [
            np.array(model.encode(ctranslate2.StorageView.from_array(each))) for each in spectra
        ]
        return np.concatenate([each.reshape(-1, encoder.width) for each in result])

    options = {"length": lengths} if masked else {}
    apply = jax.jit(lambda p, a: encoder.apply(p, a, **options))

    def jax_output() -> np.ndarray:
        features = np.asarray(apply(params, audio))
        return np.concatenate([features[i, : n // HOP] for i, n in enumerate(lengths)])

    return compared(WHISPER, seconds, masked, reference, jax_output, rounds)


def whisper_rows(
    args: argparse.Namespace,
    cases: list[tuple[float, bool]],
    show: Callable[[dict[str, Any]], None],
) -> None:
    """Compares Whisper for all lengths, or prints why this is impossible."""
    import jax

    if args.whisper is None:
        print(f"{WHISPER:15} skipped: no CTranslate2 model; give --whisper FOLDER")
        return
    try:
        import ctranslate2
    except ImportError:
        print(f"{WHISPER:15} skipped: ctranslate2 is not installed (extra torch)")
        return
    if args.precision != "float32":
        print(f"{WHISPER:15} skipped: only float32 is compared with CTranslate2")
        return
    encoder, params = whisper.load(args.whisper)
    params = jax.device_put(params)
    model = ctranslate2.models.Whisper(
        args.whisper, compute_type="float32", intra_threads=args.torch_threads
    )
    for seconds, masked in cases:
        show(whisper_row(model, encoder, params, seconds, masked, args.rounds))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*ENCODERS, WHISPER]
    parser.add_argument("--encoders", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.4, 2.0, 10.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--torch-threads", type=int, default=1)
    parser.add_argument("--whisper", default=os.environ.get("A2FJAX_WHISPER_CT2"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import jax
    import torch

    torch.set_num_threads(args.torch_threads)
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, PyTorch {torch.__version__}")
    print(f"{'encoder':15} {'s':>5} mask  {'error':>8} {'of':>5}  ref. s  jax s  jax/ref.")
    rows = []

    def show(result: dict[str, Any]) -> None:
        rows.append(result)
        print(
            f"{result['encoder']:15} {result['seconds']:5.1f} {'yes' if result['mask'] else 'no':4}"
            f"  {result['error']:8.1e} {result['largest']:5.1f}  {result['reference_cpu_s']:7.2f} "
            f"{result['jax_cpu_s']:6.2f}  {result['ratio']:9.2f}",
            flush=True,
        )

    cases = [(seconds, masked) for seconds in args.seconds for masked in (False, True)]
    for name in args.encoders:
        if name == WHISPER:
            whisper_rows(args, cases, show)
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = torch_model(ENCODERS[name], Path(folder))
            encoder, params = wav2vec2.Wav2Vec2Encoder.load(folder, precision=args.precision)
        params = jax.device_put(params)
        for seconds, masked in cases:
            show(row(name, model, encoder, params, seconds, masked, args.rounds))
    random = [r["error"] for r in rows if r["encoder"] != WHISPER]
    if random:
        bound = f", bound {BOUND:.0e}" if args.precision == "float32" else ""
        print(f"largest difference with random weights {max(random):.1e}{bound}")
    if args.json:
        files.write_text(args.json, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
