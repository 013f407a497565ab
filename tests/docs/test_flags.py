"""Documents, messages and docstrings name only programs, flags, keys and files that exist."""

import argparse
import ast
import dataclasses
import functools
import importlib
import re
import textwrap
import tomllib
from pathlib import Path
from unittest import mock

import pytest

from a2fjax import configuration, registry
from a2fjax.cli.main import COMMANDS
from a2fjax.configuration import reference
from data_pipeline.settings import BuildSettings
from launch import schedulers
from launch.submission import site_profile

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# Keys that stand for any key.
PLACEHOLDERS = {"", "<name>", "KEY", "a.b", "any.other.key", "key", "path.to.key", "x"}
_SBATCH = "array chdir cpu-bind dependency exclusive gres output test-only"
# Flags of other programs, by the start of the names of the files that pass or explain them.
FOREIGN = {
    "docs/clusters.md": f"{_SBATCH} nv port",  # of Apptainer and of Ray
    "docs/extending.md": "niceness",
    "docs/files.md": "sound",  # of examples/blender_import.py
    "docs/scaling.md": "no-deps",
    "a2fjax/cli/main.py": "version",
    "a2fjax/plan/topologies.py": "no-deps xla_force_host_platform_device_count",
    "a2fjax/training/profiler.py": "logdir",
    "benchmarks/": "xla_backend_optimization_level xla_cpu_multi_thread_eigen",
    "data_pipeline/demo/voice.py": "force-reinstall",
    "data_pipeline/execution/process_pool.py": "xla_cpu_multi_thread_eigen",
    "examples/blender_import.py": "object python save sound",  # its own, and Blender's
    "launch/monitor/table_html.py": "back bad good halo ink mark rule share soft",  # CSS
    "launch/schedulers/kubernetes/": "ignore-not-found prefix tail",
    "launch/schedulers/slurm/": f"{_SBATCH} bind container- container-env container-workdir "
    "cpus-per-task ended job-name kill-on-bad-exit ntasks ntasks-per-node nv open-mode parsable "
    "pwd requeue restarts signal",
    "launch/jobs/requeue.py": "ended restarts",
    "launch/submission/site_profile.py": _SBATCH,
    "launch/submission/snapshot.py": "exclude-standard others porcelain untracked-files",
}
PACKAGES = ("a2fjax", "data_pipeline", "launch", "examples", "experiments", "benchmarks")
FLAG = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*(?:\.[\w.<>-]*)?")
MODULES = {
    "data_pipeline.build": "data_pipeline.build",
    "data_pipeline.demo": "data_pipeline.demo.__main__",
    "data_pipeline.demo.run": "data_pipeline.demo.run",
    "data_pipeline.demo.check": "data_pipeline.demo.check",
}


class _Parsed(Exception):
    """Carries the parser of a program out of its `main`."""


def _parser(main, *words) -> argparse.ArgumentParser:
    def parse(self, *_, **__):
        raise _Parsed(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse):
        try:
            main(list(words))
        except _Parsed as caught:
            return caught.args[0]
    raise AssertionError(f"{main.__module__} parses nothing")


def _options(parser: argparse.ArgumentParser) -> set[str]:
    return {word for action in parser._actions for word in action.option_strings}


def _static(path: Path) -> set[str]:
    """Returns the flags that a script adds, without importing it and JAX."""
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    added = [c for c in calls if getattr(c.func, "attr", "") == "add_argument"]
    words = [a.value for c in added for a in c.args if isinstance(a, ast.Constant)]
    return {"--help", *(word for word in words if word.startswith("-"))}


@functools.cache
def programs() -> dict[str, set[str]]:
    """Returns the flags of each program and command, such as "a2fjax train"."""
    found = {}
    from a2fjax.cli.main import main as a2fjax
    from launch.submit import main as submit

    for command in COMMANDS:
        found[f"a2fjax {command}"] = _options(_parser(a2fjax, command))
    parser = _parser(submit)
    (commands,) = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
    found |= {f"submit.py {name}": _options(one) for name, one in commands.items()}
    for program, module in MODULES.items():
        found[program] = _options(_parser(importlib.import_module(module).main))
    for script in (ROOT / "benchmarks").glob("*.py"):
        found[f"benchmarks/{script.name}"] = _static(script)
    return found


@functools.cache
def keys() -> tuple[set[str], set[str]]:
    """Returns the keys of `--config.` of all experiments and builds, and those that are tables."""
    found = [
        key
        for kind in registry.models.names()
        for key in reference.keys(configuration.load(None, {"model.kind": kind}).config)
    ]
    names = {key.name for key in found} | {f.name for f in dataclasses.fields(BuildSettings)}
    return names, {k.name for k in found if k.type.startswith("Mapping")}


def is_key(name: str) -> bool:
    """Returns whether `--config.NAME` is a key, a group of keys or an entry of a table."""
    names, tables = keys()
    if name in names or any(key.startswith(f"{name}.") for key in names):
        return True
    build = {f.name for f in dataclasses.fields(BuildSettings)}
    return name.partition(".")[0] in build or any(name.startswith(f"{t}.") for t in tables)


