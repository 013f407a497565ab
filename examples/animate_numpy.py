"""Speech to curves with NumPy and ONNX Runtime alone; nothing of a2fjax is installed.

    python animate_numpy.py BUNDLE in.wav > out.csv
    python animate_numpy.py BUNDLE in.wav happy=0.7 sad=0.3 > out.csv

in.wav holds 16-bit PCM at 16 kHz; of several channels the mean is taken.
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


def animate(bundle, samples, emotion):
    """Returns channel names and the motion [T, 72] of samples [S]."""
    manifest = json.loads(Path(bundle, "a2fjax.json").read_text())
    hop = manifest["rates"]["hop"]
    frames = -(-len(samples) // hop)
    weights = {"neutral": 1 - sum(emotion.values())} | emotion
    row = [weights.get(name, 0.0) for name in manifest["emotions"]]
    inputs = {
        "audio": np.pad(samples, (0, frames * hop - len(samples)))[None],
        "samples": np.array([len(samples)], np.int32),
        "speech_level": np.zeros(1, np.float32),  # 0: measured by the graph
        "emotion": np.tile(np.float32(row), (1, frames, 1)),
    }
    session = onnxruntime.InferenceSession(str(Path(bundle, "onnx", "model.onnx")))
    for tensor in session.get_inputs():
        if tensor.name == "identity":  # zeros: the mean identity
            inputs["identity"] = np.zeros((1, tensor.shape[1]), np.float32)
    (motion,) = session.run(["motion"], inputs)
    return [channel["name"] for channel in manifest["channels"]], motion[0]


if __name__ == "__main__":
    given = {name: float(value) for name, value in (a.split("=") for a in sys.argv[3:])}
    channels, motion = animate(sys.argv[1], read_wav(sys.argv[2]), given)
    print(",".join(["time", *channels]))
    for t, frame in enumerate(motion):
        print(",".join([f"{t / 50:.3f}", *(f"{value:.7f}" for value in frame)]))
