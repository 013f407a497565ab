r"""Evaluates the lip motion of a run on real recordings without ground truth.

    python benchmarks/real_speech.py RUN FOLDER [--step N] [--out JSON] [--emotion neutral]

FOLDER holds manifest.tsv with a header and the columns path, seconds, speaker, language, emotion
and transcript (text, an id, or empty). An optional NAME.phone.json next to NAME.flac is a phone
alignment by PocketSphinx (ARPABET). Results are reported per source (first folder of the path) and
in total:

    pause    aperture in pauses over the 90th percentile in speech (`a2fjax.metrics.silence`)
    long     the same in pauses of 0.4 s and more, 0.1 s away from speech
    zeros    the same in 1.5 s of digital silence appended to the recording
    loud_r   correlation of aperture and log energy (`a2fjax.metrics.energy`)
    dips     lip closures per second of speech: minima of the aperture at or below `closed` with a
             prominence of 0.15 of the 90th percentile; closed = max(0.05, 0.15 * that percentile)
    p/b/m    bilabials per second of speech: phones if aligned, otherwise letters (doubled ones
             count once) of Latin transcripts; `*` marks sources with recordings that have neither;
             dips then count only in recordings with a rate
    hits     share of aligned p, b, m whose aperture reaches `closed` within +-2 frames, and
    chance   the same after rolling the curves by 0.6 s
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import find_peaks

from a2fjax import rig
from a2fjax.audio import HOP, num_frames
from a2fjax.errors import InputError
from a2fjax.metrics import energy, lips, silence
from a2fjax.metrics.sums import Sums, merge

COLUMNS = ("path", "emotion", "transcript")
TARGETS = {"pause": 0.25, "zeros": 0.05}
BILABIALS = frozenset("PBM")
ZEROS_SECONDS = 1.5
SETTLE_FRAMES = 10
CLOSED_SHARE = 0.15
CLOSED_FLOOR = 0.05
ROLL_FRAMES = 30
REACH = 2


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording of the folder.

    Attributes:
      name: path in the manifest.
      audio: [samples], 16 kHz.
      emotion: name in the manifest.
      bilabials: number of bilabials in its phones or text; None if neither is known.
      phones: (start, end) in seconds of the aligned bilabials; None without an alignment.
    """

    name: str
    audio: np.ndarray
    emotion: str
    bilabials: int | None
    phones: list[tuple[float, float]] | None

    @property
    def source(self) -> str:
        """First folder of the path."""
        return self.name.split("/")[0]


def count_letters(text: str) -> int | None:
    """Returns the number of p, b and m in a transcript, doubled letters once; None for no text.

    A stand-in for phones: it counts the silent b of "thumb" and the p of "phone".
    """
    if not re.search(r"[^\W\d_]", text) or re.fullmatch(r"\w+-\d+", text):
        return None
    letters = [c for c in text if c.isalpha()]
    if not all(unicodedata.name(c, "").startswith("LATIN") for c in letters):
        return None
    return len(re.findall(r"p+|b+|m+", text.casefold()))


def read_phones(path: Path) -> list[tuple[float, float]]:
    """Returns (start, end) in seconds of the bilabials in a PocketSphinx alignment.

    Raises: InputError: the file is not a PocketSphinx alignment.
    """
    try:
        words = json.loads(path.read_text())["w"]
        phones = [phone for word in words for phone in word.get("w", [])]
        return [(p["b"], p["b"] + p["d"]) for p in phones if p["t"] in BILABIALS]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a phone alignment ({error})") from None


def read_folder(folder: Path, limit: int | None = None) -> list[Recording]:
    """Reads the recordings listed in a folder's manifest.

    Raises:
      InputError: no manifest, a missing column or recording, or as for `audio.io.load`.
    """
    from a2fjax.audio import io

    path = folder / "manifest.tsv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table with columns {COLUMNS}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or any(column not in rows[0] for column in COLUMNS):
        raise InputError(f"{path}: expected rows with the columns {', '.join(COLUMNS)}")
    out = []
    for row in rows[:limit]:
        file = folder / row["path"]
        aligned = file.with_suffix(".phone.json")
        phones = read_phones(aligned) if aligned.is_file() else None
        count = count_letters(row["transcript"] or "") if phones is None else len(phones)
        out.append(Recording(row["path"], io.load(file), row["emotion"] or "", count, phones))
    return out


