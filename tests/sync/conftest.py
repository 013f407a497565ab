"""A world in which motion follows from sound: bands of noise open, close and round a mouth."""

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.data import records

FRAMES = 200
BANDS = ((200, 500), (500, 1000), (1000, 2000), (2000, 4000))
CHANNELS = (
    "jawOpen",
    "mouthClose",
    "mouthPucker",
    "mouthSmileLeft",
    "mouthSmileRight",
    "browInnerUp",
)


def smooth(rng, count, cutoff=5.0):
    """Returns random curves [FRAMES, count] of about unit deviation, below `cutoff` Hz."""
    spectrum = np.fft.rfft(rng.standard_normal((FRAMES, count)), axis=0)
    spectrum[np.fft.rfftfreq(FRAMES, 1 / rig.FPS) > cutoff] = 0
    curves = np.fft.irfft(spectrum, FRAMES, axis=0)
    return curves / curves.std(0)


def make_clip(number, person, split, *, speech=True, channels=CHANNELS, language="en"):
    """Returns a clip whose channels follow the levels of the bands of its sound."""
    rng = np.random.default_rng([number, 7])
    levels = smooth(rng, len(BANDS))
    time = np.arange(FRAMES * 320) / 16_000
    audio = np.zeros(len(time))
    for (low, high), level in zip(BANDS, levels.T, strict=True):
        spectrum = np.fft.rfft(rng.standard_normal(len(time)))
        frequency = np.fft.rfftfreq(len(time), 1 / 16_000)
        spectrum[(frequency < low) | (frequency > high)] = 0
        band = np.fft.irfft(spectrum, len(time))
        audio += (
            band / band.std() * np.interp(time, np.arange(FRAMES) / rig.FPS, np.exp(0.8 * level))
        )
    audio = (0.1 * audio / audio.std()).astype(np.float32) * (1.0 if speech else 1e-4)
    size = 0.05 + 0.02 * (sum(map(ord, person)) % 5)
    mixed = levels @ np.array(
        [[1, -1, 0, 0.5, 0.5], [1, 0, 1, 0, 0], [0, 1, -1, 0, 0], [0, 0, 1, 1, 1]]
    )
    motion = np.zeros((FRAMES, rig.NUM_CHANNELS), np.float32)
    for name, curve in zip(CHANNELS, [*mixed.T, smooth(rng, 1)[:, 0]], strict=True):
        motion[:, rig.INDEX[name]] = np.clip(0.4 + size * curve, 0, 1)
    observed = np.isin(rig.CHANNELS, channels)
    motion *= observed
    emotion = np.zeros((FRAMES, rig.NUM_EMOTIONS), np.float32)
    emotion[:, number % 2] = 1
    return records.Clip(
        id=f"{person}/{number}",
        subject=person,
        sentence=f"{split}{number}",
        language=language,
        split=split,
        audio=audio,
        motion=motion,
        channel_mask=observed,
        frame_mask=np.ones(FRAMES, bool),
        emotion=emotion,
        speech_level=0.1,
        synthetic=True,
    )


def write_shards(folder, clips):
    """Writes clips as a build does."""
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(folder / "clips.arrayrecord"), "group_size:1")
    for clip in clips:
        writer.write(records.encode(clip))
    writer.close()
    training = {c.subject for c in clips if c.split == "train"}
    motion = np.concatenate([c.motion for c in clips if c.split == "train"] or [clips[0].motion])
    manifest = records.Manifest(
        subjects=[
            records.Subject(name, None, name not in training)
            for name in sorted({c.subject for c in clips})
        ],
        shards=[records.Shard("clips.arrayrecord", [records.index_entry(c) for c in clips])],
        channel_mask=np.any([c.channel_mask for c in clips], 0).tolist(),
        statistics={
            "motion_mean": motion.mean(0).tolist(),
            "motion_std": motion.std(0).tolist(),
            "emotion_mean": {},
        },
        synthetic=True,
        source={},
    )
    records.write_manifest(folder, manifest)
    return folder


def world(people=6, each=4, unseen=3):
    """Returns clips of all splits."""
    clips, number = [], 0
    for split, names, count in (
        ("train", [f"p{i}" for i in range(people)], each),
        ("val", [f"p{i}" for i in range(people)], 1),
        ("test_sentences", [f"p{i}" for i in range(people)], 1),
        ("test_subjects", [f"u{i}" for i in range(unseen)], 2),
    ):
        for name in names:
            for _ in range(count):
                clips.append(make_clip(number, name, split))
                number += 1
    return clips


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder of shards of the world."""
    return write_shards(tmp_path_factory.mktemp("sync") / "shards", world())


@pytest.fixture(scope="session")
def clip_of():
    """Returns `make_clip`."""
    return make_clip


@pytest.fixture(scope="session")
def write():
    """Returns `write_shards`."""
    return write_shards