_PROGRAM = re.compile(
    r"(?:launch/)?(?P<submit>submit\.py)\s+(?P<verb>[a-z]+)"
    r"|\b(?<!from )(?<!import )(?P<cli>a2fjax)\s+(?P<command>(?!import\b|as\b)[a-z]+)"
    r"|-m\s+(?P<module>data_pipeline(?:\.\w+)*)"
    r"|(?P<script>benchmarks/\w+\.py)"
)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Returns the commands in shell syntax within a document: program, and flags behind it."""
    text = re.sub(r"\\\n\s*", " ", text)
    blocks = re.findall(r"(?m)^(?: {4}|\t).*$", text)
    inline = re.findall(r"`([^`]+)`", re.sub(r"(?m)^(?: {4}|\t).*$", "", text))
    found = []
    for line in (*blocks, *(" ".join(code.split()) for code in inline)):
        starts = list(_PROGRAM.finditer(line))
        for start, end in zip(starts, [*[s.start() for s in starts[1:]], len(line)], strict=False):
            if start["submit"]:
                name = f"submit.py {start['verb']}"
            elif start["cli"]:
                name = f"a2fjax {start['command']}"
            else:
                name = start["module"] or start["script"]
            found.append((name, FLAG.findall(re.sub(r"--sbatch=\S+", "", line[start.end() : end]))))
    return found


def strings(path: Path) -> list[str]:
    """Returns the strings of a file: messages, help and docstrings; joined where they are split."""
    tree = ast.parse(path.read_text())
    return [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str]


def is_flag(word: str, known: set[str]) -> bool:
    """Returns whether a word is one of the flags, or `--config.` with a key."""
    if word.startswith("--config."):
        key = word.removeprefix("--config.").rstrip(".")
        return key in PLACEHOLDERS or is_key(key)
    return word.rstrip(".") in known


def foreign(path: Path) -> set[str]:
    """Returns the flags of other programs that a file may name."""
    name = str(path.relative_to(ROOT))
    groups = [words for start, words in FOREIGN.items() if name.startswith(start)]
    return {f"--{word}" for words in groups for word in words.split()}


def test_commands_in_documents_are_understood():
    wrong = []
    for path in DOCUMENTS:
        for program, words in commands(path.read_text()):
            known = programs().get(program)
            if known is None:
                wrong.append(f"{path.name}: {program}")
                continue
            # What is passed on to Slurm is in one word with its flag.
            wrong += [f"{path.name}: {program} {w}" for w in words if not is_flag(w, known)]
    assert not wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_flags_in_documents_exist(path):
    known = set().union(*programs().values()) | foreign(path)
    assert not [w for w in FLAG.findall(path.read_text()) if not is_flag(w, known)]


@pytest.mark.parametrize("package", PACKAGES)
def test_messages_and_docstrings_name_flags_and_commands_that_exist(package):
    wrong, every = [], set().union(*programs().values())
    for path in sorted((ROOT / package).rglob("*.py")):
        known = every | foreign(path)
        for text in strings(path):
            wrong += [f"{path}: {w}" for w in FLAG.findall(text) if not is_flag(w, known)]
            named = re.findall(r"(?:`|python launch/)((?:submit\.py|a2fjax) [a-z]+)", text)
            wrong += [f"{path}: {name}" for name in named if name not in programs()]
    assert not wrong


@pytest.mark.parametrize("name", ["kubernetes", "local", "slurm"])
def test_messages_of_a_scheduler_name_flags_that_it_takes(name):
    own = {o.flag for o in schedulers.get(name).flags}
    others = {o.flag for other in schedulers.names() for o in schedulers.get(other).flags} - own
    wrong = []
    for path in sorted((ROOT / "launch" / "schedulers" / name).rglob("*.py")):
        words = {w for text in strings(path) for w in FLAG.findall(text)} - foreign(path)
        wrong += [f"{path.name}: {word}" for word in words & others]
    assert not wrong


def test_profiles_in_documents_are_read(tmp_path):
    for text in (site_profile.__doc__, (ROOT / "docs" / "clusters.md").read_text()):
        (block,) = re.findall(r"(?m)^    partition = (?:.*\n)(?:    .*\n)*", text)
        file = tmp_path / "site.toml"
        file.write_text(textwrap.dedent(block))
        values = site_profile.read(str(file))
        assert values["partition"] == "h100"
        for scheduler in schedulers.names():
            schedulers.get(scheduler).profile(values)


def test_targets_extras_and_files_in_documents_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get(
            "optional-dependencies", {}
        )
    )
    wrong = []
    for path in DOCUMENTS:
        text = path.read_text()
        wrong += [
            f"{path.name}: make {t}"
            for t in re.findall(r"[`(]make ([a-z][\w-]*)", text)
            if t not in targets
        ]
        for listed in re.findall(r"a2fjax\[([\w,]+)\]", text):
            wrong += [f"{path.name}: [{e}]" for e in listed.split(",") if e not in extras]
        wrong += [
            f"{path.name}: extra {e}" for e in re.findall(r"extra `(\w+)`", text) if e not in extras
        ]
        tops = "a2fjax|data_pipeline|launch|experiments|benchmarks|examples|tests|docs"
        for file in re.findall(rf"\b(?:{tops})/[\w/.-]+\.(?:py|md|yaml|toml)\b", text):
            if not (ROOT / file).exists():
                wrong.append(f"{path.name}: {file}")
    assert not wrong