def analyse(recording: Recording, motion: np.ndarray, zeros: np.ndarray) -> dict[str, Any]:
    """Analyses the curves of one recording.

    Args:
      recording: recording with T frames.
      motion: [T, 72] predicted motion.
      zeros: [Z, 72] predicted motion of the digital silence after it.

    Returns:
      Additive `Sums` under "sums", and the results of this recording.
    """
    from a2fjax.audio import level

    aperture = lips.aperture(motion)
    speech_level = level.speech_level(recording.audio)
    levels = silence.frame_level(recording.audio, len(motion))
    speech, rest = silence.segment(levels, speech_level)
    _, long_rest = silence.segment(levels, speech_level, min_pause_frames=20, settle_frames=5)
    good = np.ones(len(motion), bool)
    opening = silence.opening(aperture, speech)
    usable = opening >= silence.MIN_OPENING
    closed = max(CLOSED_FLOOR, CLOSED_SHARE * opening) if usable else CLOSED_FLOOR
    after = np.maximum(lips.aperture(zeros)[SETTLE_FRAMES:], 0.0)

    pauses = _rest_sums("pause", aperture, speech, rest)
    pauses |= _rest_sums("long", aperture, speech, long_rest)
    loudness = energy.log_level(levels, speech_level)
    loudness_sums = energy.sums(aperture, aperture, loudness=loudness, frame_mask=good)
    dips = _dips(aperture, speech, closed, opening) if usable else 0
    known = recording.bilabials is not None
    spoken = float(speech.sum()) / rig.FPS
    phones = recording.phones or []
    sums: Sums = {
        **pauses,
        **loudness_sums,
        "zeros/sum": np.float64(after.sum() / opening if usable else 0),
        "zeros/frames": np.float64(len(after) if usable else 0),
        "dips": np.float64(dips * known),
        "bilabials": np.float64(recording.bilabials or 0),
        "seconds": np.float64(spoken * known),
        "all_dips": np.float64(dips),
        "all_seconds": np.float64(spoken),
        "phones": np.float64(len(phones)),
        "hits": np.float64(_hits(aperture, phones, closed)),
        "chance": np.float64(_hits(np.roll(aperture, ROLL_FRAMES), phones, closed)),
    }
    return {
        "path": recording.name,
        "seconds": len(recording.audio) / 16_000,
        "speech_p90": opening if np.isfinite(opening) else None,
        **figures(sums),
        "sums": sums,
    }


def figures(sums: Sums) -> dict[str, float | None]:
    """Returns the results of merged sums; None where nothing was measured."""

    def ratio(top: str, bottom: str) -> float | None:
        return float(sums[top] / sums[bottom]) if sums[bottom] > 0 else None

    loud_r = float(energy.values(sums)["loudness_corr"])
    return {
        "pause": ratio("pause/sum", "pause/frames"),
        "pause_seconds": float(sums["pause/frames"]) / rig.FPS,
        "long": ratio("long/sum", "long/frames"),
        "zeros": ratio("zeros/sum", "zeros/frames"),
        "loud_r": loud_r if np.isfinite(loud_r) else None,
        "dips": ratio("dips", "seconds"),
        "pbm": ratio("bilabials", "seconds"),
        "all_dips": ratio("all_dips", "all_seconds"),
        "hits": ratio("hits", "phones"),
        "chance": ratio("chance", "phones"),
        "phones": float(sums["phones"]),
    }


def measure(model: Any, recordings: Sequence[Recording], emotion: str) -> dict[str, Any]:
    """Predicts and measures recordings.

    Args:
      model: a `Predictor`.
      recordings: recordings to animate.
      emotion: "manifest" for each recording's emotion, or the name of one emotion for all.

    Returns:
      {"all": results, "sources": {name: results}, "recordings": [results], "silence": aperture in
      two seconds of digital silence}.
    """
    from a2fjax.infer.predictor import Request

    requests = []
    for recording in recordings:
        name = recording.emotion or "neutral" if emotion == "manifest" else emotion
        # Pad to whole frames, so that the curves of the recording end where the zeros begin.
        padded = np.zeros(num_frames(len(recording.audio)) * HOP, np.float32)
        padded[: len(recording.audio)] = recording.audio
        tail = np.zeros(round(ZEROS_SECONDS * 16_000), np.float32)
        vector = rig.emotion_vector({name: 1.0})
        requests.append(Request(np.concatenate([padded, tail]), None, vector, None))
    motions = model.batch(requests)
    (still,) = model.batch([Request(np.zeros(32_000, np.float32), None, None, None)])
    found = []
    for recording, motion in zip(recordings, motions, strict=True):
        frames = num_frames(len(recording.audio))
        found.append(analyse(recording, motion[:frames], motion[frames:]))
    groups: dict[str, list[Sums]] = {}
    for recording, each in zip(recordings, found, strict=True):
        groups.setdefault(recording.source, []).append(each.pop("sums"))
    return {
        "all": figures(merge([s for part in groups.values() for s in part])),
        "sources": {name: _source(part) for name, part in groups.items()},
        "silence": float(np.maximum(lips.aperture(still), 0.0).mean()),
        "recordings": found,
    }


