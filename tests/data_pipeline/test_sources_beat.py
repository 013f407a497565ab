"""BEAT and BEAT2 as they are distributed: names say who speaks, what and how."""

import json

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from a2fjax.animation.columns import ColumnSettings
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.sources import SourceOptions

PLAIN = SourceOptions()


def sound(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(int(16_000 * seconds)), 16_000)


def recording(folder, stem, frames=60):
    sound(folder / f"{stem}.wav")
    frames = [{"weights": [n / 60, 0.5], "time": (n + 1) / 60, "rotation": []} for n in range(60)]
    data = {"names": ["jawOpen", "mouthClose"], "frames": frames}
    (folder / f"{stem}.json").write_text(json.dumps(data))
    (folder / f"{stem}.txt").write_text("0.5\t1.2\tsemantic label\n")
    (folder / f"{stem}.csv").write_text("0,0,0\n")
    (folder / f"{stem}.bvh").write_text("HIERARCHY\n")


def test_the_tree_of_beat(tmp_path):
    tree = tmp_path / "beat_english_v0.2.1"
    recording(tree / "1", "1_wayne_0_1_1")
    recording(tree / "1", "1_wayne_0_65_72")
    recording(tree / "1", "1_wayne_1_3_3")
    recording(tree / "30", "30_katya_0_1_1")
    recording(tree / "30", "30_katya_4_103_110")
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert source.layout == "beat" and "1_wayne_0_1_1.json" in why
    actors = {a.name: {t.name: t for t in a.takes} for a in source.actors()}
    assert sorted(actors) == ["1_wayne", "30_katya"]
    wayne, katya = actors["1_wayne"], actors["30_katya"]
    # All speakers read the same texts; what is said freely is a speaker's own.
    assert wayne["1_wayne_0_1_1"].sentence == katya["30_katya_0_1_1"].sentence
    assert wayne["1_wayne_1_3_3"].sentence == "1_wayne_1_3"
    assert wayne["1_wayne_0_65_72"].emotion.tolist() == [0, 1, 0, 0, 0]
    np.testing.assert_allclose(katya["30_katya_4_103_110"].emotion, [0, 0, 0, 0.4, 0.6])
    assert [t.language for t in katya.values()] == ["en", "es"]
    capture = source.capture(wayne["1_wayne_0_1_1"])
    np.testing.assert_allclose(capture.curves[:, rig.INDEX["jawOpen"]], np.arange(60) / 60)
    np.testing.assert_allclose(capture.times, np.arange(1, 61) / 60)


def test_beat2_needs_a_map_of_flame(tmp_path):
    tree = tmp_path / "beat_english_v2.0.0"
    (tree / "smplxflame_30").mkdir(parents=True)
    sound(tree / "wave16k" / "2_scott_0_81_86.wav")
    arrays = {"expressions": np.full((30, 100), 0.5), "poses": np.zeros((30, 165))}
    np.savez(tree / "smplxflame_30" / "2_scott_0_81_86.npz", **arrays, mocap_frame_rate=30)
    linear = {"sources": ["expression3", "jaw0"], "targets": ["jawOpen"], "weights": [[0.5, 1]]}
    (tmp_path / "flame.json").write_text(json.dumps(linear))
    options = SourceOptions(columns=ColumnSettings(map=str(tmp_path / "flame.json")))
    source, _ = sources.open_source(tree, "auto", options)
    (actor,) = source.actors()
    (take,) = actor.takes
    assert (source.layout, actor.name, take.audio.name) == (
        "beat",
        "2_scott",
        "2_scott_0_81_86.wav",
    )
    assert take.data[1] == tmp_path / "flame.json"  # its contents are in the take's key
    capture = source.capture(take)
    np.testing.assert_allclose(capture.curves[:, rig.INDEX["jawOpen"]], 0.25)
    assert capture.times[-1] == pytest.approx(29 / 30)
    assert "2 columns mapped to 1 channels" in capture.notes[0]
    with pytest.raises(InputError, match="FLAME; give a map to channels .--config.columns.map"):
        sources.open_source(tree, "auto", PLAIN)[0].capture(take)
    missing = SourceOptions(columns=ColumnSettings(map="none.json"))
    with pytest.raises(InputError, match="none.json: no such file"):
        sources.open_source(tree, "auto", missing)
