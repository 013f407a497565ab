"""Stage 3: checks takes against thresholds, assigns splits, writes shards, report and manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, rig
from a2fjax.data import records
from a2fjax.errors import InputError, WorkFailed
from data_pipeline.quality import report
from data_pipeline.quality.thresholds import quarantine_reasons
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Actor, Source
from data_pipeline.stages import shard_writer, splits, sync_report
from data_pipeline.stages.sync_expert import SyncExpert
from data_pipeline.stages.take_notes import notes_of

_NOT_REPORTED = "key file entries bytes moving observed slate rejected retry".split()
"""Keys of a take's summary that only the build needs."""


def write_dataset(
    out: Path,
    source: Source,
    actors: list[Actor],
    summaries: list[dict[str, Any]],
    content: dict[str, str],
    rejected: dict[str, str],
    held_out: set[str],
    settings: BuildSettings,
    expert: SyncExpert | None = None,
) -> records.Manifest:
    """Checks takes against the thresholds and writes the dataset.

    Args:
      out: folder of the dataset.
      source: the captures; provides the neutral meshes.
      actors: actors of the source.
      summaries: summaries of all solved takes; see `cut_clips.run_job`.
      content: digest of the bytes of each take's files, by "subject/take".
      rejected: reasons why the other takes were left out, by "subject/take".
      held_out: subjects held out of training.
      settings: build settings.
      expert: the sync expert that was asked, or None.

    Raises:
      InputError: no take is left.
    """
    judged = judge_takes(summaries, content, settings)
    used = [s for s in judged if s["verdict"] == "used"]
    refused = dict(rejected)
    refused |= {s["take"]: s["rejected"] for s in judged if s["verdict"] == "rejected"}
    quarantined = {
        s["take"]: "; ".join(s["reasons"]) for s in judged if s["verdict"] == "quarantined"
    }
    if not used:
        takes = len(refused) + len(quarantined)
        first = next(iter(sorted({**refused, **quarantined}.items())), None)
        why = f"; first: {first[0]}: {first[1]}" if first else ""
        if judged:
            warnings = [f"{s['take']}: {w}" for s in judged for w in s["warnings"]]
            _report(out, source, judged, refused, settings, {"warnings": warnings})
            why += f"; {out / 'quality.html'} says more"
        raise InputError(f"{source.path}: none of {takes} takes could be used{why}")
    split_by_sentence = _assign_splits({e[1] for s in used for e in s["entries"]}, settings)
    # A curve that is zero in all takes was not captured, since no face is that still.
    moving = np.zeros(rig.NUM_CHANNELS, bool)
    for summary in used:
        if not summary["solved"]:
            moving |= np.array(summary["moving"])

    def split_of(summary: dict[str, Any]) -> str:
        return splits.clip_split(
            summary["subject"] in held_out, split_by_sentence[summary["sentence"]]
        )

    def clips() -> Iterator[records.Clip]:
        for summary in used:
            file = files.inside(
                out / ".build" / "clips", summary["file"], where=".build: file of clips", plain=True
            )
            for clip in _read_clips(file, summary["entries"]):
                mask = clip.channel_mask
                yield dataclasses.replace(
                    clip,
                    split=split_of(summary),
                    channel_mask=mask if summary["solved"] else mask & moving,
                )

    names = {s["subject"] for s in used}
    meshes, warnings = {}, [f"{s['take']}: {w}" for s in judged for w in s["warnings"]]
    for actor in actors:
        if actor.name not in names:
            continue
        try:
            mesh = source.mesh(actor.name)
            if mesh is not None:
                meshes[actor.name] = records.check_mesh(*mesh, name=actor.name)
        except (InputError, ValueError) as error:
            warnings.append(f"{actor.name}: no identity: {error}")
    subjects = [
        records.Subject(
            id=a.name,
            mesh=f"subjects/{a.name}.npz" if a.name in meshes else None,
            held_out=a.name in held_out,
        )
        for a in actors
        if a.name in names
    ]
    unobserved = (
        [] if all(s["solved"] for s in used) else [rig.CHANNELS[i] for i in np.flatnonzero(~moving)]
    )

    sync_facts = {} if expert is None else {"sync": sync_report.facts(judged, expert, settings)}

    def describe(statistics: dict[str, Any]) -> dict[str, Any]:
        empty = [k for k in ("train", "val", "test_sentences") if not statistics["hours"][k]]
        if empty:
            warnings.append(
                f"no clip in {', '.join(empty)}: of {len(split_by_sentence)} sentences the draw "
                "gave it none; name some with --config.val_sentences=... or "
                "--config.test_sentences=..."
            )
        clocks: dict[str, Any] = {}
        for summary in judged:
            clocks.setdefault(summary["subject"], summary["clock"])
        fits = [(s["fit"]["residual_mm"], s["seconds"]) for s in used if "fit" in s]
        return {
            "input": str(source.path),
            "layout": source.layout,
            "settings": dataclasses.asdict(settings),
            "rejected": [{"take": k, "reason": v} for k, v in sorted(refused.items())],
            "quarantined": [{"take": k, "reason": v} for k, v in sorted(quarantined.items())],
            "warnings": warnings,
            "notes": notes_of(judged),
            "offsets": clocks,
            **sync_facts,
            "residual_mm": sum(mm * s for mm, s in fits) / (sum(s for _, s in fits) or 1.0),
            "kkt": max(s["kkt"] for s in used),
            "unobserved_zero_channels": unobserved,
        }

    for summary in judged:
        summary["split"] = split_of(summary) if summary["verdict"] == "used" else ""

    def write_report_files(manifest: records.Manifest) -> None:
        facts = {
            "warnings": manifest.source["warnings"],
            "statistics": manifest.statistics,
            "unobserved_zero_channels": unobserved,
            **sync_facts,
        }
        _report(out, source, judged, refused, settings, facts)

    return shard_writer.write_shards(
        out,
        clips,
        sum(len(s["entries"]) for s in used),
        sum(s["bytes"] for s in used),
        files=settings.files,
        subjects=subjects,
        meshes=meshes,
        source=describe,
        before_manifest=write_report_files,
    )


