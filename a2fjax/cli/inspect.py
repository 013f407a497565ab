"""Say what is in a run, a set of shards or an experiment, without a device."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2fjax.config import Config, Resolved


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax inspect`."""
    parser.add_argument("what", metavar="RUN|SHARDS|EXPERIMENT.py", help="told by its content")
    parser.add_argument("--step", type=int, help="of a run's checkpoint; default: the newest")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax inspect`.

    Raises:
      InputError: it is none of the three, or damaged.
    """
    from a2fjax import config
    from a2fjax.errors import InputError

    path = Path(args.what)
    is_experiment = path.suffix == ".py" or ".py:" in path.name
    if extra and not is_experiment:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax inspect --help")
    if is_experiment:
        lines = experiment(config.load(args.what, config.parse_overrides(extra)), args.what)
    elif (path / "config.json").is_file():
        lines = run_folder(path, args.step)
    elif (path / "manifest.json").is_file():
        lines = shards(path)
    elif path.is_dir():
        raise InputError(
            f"{path}: neither a run (config.json) nor shards (manifest.json) nor an experiment "
            "(.py) is there"
        )
    elif path.exists():
        raise InputError(f"{path}: expected a run folder, a shards folder or an experiment (.py)")
    else:
        raise InputError(f"{path}: no such file or folder")
    print("\n".join(lines))
    return 0


def table(rows: Iterable[Sequence[Any]], header: Sequence[str], indent: str = "  ") -> list[str]:
    """Returns lines of a table: the first column to the left, numbers to the right."""
    cells = [list(header), *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        rest = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(indent + "  ".join([f"{row[0]:<{widths[0]}}", *rest]).rstrip())
    return lines


def shards(folder: Path) -> list[str]:
    """Returns what is in a set of shards.

    Raises:
      InputError: damaged, or of another rig.
    """
    import numpy as np

    from a2fjax import rig
    from a2fjax.data import records

    manifest = records.read_manifest(folder)
    clips = [clip for shard in manifest.shards for clip in shard.clips]
    size = sum((folder / shard.file).stat().st_size for shard in manifest.shards)
    hours = sum(clip["frames"] for clip in clips) / rig.FPS / 3600
    kind = "synthetic" if manifest.synthetic else "recorded"
    held_out = sum(s.held_out for s in manifest.subjects)
    lines = [
        f"shards {folder}: {kind}, schema {manifest.schema}, rig {manifest.rig}",
        f"  {len(clips)} clips, {hours:.2f} hours, {len(manifest.subjects)} subjects "
        f"({held_out} held out, {sum(s.mesh is not None for s in manifest.subjects)} with a mesh), "
        f"{len({c['sentence'] for c in clips})} sentences, {len(manifest.shards)} files, "
        f"{size / 1e6:.1f} MB",
        "",
    ]
    languages = _languages(folder, manifest)
    for title, key in (("split", "split"), ("emotion", "emotion"), ("language", "language")):
        groups: defaultdict[str, Counter] = defaultdict(Counter)
        for clip in clips:
            name = languages.get(clip["id"], "") if key == "language" else clip[key]
            groups[str(name) or "unknown"].update(clips=1, frames=clip["frames"])
        lines += table(_group_rows(groups, rig.FPS), (title, "clips", "hours")) + [""]
    lines += _subjects(manifest, clips, rig.FPS) + [""]
    mask = np.asarray(manifest.channel_mask, bool)
    missing = [name for name, seen in zip(rig.CHANNELS, mask, strict=True) if not seen]
    lines.append(f"  observed channels: {mask.sum()} of {rig.NUM_CHANNELS}")
    if missing:
        text = f"never observed: {', '.join(missing)}"
        lines += textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="    ")
    mean, std = (np.asarray(manifest.statistics.get(f"motion_{k}", [])) for k in ("mean", "std"))
    if len(mean) == len(std) == rig.NUM_CHANNELS:
        order = np.argsort(-std / rig.SCALE, kind="stable")
        rows = [(rig.CHANNELS[i], f"{mean[i]:.3f}", f"{std[i]:.3f}") for i in order if mask[i]]
        lines += ["", *table(rows[:12], ("most moving channels", "mean", "std"))]
        still = sum(1 for i in order if mask[i] and std[i] / rig.SCALE[i] < 1e-3)
        if still:
            lines.append(f"  {still} observed channels hardly move (std below 0.001)")
    if "speech_level_db" in manifest.statistics:
        lines.append(f"  mean speech level: {manifest.statistics['speech_level_db']:.1f} dB")
    return lines


def _languages(folder: Path, manifest: Any) -> dict[str, str]:
    """Returns the language of each clip; records are read when the index does not say it."""
    found = {c["id"]: c["language"] for s in manifest.shards for c in s.clips if "language" in c}
    if found:
        return found
    from array_record.python import array_record_data_source

    from a2fjax.data import records

    for shard in manifest.shards:
        with array_record_data_source.ArrayRecordDataSource(str(folder / shard.file)) as source:
            for i, entry in enumerate(shard.clips):
                try:
                    found[entry["id"]] = records.decode(source[i]).language
                except (records.BadRecord, ValueError, IndexError):
                    found[entry["id"]] = "damaged record"
    return found


def _group_rows(groups: dict[str, Counter], fps: int) -> list[tuple[str, int, str]]:
    ordered = sorted(groups.items(), key=lambda item: -item[1]["frames"])
    return [(name, c["clips"], f"{c['frames'] / fps / 3600:.3f}") for name, c in ordered]


def _subjects(manifest: Any, clips: list[dict[str, Any]], fps: int) -> list[str]:
    groups: dict[str, Counter] = {s.id: Counter() for s in manifest.subjects}
    for clip in clips:
        groups.setdefault(clip["subject"], Counter()).update(clips=1, frames=clip["frames"])
    rows = _group_rows(groups, fps)
    held_out = {s.id for s in manifest.subjects if s.held_out}
    rows = [(name + (" (held out)" if name in held_out else ""), n, h) for name, n, h in rows]
    lines = table(rows[:10], ("subject", "clips", "hours"))
    if len(rows) > 10:
        lines.append(f"  and {len(rows) - 10} more subjects, at least {rows[-1][1]} clips each")
    return lines


def run_folder(folder: Path, step: int | None) -> list[str]:
    """Returns what is in a run folder.

    Raises:
      InputError: damaged, of another rig, or no such step.
    """
    from a2fjax import config as config_lib
    from a2fjax.models import params as params_lib
    from a2fjax.train import checkpoints, tracking

    path = folder / "config.json"
    resolved = config_lib.from_json(path.read_bytes(), name=str(path))
    config = resolved.config
    lines = [f"run {folder}: {config.name}, fingerprint {config_lib.fingerprint(config)}"]
    lines += [f"  {line}" for line in _changed(resolved)]
    steps = checkpoints.steps(folder)
    lines += ["", f"  checkpoints: {', '.join(map(str, steps)) or 'none yet'}"]
    if steps:
        step, params, meta = checkpoints.load_params(folder, step)
        lines.append(f"  step {step} of {config.steps}, rig {meta['rig']}")
        values = {k: v for k, v in meta.get("metrics", {}).items() if isinstance(v, (int, float))}
        lines += [f"    {name} = {value:.6g}" for name, value in sorted(values.items())]
        lines += ["", *("  " + row for row in params_lib.table(params).splitlines())]
    lines += ["", *_model(config)]
    if (folder / "metrics.jsonl").is_file():
        last: dict[str, tuple[int, float]] = {}
        for line in tracking.read_metrics(folder):
            last |= {k: (line["step"], v) for k, v in line.items() if k != "step"}
        rows = [(k, f"{v:.6g}", s) for k, (s, v) in sorted(last.items()) if _is_number(v)]
        lines += ["", *table(rows, ("last metrics", "value", "step"))]
    return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def experiment(resolved: Resolved, name: str) -> list[str]:
    """Returns what an experiment would build: parameters, operations a frame, memory."""
    from a2fjax import config as config_lib

    config = resolved.config
    lines = [f"experiment {name}: {config.name}, fingerprint {config_lib.fingerprint(config)}"]
    return [*lines, *(f"  {line}" for line in _changed(resolved)), "", *_model(config, table=True)]


def _changed(resolved: Resolved) -> list[str]:
    """Returns the values that are not defaults, each with its source."""
    import dataclasses

    from a2fjax import config as config_lib

    values = config_lib.flatten(dataclasses.asdict(resolved.config))
    lines = [
        f"{key} = {value!r}  ({resolved.sources[key]})"
        for key, value in values.items()
        if resolved.sources.get(key, "default") != "default"
    ]
    return lines or ["every value is the default"]


def _model(config: Config, *, table: bool = False) -> list[str]:
    """Returns lines on the model of a configuration; only shapes are computed."""
    import math

    import jax
    import jax.numpy as jnp

    from a2fjax import tasks
    from a2fjax.infer import cost
    from a2fjax.infer.predictor import batch_shapes
    from a2fjax.models import params as params_lib

    task = tasks.build(config, None)
    batch = batch_shapes(config, 1, config.data.window_frames)
    params = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)
    trained, fixed = params_lib.split(params)

    def training(trained, fixed, batch):
        def loss(trained):
            params = params_lib.merge(trained, fixed)
            return task.loss(params, batch, jax.random.key(0), step=jnp.int32(0), train=True)[0]

        return jax.value_and_grad(loss)(trained)

    frames = config.data.window_frames
    forward = sum(cost.flops(task.predict, params, batch).values()) / frames
    update = sum(cost.flops(training, trained, fixed, batch).values()) / frames
    size = sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(trained))
    copies = 4 + (config.optim.ema_decay > 0)
    ahead = task.model.lookahead_seconds
    lines = [
        f"  {params_lib.count(trained):,} trained parameters, {params_lib.count(fixed):,} constant",
        f"  {forward / 1e6:.2f} MFLOP a frame to predict, {update / 1e6:.2f} to train "
        f"({update * frames * config.data.batch_size / 1e9:.2f} GFLOP a step of "
        f"{config.data.batch_size} x {frames} frames)",
        f"  {copies * size / 1e6:.1f} MB of parameters, gradients, Adam's two moments"
        + (" and average" if copies == 5 else ""),
        "  look-ahead: "
        + (
            "the whole clip (bidirectional)"
            if ahead is None
            else f"{1000 * ahead:.1f} ms ({task.model.lookahead_frames} frames and the window)"
        ),
    ]
    if table:
        lines += ["", *("  " + row for row in params_lib.table(params).splitlines())]
    return lines
