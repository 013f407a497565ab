"""Examples in docstrings run, and every public entry point has one."""

import ast
import doctest
import importlib
import inspect
import os
from pathlib import Path

import pytest

import a2fjax

ROOT = Path(__file__).parents[2]
PACKAGES = ("a2fjax", "data_pipeline", "launch")
# What a user calls from Python, besides what `import a2fjax` offers.
ENTRY_POINTS = (
    "a2fjax.audio.frontend:Frontend",
    "a2fjax.audio.io:load",
    "a2fjax.audio.mel:log_mel",
    "a2fjax.audio.pitch:track",
    "a2fjax.batch:Batch",
    "a2fjax.configuration:load",
    "a2fjax.diffusion.samplers:sample",
    "a2fjax.encoders.storage:load",
    "a2fjax.bundle.manifest:read",
    "a2fjax.export.writer:export",
    "a2fjax.files:atomic_write",
    "a2fjax.infer.postprocess:adjustment",
    "a2fjax.losses:WeightedSum",
    "a2fjax.mesh_descriptor:width",
    "a2fjax.metrics.suite:metrics",
    "a2fjax.models:build",
    "a2fjax.registry:Registry",
    "a2fjax.rig:channel_index",
    "a2fjax.signals:raise_on_signal",
    "a2fjax.tasks:build",
    "a2fjax.training.trainer:train",
    "data_pipeline.build:main",
    "data_pipeline.solver.solve:solve",
    "data_pipeline.timing.clocks:estimate_clocks",
    "launch.schedulers:get",
    "launch.submit:main",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def docstrings(path: Path) -> list[str]:
    """Returns the docstrings of a file without importing it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds))
    return [text for text in map(ast.get_docstring, nodes) if text]


def has_example(thing) -> bool:
    """Returns whether the docstring of an object, or of a class's methods, has an example."""
    members = vars(thing).values() if inspect.isclass(thing) else ()
    members = [getattr(m, "__func__", m) for m in members]
    texts = [inspect.getdoc(m) for m in (thing, *members) if m is thing or inspect.isfunction(m)]
    return any(">>>" in (text or "") for text in texts)


WITH_EXAMPLES = [
    module_name(path)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if any(">>>" in text for text in docstrings(path))
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    """Examples run in an empty folder, and leave nothing in it."""
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert attempted and not failed
    assert not os.listdir(tmp_path)


def test_public_names_have_examples():
    public = [f"a2fjax:{name}" for name in getattr(a2fjax, "__all__", ()) if name[0] != "_"]
    missing = []
    for entry_point in (*public, *ENTRY_POINTS):
        module, name = entry_point.split(":")
        thing = getattr(importlib.import_module(module), name)
        if callable(thing) and not has_example(thing):
            missing.append(entry_point)
    assert not missing
