"""A sample of a diffusion model with NumPy and ONNX Runtime alone; nothing of a2fjax is installed.

    python denoise_numpy.py BUNDLE in.wav > out.csv
    python denoise_numpy.py BUNDLE in.wav noise.npy > out.csv

in.wav holds 16-bit PCM at 16 kHz; of several channels the mean is taken. noise.npy holds noise
[1 + visits, T, 72]: the start, then what each visit may draw; without it, it is drawn from a seed.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np
import onnxruntime


def read_wav(path):
    """Returns samples [S] float32 of a 16-bit WAV file at 16 kHz."""
    with wave.open(path) as file:
        rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
        if (rate, width) != (16_000, 2):
            sys.exit(f"{path}: {rate} Hz, {8 * width} bits; expected 16000 Hz, 16 bits")
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return (data.reshape(-1, channels).mean(axis=1) / 32768).astype(np.float32)


def sample(bundle, samples, noise=None):
    """Returns channel names and a sample of the motion [T, 72]."""
    manifest = json.loads(Path(bundle, "a2fjax.json").read_text())
    facts = manifest["graphs"]["onnx/denoise.onnx"]
    loop, hop, stride = facts["sampler"], manifest["rates"]["hop"], facts["stride"]
    if loop["guided"]:
        sys.exit(f"guidance of {loop['guided']}: this program does without guidance")
    length = -(-len(samples) // hop)
    frames = -(-length // stride) * stride
    if noise is None:
        shape = (frames, 1 + len(loop["alpha"]), len(manifest["channels"]))
        noise = np.random.default_rng(0).standard_normal(shape).swapaxes(0, 1)
    opened = {
        name: onnxruntime.InferenceSession(str(Path(bundle, "onnx", f"{name}.onnx")))
        for name in ("conditions", "denoise")
    }
    emotion = np.eye(len(manifest["emotions"]), dtype=np.float32)[0]  # neutral
    given = {"emotion": np.tile(emotion, (1, frames, 1))}
    for tensor in opened["conditions"].get_inputs():
        if tensor.name == "identity":  # zeros: the mean identity
            given["identity"] = np.zeros((1, tensor.shape[1]), np.float32)
    audio = np.pad(samples, (0, frames * hop - len(samples)))[None]
    counts = {
        "samples": np.array([len(samples)], np.int32),
        "speech_level": np.zeros(1, np.float32),
    }
    coarse, context = opened["conditions"].run(None, {"audio": audio, **counts, **given})
    given |= {"coarse": coarse, "context": context, "length": np.array([length], np.int32)}

    x, before = noise[:1].astype(np.float32), 0.0
    for i in range(len(loop["alpha"])):
        level = {name: np.array([loop[name][i]], np.float32) for name in ("alpha", "sigma")}
        (now,) = opened["denoise"].run(None, {"noisy": x, **level, **given})
        x = loop["clean"][i] * (now + loop["change"][i] * (now - before)) + loop["noisy"][i] * x
        x, before = np.float32(x + loop["fresh"][i] * noise[1 + i]), now
    low, high = ([channel[end] for channel in manifest["channels"]] for end in ("low", "high"))
    motion = np.clip(np.array(facts["motion_mean"]) + np.array(facts["motion_std"]) * x, low, high)
    return [channel["name"] for channel in manifest["channels"]], motion[0, :length]


if __name__ == "__main__":
    noise = np.load(sys.argv[3]) if len(sys.argv) > 3 else None
    channels, motion = sample(sys.argv[1], read_wav(sys.argv[2]), noise)
    print(",".join(["time", *channels]))
    for t, frame in enumerate(motion):
        print(",".join([f"{t / 50:.3f}", *(f"{value:.7f}" for value in frame)]))
