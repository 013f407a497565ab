"""Writes a bundle, whole or not at all: in a folder beside it that gets its name at the end."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, registry, sealed_json
from a2fjax.animation import formats
from a2fjax.audio import SAMPLE_RATE, io
from a2fjax.bundle import manifest, weights
from a2fjax.errors import InputError, WorkFailed
from a2fjax.export import card, description, example, losses, parity
from a2fjax.export.description import Rights
from a2fjax.export.formats.base import Format, Run
from a2fjax.export.graph import Case, Graph
from a2fjax.export.source import Source
from a2fjax.models import pretrained

Say = Callable[[str], None]


def export(
    run: str | Path,
    out: str | Path,
    names: Sequence[str] = (),
    *,
    step: int | None = None,
    weights_file: str | Path | None = None,
    graphs: Sequence[str] = (),
    lookaheads_ms: Sequence[int] = (),
    audio: Sequence[str | Path] = (),
    rights: Rights = description.UNSTATED,
    say: Say = lambda line: None,
) -> Path:
    """Writes a run's checkpoint as a bundle and returns its folder.

    Every graph is run on the recordings and compared with the product; a difference above
    `parity.BOUND` leaves nothing behind.

    Example:
        >>> export("runs/none", "bundle")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run runs/none does not exist; expected a folder that...

    Args:
      run: run folder, or a bundle.
      out: folder to make; it must not exist, or be empty.
      names: names of `registry.bundle_formats`; () for all that this model has and whose packages
        are installed.
      step: of the checkpoint; None for the newest.
      weights_file: safetensors that replace its weights, as `Source` takes them; None for none.
      graphs: names of `registry.graphs`; () for all that this model has.
      lookaheads_ms: look-aheads of a run for live audio that get a step of their own, beside the
        default one.
      audio: recordings for the comparison; () for synthetic ones.
      rights: terms of the weights.
      say: called with lines about the work.

    Raises:
      InputError: no run, an unknown format or one that the model does not have, a missing package,
        a graph or look-ahead that the model does not have, or a folder that cannot be made.
      WorkFailed: a graph differs from the product, or the disk is full.
    """
    out = Path(out)
    asked = [_format(name) for name in names]
    for one in asked:
        one.check_installed()
    _check_target(out)
    recordings = example.recordings(tuple(audio))
    source = Source(run, step, weights_file, lookaheads_ms)
    wanted = _graphs(graphs, source)
    chosen = asked or _available(say)
    with _new_folder(out) as folder:
        _write(folder, source, chosen, wanted, recordings, rights, say, strict=bool(asked))
    return out


def _format(name: str) -> Format:
    made: Format = registry.bundle_formats.get(name, where="--format: ").load()()
    return made


def _graphs(names: Sequence[str], source: Source) -> list[Graph]:
    """Returns the named graphs, or all that are registered."""
    found: list[Graph] = []
    for name in names or registry.graphs.names():
        graph: Graph = registry.graphs.get(name, where="--graph: ").load()()
        why = graph.unsupported(source) if names else ""
        if why:
            raise InputError(f"--graph {name}: {why}")
        found += graph.variants(source)
    return found


def _available(say: Say) -> list[Format]:
    found = []
    for entry in registry.bundle_formats:
        chosen = _format(entry.name)
        try:
            chosen.check_installed()
        except InputError as error:
            say(f"left out: {error}")
            continue
        found.append(chosen)
    return found


def _check_target(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}: is a file, expected a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: is not empty; name a new folder")


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `out` when the block ends without an error."""
    files.make_folder(out.parent)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
    try:
        try:
            temporary.mkdir()
            yield temporary
            temporary.replace(out)
        except OSError as error:
            if error.errno not in files.DISK_ERRORS:
                raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
            raise WorkFailed(f"{out}: could not be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path,
    source: Source,
    kinds: Sequence[Format],
    wanted: Sequence[Graph],
    recordings: Sequence[np.ndarray],
    rights: Rights,
    say: Say,
    *,
    strict: bool,
) -> None:
    described = description.describe(source, rights, source.metrics)
    shutil.copyfile(source.run / "config.json", folder / "config.json")
    facts = {key: str(described[key]) for key in ("fingerprint", "rig", "license")}
    weights.save(folder / weights.FILE, source.stored, facts)
    encoders = source.run / pretrained.FOLDER
    if encoders.is_dir():
        shutil.copytree(encoders, folder / pretrained.FOLDER)

    graphs, reports = _write_graphs(
        folder, source, kinds, wanted, recordings, described, say, strict
    )
    described["graphs"] = graphs
    _write_example(folder, source, wanted)
    _text(folder / "parity.json", json.dumps(reports, indent=1) + "\n")
    _text(folder / "README.md", card.card(described, rights, source.run, reports))
    _text(folder / "LICENSE", card.license_text(rights))
    _text(folder / "NOTICE", card.notice(described, rights))
    described["files"] = {
        path.relative_to(folder).as_posix(): manifest.file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    sealed = sealed_json.seal(json.loads(json.dumps(described)))
    _text(folder / manifest.FILE, json.dumps(sealed, indent=1) + "\n")


def _write_graphs(
    folder: Path,
    source: Source,
    kinds: Sequence[Format],
    wanted: Sequence[Graph],
    recordings: Sequence[np.ndarray],
    described: dict[str, Any],
    say: Say,
    strict: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes and checks the graphs; returns their tensors and parity reports by file."""
    graphs: dict[str, Any] = {}
    reports: dict[str, Any] = {}
    cases: dict[str, list[Case]] = {}
    for chosen in kinds:
        missing = []
        for graph in wanted:
            if graph.formats and chosen.name not in graph.formats:
                continue
            why = chosen.unsupported(graph, source)
            if why:
                missing.append(f"{chosen.name}/{graph.name}: {why}")
                continue
            file = f"{chosen.name}/{graph.name}{chosen.ending}"
            (folder / chosen.name).mkdir(exist_ok=True)
            chosen.write(graph, source, folder / file, described)
            if graph.name not in cases:
                cases[graph.name] = list(graph.cases(source, recordings))
            run = graph.driven(source, chosen.load(folder / file, graph, source))
            reports[file] = _compared(file, graph, source, cases[graph.name], run)
            graphs[file] = {
                "inputs": [tensor.describe() for tensor in graph.inputs(source)],
                "outputs": [tensor.describe() for tensor in graph.outputs(source)],
                **graph.facts(source),
            }
            say(f"{file}: at most {reports[file]['largest']:.1e} from the product")
        if strict and not (folder / chosen.name).is_dir():
            raise InputError(f"--format {chosen.name}: {'; '.join(missing)}")
        for line in missing:
            say(f"left out: {line}")
    return graphs, reports


def _compared(
    file: str, graph: Graph, source: Source, cases: Sequence[Case], run: Run
) -> dict[str, Any]:
    if not graph.exact:
        return losses.measure(cases, run)
    found = parity.compare(graph, source, cases, run)
    parity.check(found, file)
    return parity.report(found)


def _write_example(folder: Path, source: Source, graphs: Sequence[Graph]) -> None:
    import soundfile

    (folder / "example").mkdir()
    path = folder / "example" / "in.wav"
    data = BytesIO()  # Written by us, so that a full disk is an ordinary error.
    soundfile.write(data, example.voice(), SAMPLE_RATE, subtype="PCM_16", format="WAV")
    path.write_bytes(data.getvalue())
    audio = np.concatenate(list(io.blocks(path, 10.0)))
    formats.write(folder / "example" / "out.csv", source.predictor(audio))
    for graph in graphs:
        arrays = graph.example(source)
        if arrays:
            data = BytesIO()
            np.savez_compressed(data, **arrays)  # type: ignore[arg-type]
            (folder / "example" / f"{graph.name}.npz").write_bytes(data.getvalue())


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