def table(result: dict[str, Any]) -> str:
    """Formats the results as aligned text, with a verdict for each target."""
    form = "{:<24}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}"
    names = ("pause", "long", "zeros", "loud_r", "dips", "pbm", "hits", "chance", "all_dips")
    head = ("pause", "long", "zeros", "loud_r", "dips/s", "p/b/m/s", "hits", "chance", "dips*/s")
    lines = [form.format("real recordings", *head)]
    for name, row in [*result["sources"].items(), ("all", result["all"])]:
        cells = ["-" if row[key] is None else f"{row[key]:.2f}" for key in names]
        lines.append(form.format(name, *cells))
    lines.append("dips/s where p/b/m are known, dips*/s everywhere")
    for key, most in TARGETS.items():
        value = result["all"][key]
        verdict = "not measured" if value is None else "met" if value <= most else "MISSED"
        shown = "-" if value is None else f"{value:.3f}"
        lines.append(f"{key}: {shown} of the speech p90, at most {most} wanted: {verdict}")
    lines.append(f"two seconds of digital silence alone: mean aperture {result['silence']:.3f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="real_speech.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("folder", type=Path, help="recordings with manifest.tsv")
    parser.add_argument("--step", type=int, help="checkpoint (default: the newest)")
    parser.add_argument("--out", type=Path, help="default: RUN/eval/real_speech_<step>.json")
    parser.add_argument("--limit", type=int, help="only the first so many recordings")
    parser.add_argument(
        "--emotion", default="neutral", help="for all recordings, or `manifest` for each its own"
    )
    args = parser.parse_args(argv)
    try:
        from a2fjax.evaluation import report
        from a2fjax.infer.predictor import Predictor

        if args.emotion != "manifest":
            rig.emotion_vector({args.emotion: 1.0})
        model = Predictor.load(args.run, args.step)
        recordings = read_folder(args.folder, args.limit)
        seconds = sum(len(r.audio) for r in recordings) / 16_000
        print(f"{len(recordings)} recordings, {seconds:.0f} s", file=sys.stderr)
        result = measure(model, recordings, args.emotion)
        result |= {
            "schema": 1,
            "run": os.fspath(args.run),
            "model": model.fingerprint,
            "step": model.step,
            "rig": rig.FINGERPRINT,
            "emotion": args.emotion,
            "targets": TARGETS,
        }
        out = args.out or Path(args.run) / "eval" / f"real_speech_{model.step}.json"
        report.write(out, result)
    except InputError as error:
        print(f"real_speech.py: error: {error}", file=sys.stderr)
        return 2
    print(table(result))
    print(f"report: {out}")
    return 0


def _source(parts: Sequence[Sums]) -> dict[str, float | None]:
    return {"recordings": float(len(parts)), **figures(merge(parts))}


def _rest_sums(name: str, aperture: np.ndarray, speech: np.ndarray, rest: np.ndarray) -> Sums:
    good = np.ones(len(aperture), bool)
    sums = silence.sums(aperture, aperture, speech=speech, rest=rest, frame_mask=good)
    return {f"{name}/sum": sums["silence/sum_p"], f"{name}/frames": sums["silence/frames_p"]}


def _dips(aperture: np.ndarray, speech: np.ndarray, closed: float, opening: float) -> int:
    # Treat the ends as open: lips that part at the first frame closed before it.
    curve = np.concatenate([[opening], aperture, [opening]])
    minima = find_peaks(-curve, prominence=CLOSED_SHARE * opening)[0] - 1
    return int((speech[minima] & (aperture[minima] <= closed)).sum())


def _hits(aperture: np.ndarray, phones: Sequence[tuple[float, float]], closed: float) -> int:
    hits = 0
    for start, end in phones:
        first = max(round(start * rig.FPS) - REACH, 0)
        part = aperture[first : round(end * rig.FPS) + REACH + 1]
        hits += bool(len(part) and part.min() <= closed)
    return hits


if __name__ == "__main__":
    sys.exit(main())
