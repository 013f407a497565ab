"""Measures errors of a demo build: `python -m data_pipeline.demo.check CAPTURES --shards SHARDS`.

Compares shards built from the demo's captures with the truth beside the captures, and reports for
each subject the error of the solved weights and of the clock offset.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from a2fjax import files, printing, progress, rig
from a2fjax.data import records
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_FAILED, InputError, WorkFailed

GROUPS = ("jaw_mouth", "tongue", "brows", "cheeks_nose")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Errors of one subject's clips.

    Attributes:
      subject: name of the subject.
      clips: number of compared clips.
      frames: number of compared frames; only frames that the build marks valid count.
      rmse: RMSE of all 68 weights.
      groups: RMSE by group of channels, see `GROUPS`.
      worst: the channel with the largest RMSE, and its RMSE.
      eyes: RMSE of the four eye angles in degrees.
      aperture: RMSE of the lip aperture, weight units.
      offset_ms: error of the offset, estimated minus true.
    """

    subject: str
    clips: int
    frames: int
    rmse: float
    groups: dict[str, float]
    worst: tuple[str, float]
    eyes: float
    aperture: float
    offset_ms: float


def compare(captures: Path, shards: Path, truth: Path | None = None) -> list[Comparison]:
    """Returns the comparison of every subject in the shards, in the manifest's order.

    Args:
      captures: folder of captures that `data_pipeline.demo` wrote.
      shards: dataset that `data_pipeline.build` built from them.
      truth: folder of the truth; by default "truth" beside `captures`.

    Raises:
      InputError: a folder is missing, or a clip has no truth.
    """
    truth = truth or captures.parent / "truth"
    for folder in (captures, truth):
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist; write it with python -m data_pipeline.demo")
    manifest = records.read_manifest(shards)
    by_subject: dict[str, list[records.Clip]] = {s.id: [] for s in manifest.subjects}
    for clip in _clips(shards, manifest):
        by_subject[clip.subject].append(clip)
    return [_compare(name, clips, truth) for name, clips in by_subject.items() if clips]


def _clips(shards: Path, manifest: records.Manifest) -> Iterator[records.Clip]:
    from array_record.python.array_record_module import ArrayRecordReader

    for shard in manifest.shards:
        reader = ArrayRecordReader(str(shards / shard.file))
        try:
            for record in reader.read_all():
                yield records.decode(record)
        finally:
            reader.close()


def _compare(subject: str, clips: list[records.Clip], truth: Path) -> Comparison:
    errors, apertures, offsets = [], [], []
    start: dict[str, int] = {}
    # A long take is cut into consecutive clips "<take>#0", "<take>#1", ...
    for clip in sorted(clips, key=_place):
        shot = clip.id.split("/", 1)[1].split("#")[0]
        path = truth / subject / f"{shot}.npz"
        if not path.is_file():
            raise InputError(f"{path}: no truth for clip {clip.id}")
        with np.load(path) as data:
            first = start.get(shot, 0)
            want = data["motion"][first : first + clip.frames]
            offsets.append(clip.extra.get("offset_s", 0.0) - float(data["offset"]))
        start[shot] = first + clip.frames
        if len(want) != clip.frames:
            raise InputError(
                f"clip {clip.id} has {clip.frames} frames, its truth {len(want)}: built from other "
                "captures?"
            )
        valid = clip.frame_mask
        errors.append((clip.motion - want)[valid])
        apertures.append((rig.aperture(clip.motion) - rig.aperture(want))[valid])
    error = np.concatenate(errors)
    each = np.sqrt(np.mean(error**2, axis=0))
    weights = each[rig.WEIGHT_CHANNELS]
    worst = int(weights.argmax())

    def rms(channels: np.ndarray) -> float:
        return float(np.sqrt(np.mean(each[channels] ** 2)))

    return Comparison(
        subject=subject,
        clips=len(clips),
        frames=len(error),
        rmse=rms(rig.WEIGHT_CHANNELS),
        groups={g: rms(rig.GROUPS[g]) for g in GROUPS},
        worst=(rig.CHANNELS[worst], float(weights[worst])),
        eyes=rms(rig.ANGLE_CHANNELS),
        aperture=float(np.sqrt(np.mean(np.concatenate(apertures) ** 2))),
        offset_ms=1e3 * float(np.mean(offsets)),
    )


def _place(clip: records.Clip) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(?:#(\d+))?", clip.id)
    assert match is not None
    return match[1], int(match[2] or 0)


def table(comparisons: Sequence[Comparison]) -> str:
    """Returns the comparisons as a table with a line of means."""
    head = f"{'person':<10}{'clips':>6}{'frames':>8}{'weights':>9}"
    head += "".join(f"{g:>12}" for g in GROUPS)
    head += f"{'aperture':>10}{'eyes deg':>10}{'offset ms':>11}  worst channel"
    lines = [head]
    for c in comparisons:
        line = f"{c.subject:<10}{c.clips:>6}{c.frames:>8}{c.rmse:>9.4f}"
        line += "".join(f"{c.groups[g]:>12.4f}" for g in GROUPS)
        line += f"{c.aperture:>10.4f}{c.eyes:>10.3f}{c.offset_ms:>+11.2f}"
        lines.append(line + f"  {c.worst[0]} {c.worst[1]:.4f}")
    line = (
        f"{'mean':<10}{sum(c.clips for c in comparisons):>6}{sum(c.frames for c in comparisons):>8}"
    )
    line += f"{np.mean([c.rmse for c in comparisons]):>9.4f}"
    line += "".join(f"{np.mean([c.groups[g] for c in comparisons]):>12.4f}" for g in GROUPS)
    line += f"{np.mean([c.aperture for c in comparisons]):>10.4f}"
    line += f"{np.mean([c.eyes for c in comparisons]):>10.3f}"
    # The mean of signed errors is not informative: show the largest one.
    largest = max((c.offset_ms for c in comparisons), key=abs)
    lines.append(line + f"{largest:>+11.2f}  (largest offset error)")
    return "\n".join(lines)


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Prints the comparison and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.demo.check",
        description="Compares shards built from the demo's captures with the truth.",
    )
    parser.add_argument("captures", help="OUT/captures of python -m data_pipeline.demo")
    parser.add_argument("--shards", required=True, help="what data_pipeline.build made of them")
    parser.add_argument("--truth", help="default: truth/ beside the captures")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args(argv)
    try:
        truth = Path(args.truth) if args.truth else None
        with progress.shown("comparing"):
            comparisons = compare(Path(args.captures), Path(args.shards), truth)
        print(table(comparisons))
        if args.json:
            files.write_text(
                args.json, json.dumps([dataclasses.asdict(c) for c in comparisons], indent=1)
            )
    except (InputError, WorkFailed) as error:
        print(f"python -m data_pipeline.demo.check: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
