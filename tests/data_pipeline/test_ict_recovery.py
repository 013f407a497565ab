"""Scans made from ICT-FaceKit with known weights come back through the whole build."""

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.data import records
from data_pipeline import build
from data_pipeline.mesh import blendshapes, rigs
from data_pipeline.settings import read_settings
from data_pipeline.solver import solve

RATES = {"24": 24.0, "25": 25.0, "29.97": 30_000 / 1001, "48": 48.0, "59.94": 60_000 / 1001}
RATES["120"] = 120.0
SECONDS, OFFSET = 4.0, 0.04
RATE = 16_000


def weights_at(rng, names):
    """A function from times to smooth weights [F, K]; of opposite shapes one is at rest."""
    count = len(names)
    speed, phase = rng.uniform(0.3, 2.5, count), rng.uniform(0, 2 * np.pi, count)
    size = rng.uniform(0.3, 0.8, count)
    still = [b if rng.random() < 0.5 else a for a, b in solve.EXCLUSIVE_PAIRS]
    size[[names.index(n) for n in still if n in names]] = 0.0

    def weights(t):
        return np.maximum(np.sin(2 * np.pi * speed * np.asarray(t)[:, None] + phase), 0) ** 2 * size

    return weights


def scans(rng, neutral, deltas, weights, fps):
    """Vertices [F, V, 3] cm as a scanner gives them: see the module's test."""
    times = np.arange(int(SECONDS * fps)) / fps
    frames, vertices = len(times), len(neutral)
    moved = weights(times + OFFSET) @ deltas.reshape(len(deltas), -1)
    out = (neutral + moved.reshape(frames, vertices, 3)).astype(np.float32)
    out += 0.01 * rng.standard_normal(out.shape, np.float32)  # 0.1 mm
    wrong = rng.random((frames, vertices), np.float32) < 0.01
    out[wrong] += rng.normal(size=(wrong.sum(), 3)) * rng.uniform(0.5, 3.0, (wrong.sum(), 1))
    for f, (x, y, z) in enumerate(
        0.15 * np.sin(2 * np.pi * times[:, None] * [0.31, 0.23, 0.17] + rng.uniform(0, 6, 3))
    ):
        u, _, vt = np.linalg.svd(np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]]))
        out[f] = out[f] @ (u @ vt).T + 2.0 * np.sin(times[f] * np.array([1.1, 0.7, 0.4]))
    out[rng.random(frames) < 0.02] = np.nan
    return out


@pytest.mark.slow
def test_weights_come_back_at_every_rate(shared, tmp_path):
    with np.load(shared / "ict" / "ict_facekit.npz") as data:
        identity = data["identity_deltas"].astype(np.float64)
    face = blendshapes.make_blendshapes(
        rigs.read_rig(shared / "ict" / "ict_facekit.npz"), name="ict"
    )
    names, deltas = list(face.channels), face.deltas / 10.0  # cm
    truth = {}
    for number, (label, fps) in enumerate(RATES.items()):
        rng = np.random.default_rng(number)
        person = tmp_path / "captures" / f"person{number}"
        person.mkdir(parents=True)
        size = 0.7 * rng.normal(size=20)
        neutral = face.neutral / 10.0 + np.einsum("i,ivj->vj", size, identity[:20])
        weights = truth[f"person{number}/take"] = weights_at(rng, names)
        np.savez(
            person / "take.npz",
            vertices=scans(rng, neutral, deltas, weights, fps),
            fps=float(label),
        )
        np.savez(
            person / "rig.npz",
            poseNames=np.array(["neutral", *names]),
            neutral=neutral,
            **dict(zip(names, deltas, strict=True)),
        )
        tone = 0.1 * rng.normal(size=int(SECONDS * RATE))
        tone[: RATE // 2] *= 0.001
        soundfile.write(person / "take.wav", tone, RATE)
    settings = read_settings({"offset": str(OFFSET), "units": "cm"})
    manifest = build.build(tmp_path / "captures", tmp_path / "out", settings=settings, workers=0)
    assert not manifest.source["rejected"] and not manifest.source["quarantined"]
    found = clips(tmp_path / "out", manifest)
    assert set(found) == set(truth)
    for name, clip in found.items():
        seen = [i for i, n in enumerate(names) if clip.channel_mask[rig.INDEX[n]]]
        assert len(seen) >= 40
        good = clip.frame_mask
        assert good.mean() > 0.9
        columns = [rig.INDEX[names[i]] for i in seen]
        got = clip.motion[good][:, columns]
        want = truth[name](np.arange(clip.frames) / rig.FPS)[good][:, seen]
        rmse = np.sqrt(((got - want) ** 2).mean(axis=0))
        active = want.std(axis=0) > 0.05
        together = [
            np.corrcoef(g, w)[0, 1] for g, w in zip(got.T[active], want.T[active], strict=True)
        ]
        assert np.sqrt((rmse**2).mean()) <= 0.03
        assert min(together) >= 0.99


def clips(out, manifest):
    from array_record.python.array_record_module import ArrayRecordReader

    found = {}
    for shard in manifest.shards:
        reader = ArrayRecordReader(str(out / shard.file))
        for record in reader.read_all():
            clip = records.decode(record)
            found[clip.id] = clip
        reader.close()
    return found
