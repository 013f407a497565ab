"""Small real shards for the tests of the data room."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from a2fjax import rig
from a2fjax.audio import num_frames
from a2fjax.configuration import AugmentConfig, Config, DataConfig
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
    motion = np.concatenate([c.motion for c in clips])
    statistics = {
        "motion_mean": motion.mean(0).tolist(),
        "motion_std": motion.std(0).tolist(),
        "emotion_mean": {},
    }
    manifest = records.Manifest(subjects, found, [True] * 72, statistics, True, {})
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


def _random(shapes, seed: int):
    """Weights large enough that every part shows in the output."""
    import jax

    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = str(path[-1].key)
        fan = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 25.0
        scale = name == "scale" or (name == "weight" and leaf.ndim == 1)
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan) + scale).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def _packed(params) -> dict[str, np.ndarray]:
    """Weights of Whisper as an .npz holds them."""
    out = {"num_heads": np.int16(2), "position_encodings.encodings": params["positions"]}
    for name in ("conv1", "conv2"):
        out[f"{name}.weight"] = params[name]["kernel"].transpose(2, 1, 0)
        out[f"{name}.bias"] = params[name]["bias"]
    norms = {"layer_norm": params["final_norm"]}
    for i in range(sum(k.startswith("layers_") for k in params)):
        layer, at = params[f"layers_{i}"], f"layer_{i}."
        norms[f"{at}self_attention.layer_norm"] = layer["attention_norm"]
        norms[f"{at}ffn.layer_norm"] = layer["mlp_norm"]
        for part, name in (
            ("qkv", "self_attention.linear_0"),
            ("out", "self_attention.linear_1"),
            ("up", "ffn.linear_0"),
            ("down", "ffn.linear_1"),
        ):
            out[f"{at}{name}.weight"] = layer[part]["kernel"].T
            out[f"{at}{name}.bias"] = layer[part]["bias"]
    for name, norm in norms.items():
        out[f"{name}.gamma"], out[f"{name}.beta"] = norm["scale"], norm["bias"]
    return {f"encoder.{k}": np.asarray(v) for k, v in out.items()}


def tiny_encoder(folder: Path, kind: str, seed: int = 0) -> str:
    """Writes random weights of "base", "large" (wav2vec 2.0) or "whisper"; returns the feature."""
    import jax

    from a2fjax.encoders import wav2vec2, whisper

    folder.mkdir(parents=True, exist_ok=True)
    if kind == "whisper":
        network = whisper.WhisperEncoder(width=16, layers=2, heads=2, hidden=24, mels=20)
        params = _random(jax.eval_shape(network.init, jax.random.key(0)), seed)
        params["positions"] = whisper.sinusoids(*params["positions"].shape)
        np.savez(folder / "whisper.npz", **_packed(params))
        return f"whisper:{folder / 'whisper.npz'}"
    layout = wav2vec2.Wav2Vec2Config(
        conv_dim=(12, 12),
        conv_kernel=(40, 10),
        conv_stride=(40, 8),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    if kind == "large":
        layout = dataclasses.replace(
            layout, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True
        )
    params = wav2vec2.Wav2Vec2Encoder(layout).init(jax.random.key(seed))
    wav2vec2.save(folder / kind, layout, jax.tree.map(np.asarray, params))
    return f"wav2vec2:{folder / kind}"


@dataclasses.dataclass
class Builder:
    """What the tests build with; a fixture, because test folders are not packages."""

    head = staticmethod(head)
    clip = staticmethod(clip)
    write = staticmethod(write)
    config = staticmethod(make_config)
    tiny = staticmethod(tiny_encoder)


@pytest.fixture(scope="session")
def build() -> Builder:
    return Builder()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Feature names of random encoders by kind: "base", "large", "whisper"."""
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: tiny_encoder(folder, kind) for kind in ("base", "large", "whisper")}


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """14 training clips of 1 to 4.9 s, 3 of val, in three shards."""
    clips = [clip(k, seconds=1.0 + 0.3 * k) for k in range(14)]
    clips += [clip(k, split="val") for k in range(20, 23)]
    return write(tmp_path_factory.mktemp("set") / "shards", clips)
