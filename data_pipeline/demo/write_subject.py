"""Writes a subject's recordings: captures in NVIDIA's layout, and the truth beside them.

    OUT/captures/<person>/audio/<shot>.wav
                         /cache/skin/<shot>/<shot>.npy     [F, V, 3] float32, 60 frames/s
                         /cache/tongue/<shot>/<shot>.npy
                         /geom/... /xform/... /bs_data/... /shots.json
    OUT/truth/<person>/<shot>.npz                          never read by the build

A subject's folder is renamed to its final name only when it is complete.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from data_pipeline.demo import scans, takes
from data_pipeline.demo.takes import DemoSubject, Take
from data_pipeline.demo.voice import RATE

CAPTURE_FPS = 60


def person_folder(out: Path, person: DemoSubject) -> Path:
    """Returns the folder of a subject's captures."""
    return out / "captures" / person.name


def is_done(out: Path, person: DemoSubject, fingerprint: str) -> bool:
    """Returns whether a subject is complete and was made with the settings of a fingerprint."""
    return read_origin(person_folder(out, person)) == fingerprint


def read_origin(folder: Path) -> str | None:
    """Returns the settings fingerprint stored in a demo subject's folder, or None."""
    try:
        return json.loads((folder / "shots.json").read_text()).get("demo")
    except (OSError, ValueError, AttributeError):
        return None


def write_person(out: Path, person: DemoSubject, fingerprint: str) -> dict[str, Any]:
    """Records a subject and writes captures and truth, each folder atomically.

    Returns:
      {"seconds", "shots", "phones", "unknown": {ipa: count}} for the written files.
    """
    import soundfile

    final, truth = person_folder(out, person), out / "truth" / person.name
    partial = final.with_name(f".{person.name}.partial")
    partial_truth = truth.with_name(f".{person.name}.partial")
    for folder in (partial, partial_truth):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (partial / "audio").mkdir()
    actor = scans.Actor.of(person)
    shots: dict[str, Any] = {}
    eyes: dict[str, Any] = {}
    unknown: dict[str, int] = {}
    seconds, phones = 0.0, 0
    recorded: list[Take] = [takes.record_slate(person)]
    for index, sentence in enumerate(takes.sentences_for(person)):
        # Stop when one more take of the same length would overshoot by more than it adds.
        if index and seconds + 0.5 * recorded[-1].curves.duration >= person.seconds:
            break
        recorded.append(takes.record_take(person, index, sentence))
        seconds += recorded[-1].curves.duration
    for take in recorded:
        soundfile.write(partial / "audio" / f"{take.shot}.wav", take.audio, RATE, "PCM_16")
        scan = scans.scan(actor, take, CAPTURE_FPS)
        for part, vertices in (("skin", scan.skin), ("tongue", scan.tongue)):
            folder = partial / "cache" / part / take.shot
            folder.mkdir(parents=True)
            np.save(folder / f"{take.shot}.npy", vertices)
        eyes[take.shot] = scan.eye_rotations
        shots[take.shot] = _shot(person, take)
        _write_truth(partial_truth / f"{take.shot}.npz", person, take)
        phones += sum(s.phone.kind != "silence" for s in take.segments)
        for ipa, count in take.unknown.items():
            unknown[ipa] = unknown.get(ipa, 0) + count
    scans.write_geometry(partial, actor)
    (partial / "xform").mkdir()
    np.savez(partial / "xform" / "eye_rotations_all.npz", **eyes)
    report = {"seconds": seconds, "shots": len(shots) - 1, "phones": phones, "unknown": unknown}
    (partial / "shots.json").write_text(
        json.dumps(
            {
                "fps": CAPTURE_FPS,
                "units": "cm",
                "synthetic": True,
                "demo": fingerprint,
                "report": report,
                "shots": shots,
            },
            indent=1,
            ensure_ascii=False,
        ),
        encoding="utf-8",
    )
    for source, target in ((partial_truth, truth), (partial, final)):
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)
    return report


def _shot(person: DemoSubject, take: Take) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "sentence": take.sentence.key,
        "text": take.sentence.text,
        "language": take.sentence.language,
        "held_out": person.held_out,
    }
    if len(take.emotion_times) == 1:
        weights = take.emotion_weights[0]
        entry["emotion"] = {
            n: round(float(w), 6) for n, w in zip(rig.EMOTIONS, weights, strict=True) if w > 0
        }
    else:
        entry["emotion_track"] = {
            "times": [round(float(t), 6) for t in take.emotion_times],
            "weights": np.round(take.emotion_weights, 6).tolist(),
        }
    return entry


def _write_truth(path: Path, person: DemoSubject, take: Take) -> None:
    frames = len(take.audio) // takes.FRAME_SAMPLES
    phones = [[round(s.start, 5), round(s.end, 5), s.ipa, s.phone.name] for s in take.segments]
    times = np.arange(frames) / rig.FPS
    np.savez(
        path,
        motion=take.curves.at(times),
        emotion=takes.emotion_at(times, take.emotion_times, take.emotion_weights),
        phones=json.dumps(phones, ensure_ascii=False),
        offset=person.offset,
        shape=person.shape,
    )
