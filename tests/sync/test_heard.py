"""People and clips of the training are left out of the gate, and the gate says so."""

import dataclasses
import json

import pytest

from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.sync import gate, heard, report


@pytest.fixture(scope="module")
def data(clip_of, write, tmp_path_factory):
    """Returns the folders of a training, and of other data with two people whom it knows."""
    root = tmp_path_factory.mktemp("heard")
    training = [clip_of(i, f"p{i % 2}", "train") for i in range(4)]
    training.append(clip_of(9, "late", "val"))
    again = dataclasses.replace(training[1], id="x/0", subject="x", split="test_subjects")
    other = [
        again,  # The sound of p1 by another name, with more clips of that person.
        dataclasses.replace(clip_of(21, "x", "test_subjects"), id="x/1"),
        clip_of(22, "p0", "test_subjects"),  # A name of the training.
        clip_of(23, "new", "test_subjects"),
        clip_of(24, "late", "test_subjects"),  # Only in a split that nobody was trained on.
        dataclasses.replace(training[2], id="y/0", subject="y", split="test_sentences"),
        clip_of(25, "p0", "test_sentences"),
    ]
    return write(root / "training", training), write(root / "other", other)


def test_people_are_known_by_name_or_sound_and_sentences_by_sound(data):
    training, other = data
    known = heard.read([training], "train")
    assert known.names == {str(training): {"p0", "p1"}} and len(known.sounds) == 4
    people = ClipSource([other], "test_subjects")
    assert known.left_out(people) == {"x": [0, 1], "p0": [2]}
    assert known.left_out(ClipSource([other], "test_sentences")) == {"y": [0]}
    assert known.left_out(ClipSource([training], "val")) == {}


def test_one_name_in_two_folders_of_the_training_is_two_people(data, clip_of, write, tmp_path):
    training, other = data
    more = [clip_of(31, "p7", "train"), clip_of(32, "p0", "test_subjects")]
    more.append(clip_of(33, "p7", "test_subjects"))
    second = write(tmp_path / "second", more)
    known = heard.read([training, second], "train")
    assert known.left_out(ClipSource([second], "test_subjects")) == {"p7": [1]}
    assert known.left_out(ClipSource([other], "test_subjects"))["p0"] == [2]


def test_shards_without_sounds_are_compared_by_names(data, tmp_path):
    training, other = data
    import shutil

    old = shutil.copytree(training, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text())
    for entry in manifest["shards"][0]["clips"]:
        del entry["sound"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    known = heard.read([old], "train")
    assert known.sounds == frozenset()
    assert known.left_out(ClipSource([other], "test_subjects")) == {"p0": [2]}


class Still:
    """Says the same of everything."""

    name, similarity, audio_reach, motion_reach = "still", "correlation", 0, 0

    def embed(self, batch, statistics):
        seen = batch.motion[..., :2]
        return seen, seen


def test_the_gate_leaves_them_out_and_says_so(data):
    training, other = data
    known, told = heard.read([training], "train"), []
    source = ClipSource([other], "test_subjects")
    part = gate.measure_split([Still()], source, heard=known, resamples=5, say=told.append)
    assert part["heard"] == {"people": ["p0", "x"], "clips": 3}
    assert set(part["by_person"]) == {"new", "late"} and part["clips"] == 2
    assert told[0] == (
        "test_subjects: left out 3 clips that the expert was trained on (2 people, such as 'x')"
    )
    assert report._heard(part) == (
        "; left out, since the expert was trained on them: 3 clips of p0, x"
    )
    with pytest.raises(InputError, match="trained on all clips or people of split 'test_sub.*'p0'"):
        gate.measure_split([Still()], _only(source, [2]), heard=known)


def _only(source, indices):
    source.entries = tuple(source.entries[i] for i in indices)
    return source
