"""Inserts faults into a copy of the code, one at a time, and runs the tests that must fail.

    python benchmarks/mutants.py [--only NAME ...] [--root CHECKOUT] [--out RESULTS.json]

`mutants.toml` describes each fault by its file, the text before and after, and the test files. A
fault is "found" if one of these tests fails, and "SURVIVED" if all pass; "no place" means that the
text does not occur exactly once. The exit code is 1 unless all faults are found.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
COPIED = ("a2fjax", "data_pipeline", "launch", "experiments", "benchmarks", "tests", "docs")
FILES = ("pyproject.toml", "setup.cfg", "constraints.txt", "README.md", "Makefile")


def expand(pattern: str) -> list[str]:
    """Expands a pattern with {a,b} to a list of patterns."""
    match = re.search(r"\{([^}]*)\}", pattern)
    if match is None:
        return [pattern]
    return [pattern[: match.start()] + x + pattern[match.end() :] for x in match[1].split(",")]


def matching(root: Path, patterns: list[str]) -> list[Path]:
    """Returns the files below `root` that match a pattern."""
    each = itertools.chain.from_iterable(map(expand, patterns))
    return sorted({path for pattern in each for path in root.glob(pattern)})


def place(root: Path, mutant: dict) -> Path | None:
    """Returns the only file that contains the text to change exactly once."""
    counts = {
        path: len(re.findall(mutant["find"], path.read_text()))
        for path in matching(root, [mutant["in"]])
    }
    counts = {path: count for path, count in counts.items() if count}
    return next(iter(counts)) if list(counts.values()) == [1] else None


def fails(root: Path, tests: list[Path], select: str) -> tuple[bool, str]:
    """Returns whether a fast test of the files fails, and which; selected tests run first."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-m", "not slow", *(str(t.relative_to(root)) for t in tests)]
    for more in (["-k", select], []) if select else ([],):
        done = subprocess.run(
            [*command, *more], cwd=root, env=environment, capture_output=True, text=True
        )
        if done.returncode not in (0, 1, 5):  # 5: no test selected.
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        if done.returncode == 1:
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            return True, failed[0] if failed else ""
    return False, ""


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=(), help="names of mutants")
    parser.add_argument("--root", type=Path, default=HERE.parent, help="checkout to try them on")
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    args = parser.parse_args()
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    results = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve()
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(args.root / name, root / name, ignore=ignored)
        for name in FILES:
            shutil.copy(args.root / name, root / name)
        for mutant in mutants:
            name = mutant["name"]
            if args.only and name not in args.only:
                continue
            path, tests = place(root, mutant), matching(root, mutant["tests"])
            began, test = time.monotonic(), ""
            if path is None or not tests:
                result = "no place"
            else:
                text = path.read_text()
                path.write_text(re.sub(mutant["find"], mutant["replace"], text))
                try:
                    found, test = fails(root, tests, mutant.get("select", ""))
                finally:
                    path.write_text(text)
                result = "found" if found else "SURVIVED"
            results[name] = {"result": result, "test": test, "fault": mutant["fault"]}
            print(f"{result:9}{name:28}{time.monotonic() - began:6.0f} s  {test}", flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1) + "\n")
    missed = [name for name, each in results.items() if each["result"] != "found"]
    print(f"{len(results) - len(missed)} of {len(results)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
