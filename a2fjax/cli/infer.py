"""Predict facial motion from a recording and write it to files.

The ending of an output selects the format (docs/files.md): .csv (Live Link Face), .channels.csv (a
time column and one column per channel), .json, .npz; .glb, .gltf, .usda, .usdc, .usdz (a head with
its shapes moving), .anim (Maya); .nim.csv, .omniverse.json (NVIDIA). With a diffusion run,
--samples 3 writes NAME.sample0.csv, NAME.sample1.csv and NAME.sample2.csv.
"""

from __future__ import annotations

import argparse
import time

from a2fjax import progress
from a2fjax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax infer`."""
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder that `a2fjax train` wrote")
    add("--audio", required=True, metavar="FILE", help="any rate, any number of channels")
    add("--out", action="append", default=[], metavar="FILE", help="may be repeated")
    add(
        "--identity",
        metavar="MESH|SUBJECT",
        help="neutral mesh (.npz .npy .obj .ply) or a subject of the shards; default: the mean",
    )
    add("--data", action="append", default=[], metavar="SHARDS", help="shards with the subjects")
    add(
        "--emotion",
        metavar="E",
        help="happy, or happy=0.7,sad=0.3, or a track over time (.json, .csv), or none for models "
        "trained with model.emotion_dropout; default: neutral",
    )
    add("--fps", default="50", help="frames a second of the output, such as 60, 29.97; default: 50")
    add("--step", type=int, help="checkpoint; default: the newest")
    add("--plot", metavar="PNG", help="figure of the main curves under the waveform")
    add("--plot-range", metavar="START:END", help="seconds to draw; default: all")
    add("--gain", action="append", default=[], metavar="NAME=X", help="factor, channel or group")
    add("--offset", action="append", default=[], metavar="NAME=X", help="added after the gain")
    add("--smooth", type=float, default=0.0, metavar="MS", help="Gaussian smoothing over time")
    add("--adjust", metavar="JSON", help="gain, offset, clamp, smooth_ms by channel or group")
    add(
        "--timecode",
        default="00:00:00:00.000",
        metavar="HH:MM:SS:FF.fff",
        help="timecode of the first frame, in Live Link Face files",
    )
    add(
        "--lookahead-ms",
        type=int,
        metavar="MS",
        help="audio heard ahead by a run for live audio; default: model.lookahead_ms",
    )
    group = parser.add_argument_group("files for other programs (docs/files.md)")
    add = group.add_argument
    add("--head", metavar="NPZ|demo", help="of scenes: neutral, faces and shapes; default: demo")
    add("--order", metavar="NAME", help="order and names of the columns, such as arkit52")
    add("--names-map", metavar="JSON", help="other names by channel, or metahuman_tongue")
    add(
        "--mouth-close",
        metavar="NAME",
        help="convention of mouthClose: arkit or nvidia; the file says which; default: arkit",
    )
    group = parser.add_argument_group("diffusion runs")
    add = group.add_argument
    add("--samples", type=int, metavar="N", help="number of samples to draw, a file each")
    add("--sample-steps", type=int, metavar="N", help="calls of the network a sample")
    add("--sampler", metavar="NAME", help="angle, dpm, ddim, ddpm; of distilled runs consistency")
    add("--sample-seed", type=int, metavar="N", help="seed of the noise")
    add("--guidance", metavar="NAME=X,...", help="strength of audio, emotion, identity; 1 is plain")
    add("--inpaint", metavar="FILE", help="motion to keep, except for what is predicted anew")
    add("--inpaint-channels", default="", metavar="A,B", help="channels or groups to predict")
    add("--inpaint-range", metavar="START:END", help="seconds to predict")


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax infer`.

    Raises:
      InputError: as for `a2fjax.api.model.Model.predict_to_files`.
    """
    from a2fjax.api import model
    from a2fjax.infer.progress import ProgressLine
    from a2fjax.view import drawing

    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax infer --help")
    figure_range = drawing.parse_range(args.plot_range)
    inpaint_range = drawing.parse_range(args.inpaint_range)
    start = time.monotonic()
    line = ProgressLine()
    with progress.shown(lambda: "" if line.done else "loading and compiling"):
        loaded = model.load(args.run, args.step, lookahead_ms=args.lookahead_ms)
        written = loaded.predict_to_files(
            args.audio,
            args.out,
            fps=args.fps,
            timecode=args.timecode,
            figure=args.plot,
            figure_range=figure_range,
            samples=args.samples,
            order=args.order,
            names_map=args.names_map,
            mouth_close=args.mouth_close,
            head=args.head,
            progress=line,
            emotion=args.emotion,
            identity=args.identity,
            shards=args.data,
            sampler=args.sampler,
            sample_steps=args.sample_steps,
            sample_seed=args.sample_seed,
            guidance=args.guidance,
            inpaint=args.inpaint,
            inpaint_channels=[name for name in args.inpaint_channels.split(",") if name],
            inpaint_range=inpaint_range,
            gain=args.gain,
            offset=args.offset,
            smooth_ms=args.smooth,
            adjust=args.adjust,
        )
    for path in written.outputs:
        print(
            f"{path}: {written.frames} frames at {float(written.fps):g} fps, "
            f"{written.seconds:.2f} s"
        )
    for path in written.figures:
        print(f"{path}: figure of the main curves")
    spent = time.monotonic() - start
    predicted = written.seconds * (args.samples or 1)
    print(f"{spent:.1f} s in all, {predicted / max(spent, 1e-9):.1f} x real time")
    return 0
