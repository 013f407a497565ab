"""Small real shards for the tests of the data room."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from a2fjax import rig
from a2fjax.audio import num_frames
from a2fjax.config import AugmentConfig, Config, DataConfig
from a2fjax.data import records


def head(rings: int, jitter: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A closed-but-for-the-poles ellipsoid with a nose: vertices and faces."""
    random = np.random.default_rng(seed)
    theta = np.linspace(0.05, np.pi - 0.05, rings)
    phi = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    theta, phi = np.meshgrid(theta, phi, indexing="ij")
    theta = theta + jitter * random.standard_normal(theta.shape) / rings
    phi = phi + jitter * random.standard_normal(phi.shape) / rings
    direction = np.stack(
        [np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1
    )
    nose = np.exp(-((direction - [0, 0, 1]) ** 2).sum(-1) / 0.05)
    vertices = direction * (1 + 0.25 * nose)[..., None] * [0.8, 1.3, 1.0] * 9.0
    index = np.arange(vertices[..., 0].size).reshape(theta.shape)
    a, b = index[:-1], index[1:]
    c, d = np.roll(a, -1, 1), np.roll(b, -1, 1)
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    return vertices.reshape(-1, 3).astype(np.float32), faces.astype(np.int32)


def clip(number: int, seconds: float = 3.0, split: str = "train", **changes) -> records.Clip:
    """A buzz that comes and goes over room noise; the mouth follows its envelope."""
    random = np.random.default_rng(number)
    samples = int(seconds * 16000)
    time = np.arange(samples) / 16000
    envelope = np.clip(np.sin(2 * np.pi * 1.1 * (time - 0.3)), 0, None)
    audio = 0.2 * envelope * np.sign(np.sin(2 * np.pi * (110 + 5 * number) * time))
    audio += 2e-4 * random.standard_normal(samples)
    frames = num_frames(samples)
    motion = np.zeros((frames, 72), np.float32)
    motion[:, rig.INDEX["jawOpen"]] = 0.7 * envelope[::320]
    motion[:, rig.INDEX["mouthSmileLeft"]] = 0.3
    motion[:, rig.INDEX["eyeBlinkLeft"]] = np.arange(frames) % 50 < 5
    motion[:, rig.INDEX["rightEyeRotY"]] = 10.0 * np.sin(time[::320])
    emotion = np.zeros((frames, 5), np.float32)
    emotion[:, number % 5] = 1.0
    values = {
        "id": f"s{number % 3}/{split}{number:03d}",
        "subject": f"s{number % 3}",
        "sentence": f"{split}-{number}",
        "language": "en",
        "split": split,
        "audio": audio.astype(np.float32),
        "motion": motion,
        "channel_mask": np.arange(72) != rig.INDEX["tongueOut"],
        "frame_mask": np.ones(frames, np.bool_),
        "emotion": emotion,
        "speech_level": 0.14,
        "synthetic": True,
    }
    return records.Clip(**(values | changes))


def write(folder: Path, clips: list[records.Clip], shards: int = 3) -> Path:
    """Writes clips round robin into shards of one record a chunk; subject s2 has no mesh."""
    folder.mkdir(parents=True)
    parts = [clips[k::shards] for k in range(shards)]
    found = []
    for k, part in enumerate(parts):
        file = f"clips-{k:05d}-of-{shards:05d}.arrayrecord"
        writer = ArrayRecordWriter(str(folder / file), "group_size:1")
        for each in part:
            writer.write(records.encode(each))
        writer.close()
        found.append(records.Shard(file, [records.index_entry(c) for c in part]))
    subjects = []
    for k, name in enumerate(sorted({c.subject for c in clips})):
        mesh = None if name == "s2" else f"subjects/{name}.npz"
        if mesh:
            records.write_mesh(folder / mesh, *head(16 + 3 * k))
        subjects.append(records.Subject(name, mesh, False))
    manifest = records.Manifest(subjects, found, [True] * 72, {}, True, {})
    records.write_manifest(folder, manifest)
    return folder


def make_config(*folders: Path, augment: AugmentConfig | None = None, **data) -> Config:
    values = {"batch_size": 8, "window_frames": 64, "identity_points": 32, **data}
    return Config(
        seed=3,
        data=DataConfig(
            shards=tuple(str(f) for f in folders),
            augment=augment or AugmentConfig(silence_prob=0.5, mirror_prob=0.5),
            **values,
        ),
    )


@dataclasses.dataclass
class Builder:
    """What the tests build with; a fixture, because test folders are not packages."""

    head = staticmethod(head)
    clip = staticmethod(clip)
    write = staticmethod(write)
    config = staticmethod(make_config)


@pytest.fixture(scope="session")
def build() -> Builder:
    return Builder()


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """14 training clips of 1 to 4.9 s, 3 of val, in three shards."""
    clips = [clip(k, seconds=1.0 + 0.3 * k) for k in range(14)]
    clips += [clip(k, split="val") for k in range(20, 23)]
    return write(tmp_path_factory.mktemp("set") / "shards", clips)
