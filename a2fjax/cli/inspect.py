"""Say what is in a run, a set of shards or an experiment, without a device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fjax.cli import inspect_devices
from a2fjax.view.text import table

if TYPE_CHECKING:
    from a2fjax.config import Config, Resolved
    from a2fjax.models.pretrained import Encoders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax inspect`."""
    parser.add_argument(
        "what",
        metavar="RUN|SHARDS|EXPERIMENT.py",
        nargs="+",
        help="told by its content; several folders of shards are shown as a mixture",
    )
    parser.add_argument("--step", type=int, help="of a run's checkpoint; default: the newest")
    parser.add_argument(
        "--weights", metavar="W,W...", help="of several folders of shards, as data.weights"
    )
    parser.add_argument(
        "--take",
        metavar="SUBJECT/TAKE",
        help="one take of shards; the beginning of its name will do",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="draw the take: .png, .pdf, .svg or .html (with its sound)"
    )
    parser.add_argument(
        "--range", metavar="START:END", help="seconds of the take to draw; default: all of it"
    )
    inspect_devices.add_arguments(parser)


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax inspect`.

    Raises:
      InputError: it is none of the three, or damaged.
    """
    from a2fjax import config
    from a2fjax.errors import InputError

    path = Path(args.what[0])
    is_experiment = path.suffix == ".py" or ".py:" in args.what[0]
    if extra and not is_experiment:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax inspect --help")
    inspect_devices.check(args, is_experiment=is_experiment)
    for flag in ("out", "range"):
        if getattr(args, flag) is not None and not args.take:
            raise InputError(f"--{flag} is of a take: give --take SUBJECT/TAKE too")
    if len(args.what) > 1 or args.take or args.weights:
        lines = sets(args)
    elif args.devices:
        resolved = config.load(args.what[0], config.parse_overrides(extra))
        lines = inspect_devices.lines(resolved, args)
    elif is_experiment:
        lines = experiment(config.load(args.what[0], config.parse_overrides(extra)), args.what[0])
    elif (path / "config.json").is_file():
        lines = run_folder(path, args.step)
    elif (path / "manifest.json").is_file():
        from a2fjax.view import dataset_summary

        lines = dataset_summary.summary_lines(path)
    elif path.is_dir():
        raise InputError(
            f"{path}: neither a run (config.json) nor shards (manifest.json) nor an experiment "
            "(.py) is there"
        )
    elif path.exists():
        raise InputError(f"{path}: expected a run folder, a shards folder or an experiment (.py)")
    else:
        raise InputError(f"{path}: no such file or folder")
    print("\n".join(lines).rstrip())
    return 0


def sets(args: argparse.Namespace) -> list[str]:
    """Returns what is in several folders of shards together, or in one take of them.

    Raises:
      InputError: a folder holds no shards, weights that do not fit, no such take, or the picture
        cannot be written.
    """
    from a2fjax import config
    from a2fjax.errors import InputError
    from a2fjax.view import dataset_summary

    if not args.take:
        weights = config.parse_value(args.weights) if args.weights else ()
        weights = weights if isinstance(weights, (tuple, list)) else (weights,)
        if not all(_is_number(w) for w in weights):
            raise InputError(f"--weights {args.weights}: expected numbers, such as 1,2.5")
        return dataset_summary.mixture_lines(args.what, [float(w) for w in weights])

    from a2fjax.view import drawing, page, take

    if args.out:
        drawing.check_format(args.out, page.FORMATS)
    part = drawing.parse_range(args.range)
    found = take.read(*take.find_take(args.what, args.take))
    start = 0.0
    if part is not None:
        found, start = take.cut(found, part)
    lines = take.summary_lines(found)
    if args.out:
        page.write(args.out, found, start=start)
        lines += ["", f"{args.out}: sound, curves and residual of the take"]
    else:
        lines += ["", "  --out take.png or take.html draws it"]
    return lines


def run_folder(folder: Path, step: int | None) -> list[str]:
    """Returns what is in a run folder.

    Raises:
      InputError: damaged, of another rig, or no such step.
    """
    from a2fjax import config as config_lib
    from a2fjax.models import params as params_lib
    from a2fjax.models import pretrained
    from a2fjax.train import checkpoints, tracking

    path = folder / "config.json"
    resolved = config_lib.from_json(path.read_bytes(), name=str(path))
    config = resolved.config
    lines = [f"run {folder}: {config.name}, fingerprint {config_lib.fingerprint(config)}"]
    lines += [f"  {line}" for line in _changed(resolved)]
    lines += ["", *_mixture(config)][:-1]
    steps = checkpoints.steps(folder)
    constants = None
    lines += ["", f"  checkpoints: {', '.join(map(str, steps)) or 'none yet'}"]
    if steps:
        step, params, meta = checkpoints.load_params(folder, step)
        if config.model.kind != "regression":
            # The widths of a head of geometry and the number of actors are theirs.
            constants = params["constants"]
        lines.append(f"  step {step} of {config.steps}, rig {meta['rig']}")
        values = {k: v for k, v in meta.get("metrics", {}).items() if isinstance(v, (int, float))}
        lines += [f"    {name} = {value:.6g}" for name, value in sorted(values.items())]
        lines += ["", *("  " + row for row in params_lib.table(params).splitlines())]
    lines += [
        "",
        *_model(config, constants=constants, encoders=pretrained.restore(folder, config.audio)),
    ]
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
    lines += [*(f"  {line}" for line in _changed(resolved)), ""]
    return [*lines, *_mixture(config), *_model(config, layers=True)]


def _mixture(config: Config) -> list[str]:
    """Returns lines on the sets that a configuration mixes, if several are and all are here."""
    folders = config.data.shards
    if len(folders) < 2 or not all((Path(f) / "manifest.json").is_file() for f in folders):
        return []
    from a2fjax.view import dataset_summary

    rows = dataset_summary.mixture_lines(folders, config.data.weights, config.data.split)
    return [*("  " + row if row else "" for row in rows), ""]


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


def _model(
    config: Config,
    *,
    layers: bool = False,
    constants: dict[str, Any] | None = None,
    encoders: Encoders | None = None,
) -> list[str]:
    """Returns lines on the model of a configuration; only shapes are computed."""
    import math

    import jax
    import jax.numpy as jnp

    from a2fjax import tasks
    from a2fjax.batch import Batch
    from a2fjax.data import loader
    from a2fjax.infer.predictor import batch_shapes
    from a2fjax.models import flops
    from a2fjax.models import params as params_lib

    task = tasks.build(config, constants, encoders)
    extractor = task.model.audio_features
    batch = batch_shapes(config, 1, config.data.window_frames)
    # Training encodes the whole clip of a window, or reads what is in a cache.
    cached = config.data.encoder_features == "cached"
    read = {key: (e.num_states, e.width) for key, e in extractor.encoders.items() if cached}
    heard = loader.context_frames(config)
    example = Batch.spec(
        1,
        config.data.window_frames,
        config.data.identity_points,
        context_frames=heard,
        cached=read,
    )
    params = jax.eval_shape(
        lambda b, weights: params_lib.merge(task.init(jax.random.key(0), b), weights),
        batch,
        task.pretrained,
    )
    trained, fixed = params_lib.split(params, task.frozen)

    def training(trained, fixed, batch):
        def loss(trained):
            params = params_lib.merge(trained, fixed)
            return task.loss(params, batch, jax.random.key(0), step=jnp.int32(0), train=True)[0]

        return jax.value_and_grad(loss)(trained)

    frames = config.data.window_frames
    forward = sum(flops.flops(task.predict, params, batch).values()) / frames
    update = sum(flops.flops(training, trained, fixed, example).values()) / frames
    own = params_lib.count({k: v for k, v in params.items() if k not in ("constants", "implicit")})
    size, constant = (
        sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))
        for tree in (trained, fixed)
    )
    copies = 4 + (config.optim.ema_decay > 0)
    ahead = task.model.lookahead_seconds
    lines = [
        f"  {params_lib.count(trained):,} trained parameters, {params_lib.count(fixed):,} constant",
        f"  {own:,} of network and encoders, without statistics and what is learnt of single clips",
        f"  {forward / 1e6:.2f} MFLOP a frame to predict, {update / 1e6:.2f} to train "
        f"({update * frames * config.data.batch_size / 1e9:.2f} GFLOP a step of "
        f"{config.data.batch_size} x {frames} frames)",
        f"  {copies * size / 1e6:.1f} MB of parameters, gradients, Adam's two moments"
        + (" and average" if copies == 5 else "")
        + (f"; {constant / 1e6:.1f} MB that are not trained" if extractor.encoders else ""),
        "  look-ahead: "
        + (
            f"the whole clip ({'encoders' if extractor.encoders else 'bidirectional'})"
            if ahead is None
            else f"{1000 * ahead:.1f} ms ({task.model.lookahead_frames} frames and the window)"
        ),
    ]
    for key, encoder in extractor.encoders.items():
        start = config.audio.encoder.train_from
        lines.append(
            f"  {key}: {encoder.num_layers} layers of width {encoder.width}, "
            f"{encoder.num_states} state{'s' if encoder.num_states > 1 else ''} a frame, "
            f"{'frozen' if start is None else f'trained from layer {start}'}"
            + (", read from a cache in training" if cached else "")
            + (f"; training hears clips of up to {heard} frames" if heard else "")
        )
    lines += [f"  {note}" for note in getattr(task.model, "notes", ())]
    if layers:
        lines += ["", *("  " + row for row in params_lib.table(params, task.frozen).splitlines())]
    return lines