def _report(
    out: Path,
    source: Source,
    judged: list[dict[str, Any]],
    refused: dict[str, str],
    settings: BuildSettings,
    facts: dict[str, Any],
) -> None:
    """Writes quality.json and quality.html of all takes."""
    lost = [
        {"take": k, "subject": k.split("/")[0], "verdict": "rejected", "reasons": [v]}
        for k, v in sorted(refused.items())
    ]
    takes = [
        {k: v for k, v in summary.items() if k not in _NOT_REPORTED}
        for summary in judged
        if summary["verdict"] in ("used", "quarantined")
    ]
    facts = {
        "name": source.path.resolve().name,
        "layout": source.layout,
        "thresholds": dataclasses.asdict(settings.thresholds()),
        "settings": dataclasses.asdict(settings),
        **facts,
    }
    report.write_report(out, report.assemble_report(takes + lost, facts))


def _read_clips(path: Path, entries: list[Any]) -> Iterator[records.Clip]:
    """Yields the clips of a take, in the order of its entries."""
    import msgpack

    read = 0
    try:
        with path.open("rb") as file:
            for record in msgpack.Unpacker(file, max_buffer_size=2**31 - 1):
                clip = records.decode(record)
                if read == len(entries) or clip.id != entries[read][0]:
                    raise ValueError(f"{clip.id} is not expected there")
                read += 1
                yield clip
        if read < len(entries):
            raise ValueError(f"holds {read} of {len(entries)} clips")
    except (ValueError, KeyError, TypeError, msgpack.exceptions.UnpackException) as error:
        path.unlink(missing_ok=True)
        raise WorkFailed(f"{path}: is damaged ({error}) and was removed; run it again") from None


def judge_takes(
    summaries: list[dict[str, Any]], content: dict[str, str], settings: BuildSettings
) -> list[dict[str, Any]]:
    """Returns the summaries, in order, with "verdict" and "reasons" added.

    Args:
      summaries: see `cut_clips.run_job`.
      content: digest of the bytes of each take's files, by "subject/take".
      settings: build settings.

    Returns:
      Verdicts are "used", "quarantined" (readable, but beyond a threshold or a duplicate),
      "rejected" (gave no clip) and "slate".
    """
    thresholds = settings.thresholds()
    first: dict[Any, str] = {}
    out = []
    for summary in summaries:
        reasons = []
        if summary["slate"]:
            verdict = "slate"
        elif summary["rejected"] or not summary["entries"]:
            verdict, reasons = "rejected", [summary["rejected"] or "no frame under its audio"]
            summary = {**summary, "rejected": reasons[0]}
        else:
            reasons = quarantine_reasons(summary, thresholds)
            for key, what in _fingerprints(summary, content[summary["take"]]):
                twin = first.setdefault(key, summary["take"])
                if twin != summary["take"]:
                    reasons.append(f"{what} as {twin}")
                    break
            verdict = "quarantined" if reasons else "used"
        out.append({**summary, "verdict": verdict, "reasons": reasons})
    return out


def _fingerprints(summary: dict[str, Any], content: str) -> Iterator[tuple[Any, str]]:
    """Yields (value that no two takes may share, its meaning as text)."""
    yield content, "the same files"
    audio, motion = summary.get("audio") or {}, summary.get("motion") or {}
    still = len(motion.get("dead") or ()) == len(motion.get("range") or ())
    if audio.get("digest") and motion.get("digest") and not still:
        yield (audio["digest"], motion["digest"]), "the same sound and motion"


def _assign_splits(keys: set[str], settings: BuildSettings) -> dict[str, str]:
    """Returns the split of each sentence."""
    return {
        key: splits.split_with_named(
            key,
            test=settings.test_sentences,
            val=settings.val_sentences,
            otherwise=splits.sentence_split(key, settings.seed, settings.val, settings.test),
        )
        for key in sorted(keys)
    }
