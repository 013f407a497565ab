"""Builds of sets whose files are damaged at random: they end, and spare who was not touched."""

import shutil

import numpy as np
import pytest

ROUNDS, MANY_ROUNDS = 15, 40


def mangled(data, others, rng):
    """Returns a file's bytes with one random damage, of the kinds that disks and copies make."""
    data, size = bytearray(data), len(data)
    at = int(rng.integers(0, size))
    until = min(size, at + int(rng.integers(1, 400)))
    kind = rng.choice(["cut", "flip", "flip", "digits", "zero", "twice", "lost", "other"])
    if kind == "cut":
        return bytes(data[:at])
    if kind == "flip":
        # Half of the time near the beginning, where formats say what follows.
        reach = size if rng.random() < 0.5 else min(size, 400)
        for place in rng.integers(0, reach, int(rng.integers(1, 9))):
            data[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == "digits":
        places = np.flatnonzero((np.frombuffer(data, np.uint8) - 48) < 10)
        for place in rng.choice(places, min(len(places), 4)) if len(places) else ():
            data[int(place)] = int(rng.choice(list(b"0193-.eE[")))
    elif kind == "zero":
        data[at:until] = bytes(until - at)
    elif kind == "twice":
        data[at:at] = data[at:until]
    elif kind == "lost":
        del data[at:until]
    else:
        return others[int(rng.integers(0, len(others)))]
    return bytes(data)


def fuzz(tmp_path, make_set, run, layout, rounds, seed):
    """Damages files at random, round by round; returns how many takes were told to be damaged."""
    set_, other = make_set(tmp_path / "set", layout), make_set(tmp_path / "other", layout)
    other.count = 100  # other takes, not the same twice
    for made in (set_, other):
        for kind in made.kinds:
            made.write(kind, f"take-{kind}")
    zoe = set_.path / "zoe"  # nothing of hers is touched
    shutil.copytree(other.person, zoe)
    victims = sorted(p for p in set_.path.rglob("*") if p.is_file() and zoe not in p.parents)
    before = {path: path.read_bytes() for path in victims}
    # A folder of frames counts as one file, lest it be all that is damaged.
    groups = {}
    for path in victims:
        groups.setdefault(path.parent if path.suffix in (".obj", ".ply") else path, []).append(path)
    places = list(groups.values())
    rng, lost, hers = np.random.default_rng(seed), 0, None
    for turn in range(rounds):
        touched = []
        for files in places:
            if rng.random() < 0.4:
                touched += list(rng.choice(files, min(len(files), int(rng.integers(1, 5)))))
        for path in touched:
            path.write_bytes(mangled(before[path], list(before.values()), rng))
        code, manifest, printed = run(set_.path, tmp_path / "out", "--layout", layout)
        assert code == 0, (turn, touched, printed)
        held = {e["id"] for shard in manifest.shards for e in shard.clips}
        found = {take for take in held if take.startswith("zoe/")}
        hers = hers or found
        assert found == hers and found, (turn, touched, printed)
        both = manifest.source["rejected"] + manifest.source["quarantined"]
        for said in both:
            assert "\n" not in said["reason"] and len(said["reason"]) < 1000
            assert "defect of this program" not in said["reason"], (turn, said)
        lost += len(both)
        for path in touched:
            path.write_bytes(before[path])
    return lost


LAYOUTS = ("nvidia", "meshes", "vertices", "livelink", "table")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_damage(tmp_path, make_set, run, layout):
    assert fuzz(tmp_path, make_set, run, layout, ROUNDS, seed=1) >= ROUNDS / 2


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_much_random_damage(tmp_path, make_set, run, layout):
    assert fuzz(tmp_path, make_set, run, layout, MANY_ROUNDS, seed=2) >= MANY_ROUNDS / 2
