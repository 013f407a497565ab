"""What the manifest and the report say of the offsets that a sync expert found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from a2fjax.sync.offsets import AGREEMENT
from data_pipeline.settings import BuildSettings
from data_pipeline.stages.sync_expert import SyncExpert


def facts(
    summaries: Sequence[Mapping[str, Any]], expert: SyncExpert, settings: BuildSettings
) -> dict[str, Any]:
    """Returns the facts about all takes, as JSON values.

    Args:
      summaries: of the takes; see `cut_clips.run_job`.
      expert: the expert.
      settings: build settings.

    Returns:
      "run", "step", "weights", "gate_passed", "mode"; numbers of "takes" with sound, of those with
      an offset ("judged"), "out_of_step" (interval without 0, more than a frame) and "moved";
      "median_s" of the judged takes' offsets' sizes, None without any; "takes_out_of_step" with
      "seconds", "low", "high", "confidence", "moved" and "why" by name.
    """
    said = {s["take"]: s["sync"] for s in summaries if "sync" in s}
    found = {k: v for k, v in said.items() if v["seconds"] is not None}
    astray = {k: v for k, v in found.items() if _out_of_step(v)}
    listed = astray | {k: v for k, v in said.items() if v["moved"]}
    names = ("seconds", "low", "high", "confidence", "moved", "why")
    sizes = [abs(v["seconds"]) for v in found.values()]
    return {
        "run": settings.sync,
        "step": expert.step,
        "weights": expert.weights,
        "gate_passed": expert.passed,
        "mode": settings.sync_offset,
        "takes": len(said),
        "judged": len(found),
        "out_of_step": len(astray),
        "moved": sum(bool(v["moved"]) for v in said.values()),
        "median_s": round(float(np.median(sizes)), 4) if sizes else None,
        "takes_out_of_step": {k: {n: v[n] for n in names} for k, v in sorted(listed.items())},
    }


def _out_of_step(said: Mapping[str, Any]) -> bool:
    within = said["low"] <= 0.0 <= said["high"]
    return not within and abs(said["seconds"]) > AGREEMENT
