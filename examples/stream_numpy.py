"""Live speech to curves with NumPy and ONNX Runtime alone; nothing of a2fjax is installed.

    python stream_numpy.py BUNDLE in.wav happy=0.7 sad=0.3 > out.csv

in.wav (16-bit PCM, 16 kHz, mono) is heard in blocks of 0.1 s, as from a microphone.
"""

import json
import sys
import wave
from pathlib import Path

import numpy as np
import onnxruntime


class Stream:
    """Motion of live audio: open, push samples of any number, take frames, reset."""

    def __init__(self, bundle, emotion):
        self.session = onnxruntime.InferenceSession(str(Path(bundle, "onnx", "step.onnx")))
        manifest = json.loads(Path(bundle, "a2fjax.json").read_text())
        self.channels = [channel["name"] for channel in manifest["channels"]]
        self.facts = manifest["graphs"]["onnx/step.onnx"]
        self.state = [f"in.{entry['name']}" for entry in self.facts["state"]]
        weights = {"neutral": 1 - sum(emotion.values())} | emotion
        self.emotion = np.float32([[weights.get(name, 0) for name in manifest["emotions"]]])
        self.reset()

    def reset(self):
        """Starts anew and forgets frames that were not taken."""
        inputs = self.facts["inputs"]
        zeros = {i["name"]: np.zeros([1, *i["shape"][1:]], i["dtype"]) for i in inputs}
        self.inputs = zeros | {"emotion": self.emotion, "active": np.ones(1, bool)}
        self.pending, self.ready = np.zeros(0, np.float32), []
        self.early = self.facts["look_ahead"]["frames"]  # The first calls return no frames.

    def push(self, samples):
        """Hears samples [S], 16 kHz mono."""
        self.pending = np.concatenate([self.pending, np.float32(samples)])
        while len(self.pending) >= self.facts["hop"]:
            block, self.pending = np.split(self.pending, [self.facts["hop"]])
            motion, *state = self.session.run(None, self.inputs | {"audio": block[None]})
            self.inputs |= zip(self.state, state, strict=True)
            self.ready += [motion[0, 0]] if self.early == 0 else []
            self.early = max(self.early - 1, 0)

    def frames(self):
        """Returns the rows [72] that are ready, and lets go of them."""
        ready, self.ready = self.ready, []
        return ready


if __name__ == "__main__":
    given = {name: float(value) for name, value in (a.split("=") for a in sys.argv[3:])}
    stream, rows = Stream(sys.argv[1], given), []
    with wave.open(sys.argv[2]) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    whole = -len(heard) % 320 + 320 * stream.early
    for block in np.array_split(np.pad(heard, (0, whole)), 1 + len(heard) // 1600):
        stream.push(block)  # Silence follows the end.
        rows += stream.frames()
    print(",".join(["time", *stream.channels]))
    for t, frame in enumerate(rows):
        print(",".join([f"{t / 50:.3f}", *(f"{value:.7f}" for value in frame)]))
