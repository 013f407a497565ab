"""Runs `make demo`: corpus, shards, training, evaluation and an animated recording.

Each step is a separate command that users can also run directly; it is printed before it runs.
Finished steps are reused, so a second call, or one after an interruption, continues where the
first one stopped.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from a2fjax import printing
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_FAILED, ArgumentParser, InputError

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = ROOT / "experiments" / "regression_v2_3.py"
LINE = (
    "The quick brown fox jumps over a lazy dog. Perhaps my mother bought five purple plums, "
    "but nobody ever found them. What a wonderful morning it was!"
)


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit code."""
    parser = ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", default="demo", help="where everything goes (default: demo)")
    parser.add_argument("--audio", help="your own recording to animate (WAV, FLAC, OGG, MP3)")
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes of demo speech")
    parser.add_argument("--subjects", type=int, default=72, help="people to train on")
    parser.add_argument("--steps", type=int, help="training steps (default: the experiment's)")
    parser.add_argument("--emotion", default="neutral", help="emotion of the animated recording")
    try:
        return _run(parser.parse_args(argv))
    except InputError as error:
        print(f"make demo: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except subprocess.CalledProcessError as error:
        if error.returncode == EXIT_BAD_INPUT:
            return EXIT_BAD_INPUT  # The step has printed the error.
        print(f"make demo: stopped: the step above ended with {error.returncode}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("make demo: interrupted; run it again to go on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    _check(args)
    folder = Path(args.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--folder {folder}: cannot be made ({error.strerror})") from None
    start = time.monotonic()
    corpus, shards, run = folder / "corpus", folder / "shards", folder / "run"
    a2fjax = [sys.executable, "-m", "a2fjax.cli.main"]

    _step("1/5 Synthetic corpus: speech, articulation, simulated 4D scans")
    size = [f"--minutes={args.minutes:g}", f"--subjects={args.subjects}"]
    _call([sys.executable, "-m", "data_pipeline.demo", f"--out={corpus}", *size])

    _step("2/5 Shards: align, stabilise, solve, split")
    captures = corpus / "captures"
    _call([sys.executable, "-m", "data_pipeline.build", str(captures), f"--out={shards}"])

    _step("3/5 Train the regression model")
    train = [*a2fjax, "train", f"--config={EXPERIMENT}:demo", f"--workdir={run}"]
    train.append(f"--config.data.shards={shards}")
    train += _for_few_sentences(shards)
    if args.steps:
        train += [f"--config.steps={args.steps}", *_warm_up(args.steps)]
    _call(train)

    _step("4/5 Evaluate on sentences and people that training never met")
    report = folder / "evaluation.json"
    if _is_current(report, run, shards):
        print(f"{report} is up to date")
        _call([*a2fjax, "evaluate", str(run), f"--show={report}"])
    else:
        _call([*a2fjax, "evaluate", str(run), f"--out={report}"])

    _step("5/5 Animate a recording")
    recording = Path(args.audio) if args.audio else _recording(folder)
    stem = folder / "animation" / recording.stem
    stem.parent.mkdir(exist_ok=True)
    outputs = [f"--out={stem}{end}" for end in (".csv", ".json", ".npz")]
    infer = [*a2fjax, "infer", str(run), f"--audio={recording}", *outputs, f"--plot={stem}.png"]
    _call([*infer, f"--emotion={args.emotion}", "--fps=60"])

    _summary(report, stem, run, shards, recording, time.monotonic() - start)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises `InputError` early for input that a step would refuse only after minutes of work."""
    from a2fjax.animation import emotion
    from a2fjax.audio import io
    from data_pipeline.demo import takes

    if Path(args.folder).is_file():
        raise InputError(f"--folder {args.folder}: is a file; expected a folder")
    if args.audio:
        for _ in io.blocks(args.audio, 10.0):  # Read the whole file: damage may come late.
            pass
    emotion.parse(args.emotion)
    takes.draw_people(args.subjects, 1, args.minutes, seed=0)
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps {args.steps}: expected at least 1")


def _for_few_sentences(shards: Path) -> list[str]:
    """Returns the override for a corpus so small that no sentence was drawn for validation."""
    from a2fjax.data import records

    if records.read_manifest(shards).entries("val"):
        return []
    print("No sentence is left to validate on: training goes on without held-out values")
    return ["--config.eval.every_steps=0"]


def _warm_up(steps: int) -> list[str]:
    """Returns the override that shortens the warm-up of a run with few steps, if needed."""
    from a2fjax import configuration

    usual = configuration.load(f"{EXPERIMENT}:demo").config.optim.warmup_steps
    return [] if usual < steps else [f"--config.optim.warmup_steps={steps // 10}"]


def _recording(folder: Path) -> Path:
    from a2fjax.audio import io
    from data_pipeline.demo import voice

    path = folder / "speech.wav"
    if not path.exists():
        speech = voice.synthesize(LINE, voice.Voice(language="en", variant="Alicia"))
        io.save(path, speech.audio, voice.RATE)
        print(f"No AUDIO given: {path} is spoken by a voice outside the corpus (eSpeak NG)")
    return path


def _step(title: str) -> None:
    print(f"\n=== {title}", flush=True)


def _call(command: list[str]) -> None:
    shown = ["python" if part == sys.executable else part for part in command]
    print("$ " + shlex.join(shown), flush=True)
    subprocess.run(command, check=True)


def _is_current(report: Path, run: Path, shards: Path) -> bool:
    """Returns whether a report is newer than the shards and the last line of the run."""
    inputs = (run / "metrics.jsonl", shards / "manifest.json")
    return report.exists() and report.stat().st_mtime >= max(p.stat().st_mtime for p in inputs)


def _summary(
    report: Path, stem: Path, run: Path, shards: Path, recording: Path, seconds: float
) -> None:
    print(f"\n=== Done in {seconds / 60:.1f} min. All data above is synthetic.")
    for name, path in {
        "shards": shards,
        "run": run,
        "evaluation": report,
        "animation": f"{stem}.csv (Live Link Face), .json, .npz",
        "plot": f"{stem}.png",
    }.items():
        print(f"  {name:<11}{path}")
    for line in json.loads(report.read_text())["headline"]:
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
