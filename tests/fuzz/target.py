"""One command that reads files, and how a case runs it."""

import contextlib
import dataclasses
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from a2fjax import rig, sealed_json
from a2fjax.bundle import manifest
from a2fjax.errors import InputError, one_line

TESTS = Path(__file__).parents[1]


def load(path):
    """Imports a file of the tests, which are no packages."""
    name = "fuzz_" + "_".join(path.relative_to(TESTS).with_suffix("").parts)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclasses.dataclass(frozen=True)
class Target:
    """One command and the files that it reads.

    Attributes:
      name: for reports.
      folder: copied for each case.
      victims: patterns of the files that are damaged, below the folder.
      run: called with the copy; returns an exit code, or raises InputError for code 2.
      weight: how often it is drawn.
      needed: patterns, without **, of files without which the command must not succeed.
    """

    name: str
    folder: Path
    victims: tuple[str, ...]
    run: Callable[[Path], int]
    weight: float = 1.0
    needed: tuple[str, ...] = ()

    def files(self, folder):
        """Returns the files that may be damaged."""
        found = {p for pattern in self.victims for p in folder.glob(pattern) if p.is_file()}
        return sorted(found)

    def needs(self, folder, file):
        """Returns whether the command must fail without a file."""
        # The file may be gone.
        return any(file.relative_to(folder).match(pattern) for pattern in self.needed)


def copy(target, work):
    """Copies a target's folder for one case."""
    shutil.copytree(target.folder, work, symlinks=True)


def call(target, work):
    """Runs a target; returns its exit code, 2 for InputError of a function."""
    reseal(work / "run" / "config.json")
    reseal_bundle(work / "bundle")
    try:
        return target.run(work)
    except InputError as error:
        print(f"fuzz: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def reseal(path):
    """Gives a changed file of JSON its checksum, so that what checks its values is reached."""
    # A pipe, a device or a sparse file is for the command to refuse.
    if not path.is_file() or path.stat().st_size > 1_000_000:
        return
    with contextlib.suppress(ValueError, AttributeError, OSError, RecursionError):
        values = json.loads(path.read_bytes())
        values.pop(sealed_json.KEY, None)
        path.write_text(json.dumps(sealed_json.seal(values)))


def reseal_bundle(folder):
    """Gives the changed files of a bundle their digests, so that what reads them is reached."""
    reseal(folder / "config.json")
    path = folder / manifest.FILE
    if not path.is_file() or path.stat().st_size > 1_000_000:
        return
    with contextlib.suppress(Exception):  # Damaged values fail in many ways.
        values = json.loads(path.read_bytes())
        for name in values["files"]:
            if (folder / name).is_file() and (folder / name).stat().st_size < 10_000_000:
                values["files"][name] = manifest.file_digest(folder / name)
        path.write_text(json.dumps(values))
    reseal(path)


def head_of(vertices=150):
    """Returns (neutral [V, 3] cm, deltas [52, V, 3], names) of a lump with bumps as shapes."""
    rng = np.random.default_rng(7)
    direction = rng.normal(size=(vertices, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    neutral = direction * [8.0, 11.0, 9.0]
    centres = neutral[rng.integers(vertices, size=52)]
    near = np.exp(-((neutral[None] - centres[:, None]) ** 2).sum(-1) / 12)
    return neutral, near[..., None] * rng.normal(size=(52, 1, 3)), list(rig.ARKIT)
