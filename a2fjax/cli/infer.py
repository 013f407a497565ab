"""Turn a recording into the curves of a face.

The output's ending names the format: .csv (Live Link Face), .channels.csv (a time column and one
column a channel), .json, .npz. Of a diffusion run --takes 3 writes NAME.take0.csv, NAME.take1.csv
and NAME.take2.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `a2fjax infer`."""
    parser.add_argument("run", help="run folder that `a2fjax train` wrote")
    parser.add_argument("--audio", required=True, metavar="FILE", help="any rate, any channels")
    parser.add_argument(
        "--out", action="append", default=[], metavar="FILE", help="may be given several times"
    )
    parser.add_argument(
        "--identity",
        metavar="MESH|SUBJECT",
        help="neutral mesh (.npz .npy .obj .ply) or a subject of the shards; default: the mean",
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="SHARDS", help="where subjects are looked up"
    )
    parser.add_argument(
        "--emotion",
        metavar="E",
        help="happy, or happy=0.7,sad=0.3, or a track over time (.json, .csv), or none for a model "
        "that may choose; default: neutral",
    )
    parser.add_argument("--fps", default="50", help="of the output, such as 60, 29.97; default 50")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
    parser.add_argument("--plot", metavar="PNG", help="picture of the curves over the waveform")
    parser.add_argument(
        "--plot-range", metavar="START:END", help="seconds to draw; default: all of the recording"
    )
    parser.add_argument(
        "--gain", action="append", default=[], metavar="NAME=X", help="factor of a channel or group"
    )
    parser.add_argument(
        "--offset", action="append", default=[], metavar="NAME=X", help="added after the gain"
    )
    parser.add_argument(
        "--smooth", type=float, default=0.0, metavar="MS", help="Gaussian smoothing over time"
    )
    _add_sampling(parser)
    parser.add_argument("--takes", type=int, metavar="N", help="that many motions for the line")
    parser.add_argument(
        "--edit", metavar="FILE", help="curves to keep, but for what is to be made anew"
    )
    parser.add_argument(
        "--remake", default="", metavar="A,B", help="with --edit: channels or groups to make anew"
    )
    parser.add_argument(
        "--remake-range", metavar="START:END", help="with --edit: seconds to make anew"
    )
    parser.add_argument(
        "--timecode",
        default="00:00:00:00.000",
        metavar="HH:MM:SS:FF.fff",
        help="of the first frame, Live Link only",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds how a diffusion run is to sample; see `_sampling_values`."""
    parser.add_argument(
        "--sample-steps", type=int, metavar="N", help="calls of the network a sample"
    )
    parser.add_argument(
        "--sampler", metavar="NAME", help="of a diffusion run: angle, dpm, ddim or ddpm"
    )
    parser.add_argument("--seed-of-takes", type=int, metavar="N", help="other noise, other takes")
    parser.add_argument(
        "--guidance", metavar="NAME=X,...", help="strength of audio, emotion, identity; 1 is plain"
    )


def _sampling_values(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of `model.sample` that were given.

    Raises:
      InputError: a strength of guidance that is none.
    """
    from a2fjax.infer import sampling

    given = {"sampler": args.sampler, "seed": args.seed_of_takes, "steps": args.sample_steps}
    return {k: v for k, v in given.items() if v is not None} | sampling.parse_guidance(
        args.guidance
    )


def run(args: argparse.Namespace, extra: list[str]) -> int:
    """Runs `a2fjax infer`.

    Raises:
      InputError: anything the user gave is wrong; no file is left behind.
    """
    from a2fjax import files
    from a2fjax.animation import emotion as emotion_lib
    from a2fjax.animation import formats, livelink, tracks
    from a2fjax.audio import io
    from a2fjax.errors import InputError
    from a2fjax.infer import identity as identity_lib
    from a2fjax.infer import plot, postprocess
    from a2fjax.infer import sampling as sampling_lib

    # What is cheap to check comes before what takes time.
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax infer --help")
    if not args.out and not args.plot:
        raise InputError("nothing to write: give --out FILE (.csv, .json, .npz) or --plot FILE")
    fps = tracks.rate(args.fps)
    if args.takes is not None and args.takes < 1:
        raise InputError(f"--takes {args.takes}: expected at least 1")
    for path in args.out:
        formats.ending(path)
    outputs = [list(_outputs(args, take)) for take in range(args.takes or 1)]
    seen: set[Path] = set()
    for path in [path for each in outputs for path in each]:
        if Path(path).resolve() in seen:
            raise InputError(f"{path}: is given twice as an output")
        seen.add(Path(path).resolve())
        files.check_writable(Path(path))
    for path in args.out:
        if Path(path).resolve() == Path(args.audio).resolve():
            raise InputError(f"{path}: is the recording itself")
    if args.plot:
        plot.check_format(args.plot)
    sampled = _sampling_values(args)
    edit = None
    if args.edit:
        remake = [name for name in args.remake.split(",") if name]
        edit = sampling_lib.read_inpainting(args.edit, remake, plot.parse_range(args.remake_range))
    elif args.remake or args.remake_range:
        raise InputError("--remake and --remake-range: need the curves of which; give --edit FILE")
    drawn = plot.parse_range(args.plot_range)
    livelink.check_start(args.timecode, fps)
    settings = postprocess.adjustment(args.gain, args.offset, args.smooth)
    emotion = emotion_lib.parse(args.emotion)
    io.info(args.audio)

    from a2fjax.infer import offline, predictor

    config = predictor.read_config(args.run).config
    if not sampling_lib.is_sampled(config):
        given = {"--takes": args.takes, "--edit": args.edit, "--sample-steps": args.sample_steps}
        for flag in [name for name, value in given.items() if value is not None] or list(sampled):
            raise InputError(
                f"{flag}: {args.run} is no diffusion run; it has one motion for a line"
            )
    emotion_lib.check_unspecified(emotion, config.model.emotion_dropout)
    mesh = subject = None
    if args.identity is not None and config.model.identity == "mesh":
        mesh = identity_lib.load_mesh(args.identity, args.data or config.data.shards)
    model = predictor.Predictor.load(args.run, args.step, sample=sampled)
    if args.identity is not None:
        subject = identity_lib.training_subject(args.identity, model.subjects)
        if config.model.identity == "none" and subject is None:
            raise InputError(
                identity_lib.unused_identity_message(args.identity, args.run, model.subjects)
            )
    started = time.monotonic()
    survey = offline.RecordingStats(io.blocks(args.audio, offline.BLOCK_SECONDS))
    frames = tracks.resampled_frames(survey.frames, 50, fps)
    for take, paths in enumerate(outputs):
        curves = plot.Curves()
        adjust, resample = postprocess.Postprocess(settings), tracks.Resampler(50, fps)
        metadata = {"audio": Path(args.audio).name, "model": model.fingerprint}
        if args.takes:
            metadata["take"] = str(take)
        files_out = paths[: len(args.out)]
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(
                    formats.writer(
                        path, fps=fps, frames=frames, start=args.timecode, metadata=metadata
                    )
                )
                for path in files_out
            ]

            def put(motion, curves=curves, resample=resample, writers=writers):
                if args.plot:
                    curves.push(motion)
                motion = resample.push(motion)
                for writer in writers:
                    writer.write(motion)

            for part in offline.predict(
                model,
                io.blocks(args.audio, offline.BLOCK_SECONDS),
                survey,
                identity=mesh,
                emotion=emotion,
                subject=subject,
                take=take,
                edit=edit,
                progress=offline.Progress(survey.frames),
            ):
                put(adjust.push(part))
            put(adjust.finish())
            rest = resample.finish()
            for writer in writers:
                writer.write(rest)
            if args.plot:
                plot.draw(
                    paths[-1],
                    curves,
                    survey.low,
                    survey.high,
                    emotion=emotion.sample(survey.frames),
                    title=f"{Path(args.audio).name}  ·  {Path(args.run).name} step {model.step}"
                    + (f"  ·  take {take}" if args.takes else ""),
                    seconds=drawn,
                )
    spent = time.monotonic() - started
    seconds = survey.frames / 50
    for paths in outputs:
        for path in paths[: len(args.out)]:
            print(f"{path}: {frames} frames at {float(fps):g} a second, {seconds:.2f} s")
        if args.plot:
            print(f"{paths[-1]}: picture of the main curves")
    speed = seconds * len(outputs) / max(spent, 1e-9)
    print(f"{spent:.1f} s of work, {speed:.1f} x real time")
    return 0


def _outputs(args: argparse.Namespace, take: int) -> Iterator[str]:
    """Yields the files of a take, the picture last; with --takes its number is in their names."""
    from a2fjax.animation import formats

    for path in args.out:
        end = formats.ending(path)
        yield f"{path[: -len(end)]}.take{take}{end}" if args.takes else path
    if args.plot:
        place = Path(args.plot)
        yield str(place.with_suffix(f".take{take}{place.suffix}")) if args.takes else args.plot
