"""Finds takes that share their audio or their motion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.quality import fingerprints

_MAX_DUPLICATES = 2000


def find_duplicates(takes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Finds takes with the same audio or motion.

    Returns:
      For each group: "kind" ("same sound" and "same motion" for exact copies, "shared sound" for
      copies at another level, in another format, or in parts), "takes", "sentences" (their keys),
      and for shared sound its "seconds", "shift" (delay in s in the second take) and "differing"
      (share of bits; see `fingerprints`).
    """
    out: list[dict[str, Any]] = []
    for kind, part in (("same sound", "audio"), ("same motion", "motion")):
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for take in takes:
            digest = (take.get(part) or {}).get("digest")
            still = part == "motion" and len(take[part].get("dead") or ()) == len(
                take[part].get("range") or ()
            )
            silent = part == "audio" and take[part].get("speech_db", 0.0) is None
            if digest and not still and not silent:
                groups[digest].append(take)
        out += [_group(kind, g) for g in groups.values() if len(g) > 1]
    with_fingerprint = [t for t in takes if (t.get("audio") or {}).get("fingerprint")]
    for match in fingerprints.find_matches([t["audio"]["fingerprint"] for t in with_fingerprint]):
        pair = [with_fingerprint[match.first], with_fingerprint[match.second]]
        if pair[0]["audio"].get("digest") == pair[1]["audio"].get("digest"):
            continue
        out.append(
            _group("shared sound", pair)
            | {"seconds": match.seconds, "shift": match.shift, "differing": match.differing}
        )
    return out[:_MAX_DUPLICATES]


def _group(kind: str, takes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sentences = sorted({str(t.get("sentence", "")) for t in takes})
    return {"kind": kind, "takes": [t["take"] for t in takes], "sentences": sentences}
