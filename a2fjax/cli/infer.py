"""Turn a recording into the curves of a face.

The output's ending names the format: .csv (Live Link Face), .channels.csv (a time column and one
column a channel), .json, .npz.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path


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
    parser.add_argument(
        "--timecode",
        default="00:00:00:00.000",
        metavar="HH:MM:SS:FF.fff",
        help="of the first frame, Live Link only",
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

    # What is cheap to check comes before what takes time.
    if extra:
        raise InputError(f"unexpected argument {extra[0]!r}; see a2fjax infer --help")
    if not args.out and not args.plot:
        raise InputError("nothing to write: give --out FILE (.csv, .json, .npz) or --plot FILE")
    fps = tracks.rate(args.fps)
    seen: set[Path] = set()
    for path in [*args.out, *([args.plot] if args.plot else [])]:
        if Path(path).resolve() in seen:
            raise InputError(f"{path}: is given twice as an output")
        seen.add(Path(path).resolve())
        files.check_folder(Path(path))
    for path in args.out:
        formats.ending(path)
        if Path(path).resolve() == Path(args.audio).resolve():
            raise InputError(f"{path}: is the recording itself")
    if args.plot:
        plot.check_format(args.plot)
    drawn = plot.parse_range(args.plot_range)
    livelink.check_start(args.timecode, fps)
    settings = postprocess.adjustment(args.gain, args.offset, args.smooth)
    emotion = emotion_lib.parse(args.emotion)
    io.info(args.audio)

    from a2fjax.infer import offline, predictor

    config = predictor.read_config(args.run).config
    emotion_lib.check_told(emotion, config.model.emotion_dropout)
    mesh = subject = None
    if args.identity is not None and config.model.identity == "mesh":
        mesh = identity_lib.load(args.identity, args.data or config.data.shards)
    model = predictor.Predictor.load(args.run, args.step)
    if args.identity is not None:
        subject = identity_lib.trained(args.identity, model.subjects)
        if config.model.identity == "none" and subject is None:
            raise InputError(identity_lib.no_use(args.identity, args.run, model.subjects))
    started = time.monotonic()
    survey = offline.Survey(io.blocks(args.audio, offline.BLOCK_SECONDS))
    frames = tracks.resampled_frames(survey.frames, 50, fps)
    curves = plot.Curves()
    adjust, resample = postprocess.Postprocess(settings), tracks.Resampler(50, fps)
    metadata = {"audio": Path(args.audio).name, "model": model.fingerprint}
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                formats.writer(path, fps=fps, frames=frames, start=args.timecode, metadata=metadata)
            )
            for path in args.out
        ]

        def put(motion):
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
            progress=offline.Progress(survey.frames),
        ):
            put(adjust.push(part))
        put(adjust.finish())
        rest = resample.finish()
        for writer in writers:
            writer.write(rest)
        if args.plot:
            plot.draw(
                args.plot,
                curves,
                survey.low,
                survey.high,
                emotion=emotion.sample(survey.frames),
                title=f"{Path(args.audio).name}  ·  {Path(args.run).name} step {model.step}",
                seconds=drawn,
            )
    spent = time.monotonic() - started
    seconds = survey.frames / 50
    for path in args.out:
        print(f"{path}: {frames} frames at {float(fps):g} a second, {seconds:.2f} s")
    if args.plot:
        print(f"{args.plot}: picture of the main curves")
    print(f"{spent:.1f} s of work, {seconds / max(spent, 1e-9):.1f} x real time")
    return 0
