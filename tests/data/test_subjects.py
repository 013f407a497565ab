"""Numbers and names of the people of a training set, and what the loader makes of them."""

import dataclasses

import jax
import numpy as np

from a2fjax.configuration import AugmentConfig
from a2fjax.data import loader, records, subjects


def test_people_of_the_training_split_in_the_manifest_s_order(build, shards, tmp_path):
    manifest = records.read_manifest(shards)
    alone = subjects.training([str(shards)], [manifest], "train")
    assert list(alone.items()) == [((0, f"s{k}"), f"s{k}") for k in range(3)]
    other = build.write(tmp_path / "other", [build.clip(1), build.clip(2, split="val")])
    both = subjects.training(
        [str(shards), str(other)], [manifest, records.read_manifest(other)], "train"
    )
    assert list(both.values()) == ["shards:s0", "shards:s1", "shards:s2", "other:s1"]


def test_a_number_by_name():
    names = ("one:a", "one:b", "two:b")
    found = [subjects.number(n, names) for n in ("b", "two:b", "a", "c", "", None)]
    assert found == [1, 2, 0, -1, -1, -1]


def test_a_window_knows_its_person_unless_it_is_mirrored(build, shards):
    config = build.config(shards, augment=AugmentConfig(mirror_prob=0.5))
    batches = loader.batches(config)
    person = [int(e.subject[1]) for e in batches.source.entries]
    drawn = [next(batches) for _ in range(4)]
    batches.close()
    found = np.concatenate([b.subject for b in drawn])
    clips = np.concatenate([b.clip for b in drawn])
    own = np.array(person)[clips]
    assert 0.2 < np.mean(found == -1) < 0.8
    np.testing.assert_array_equal(found[found >= 0], own[found >= 0])
    held_out = loader.eval_batches(config, "val", 2)
    named = [int(e.subject[1]) for e in held_out.source.entries]
    assert all((b.subject == np.array(named)[b.clip]).all() for b in held_out)


def test_normals_are_part_of_the_points_when_asked_for(build, shards):
    config = build.config(shards)
    model = dataclasses.replace(config.model, identity_normals=True)
    config = dataclasses.replace(config, model=model)
    batches = loader.batches(config)
    batch = next(batches)
    batches.close()
    assert jax.eval_shape(lambda b: b, batch) == loader.spec(config)
    known = batch.identity_mask
    lengths = np.linalg.norm(batch.identity[known][..., 3:], axis=-1)
    assert batch.identity.shape[-1] == 6 and 0.7 < np.median(lengths) < 1.3
