"""The model card: README.md with the front matter that the hub reads, and NOTICE."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import budgets
from a2fjax.export.description import Rights

TAGS = ("audio-to-face", "facial-animation", "blendshapes", "arkit", "lip-sync", "jax")

_HEADLINE = {
    "rmse_ratio": "RMSE of jaw and mouth, relative to the mean pose",
    "closure_f1": "F1 of lip closures",
}


def card(description: Mapping[str, Any], rights: Rights, run: Path, parity: Any) -> str:
    """Returns the text of README.md.

    Args:
      description: the manifest.
      rights: terms of the weights.
      run: folder of the run; its newest evaluation gives the figures.
      parity: reports by file.
    """
    lines = ["---", *_front_matter(description, rights, evaluation(run)), "---", ""]
    look_ahead = description["look_ahead"]["seconds"]
    hears = "the whole recording" if look_ahead is None else f"{look_ahead:.3f} s ahead"
    lines += [
        f"# {description['name']}",
        "",
        "Speech in, 72 rig channels a frame out at 50 frames a second: 52 ARKit blendshapes, 16 "
        "tongue shapes, 4 eye angles.",
        "",
        f"- model: {description['kind']}, step {description['step']}, "
        f"fingerprint {description['fingerprint']}",
        f"- audio: 16 kHz mono; a frame depends on {hears}",
        f"- features: {', '.join(description['features'])}",
        f"- mouthClose: {description['mouth_close']}",
        f"- emotions: {', '.join(description['emotions'])}",
        "",
        "Channels, units, ranges and all constants are in `a2fjax.json`.",
        "",
        "## Use",
        "",
        "    a2fjax infer . --audio example/in.wav --out out.csv",
        "",
        "Without a2fjax, the graphs below take arrays of a recording; `examples/` of a2fjax has a "
        "program for NumPy, Node and C.",
        "",
        *_graphs(description, parity),
        "## Limits",
        "",
        "- Audio says little about blinks, brows and gaze.",
        "- Voices, languages, microphones and faces unlike the training data give worse motion.",
        "- A face made to speak can deceive. Say that it is synthetic.",
        "",
        "## Licences",
        "",
        f"Weights: {_license_words(rights)}. Training data: "
        f"{', '.join(rights.datasets) or 'not stated'}. `example/in.wav` is synthetic and free.",
        "",
    ]
    return "\n".join(lines)


def evaluation(run: Path) -> dict[str, Any]:
    """Returns the newest report in RUN/eval; {} without one."""
    reports = sorted(
        (p for p in (run / "eval").glob("*.json") if p.stem.isdecimal()), key=lambda p: int(p.stem)
    )
    return dict(budgets.load_json(reports[-1])) if reports else {}


def notice(description: Mapping[str, Any], rights: Rights) -> str:
    """Returns the text of NOTICE."""
    library = description["library"]
    return (
        f"Exported by {library['name']} {library['version']} (Apache-2.0).\n"
        f"Weights: {_license_words(rights)}.\n"
        f"Training data: {', '.join(rights.datasets) or 'not stated'}.\n"
    )


def license_text(rights: Rights) -> str:
    """Returns the text of LICENSE: where the terms of the weights are to be found."""
    if rights.license == "other":
        return (
            "The terms of these weights are not stated. Ask whoever trained them before you use "
            "or pass them on.\n"
        )
    return (
        f"SPDX-License-Identifier: {rights.license}\n\n"
        f"The weights and graphs in this folder are licensed under {rights.license}; its text is "
        f"at https://spdx.org/licenses/.\n"
    )


def _license_words(rights: Rights) -> str:
    return "terms not stated" if rights.license == "other" else rights.license


def _front_matter(
    description: Mapping[str, Any], rights: Rights, report: Mapping[str, Any]
) -> list[str]:
    lines = [f"license: {rights.license}", "library_name: a2fjax"]
    lines += _listed("tags", TAGS) + _listed("language", rights.languages)
    lines += _listed("datasets", rights.datasets)
    results = _results(report)
    if results:
        name = json.dumps(str(description["name"]))
        lines += ["model-index:", f"- name: {name}", "  results:", *results]
    return lines


def _listed(key: str, values: Sequence[str]) -> list[str]:
    return [f"{key}:", *(f"- {json.dumps(v)}" for v in values)] if values else []


def _results(report: Mapping[str, Any]) -> list[str]:
    """Returns the headline figures of each split with their intervals, as YAML."""
    lines = []
    for split, values in report.get("splits", {}).items():
        metrics = []
        for key, label in _HEADLINE.items():
            value = values.get("model", {}).get(key)
            if not isinstance(value, int | float):
                continue
            interval = values.get("interval", {}).get(key)
            text = (
                f"{label}, 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
                if interval
                else label
            )
            metrics += [
                f"    - type: {key}",
                f"      value: {value:.4f}",
                f"      name: {json.dumps(text)}",
            ]
        if metrics:
            lines += [
                "  - task:",
                "      type: audio-to-face",
                "    dataset:",
                f"      name: {json.dumps(split)}",
                f"      type: {json.dumps(split)}",
                "    metrics:",
                *metrics,
            ]
    return lines


def _graphs(description: Mapping[str, Any], parity: Mapping[str, Any]) -> list[str]:
    """Returns the tensors of each graph once, then its files with their largest difference."""
    by_name: dict[str, list[str]] = {}
    for file in description["graphs"]:
        by_name.setdefault(Path(file).stem, []).append(file)
    lines = []
    for name, found in by_name.items():
        lines += [f"### {name}", ""]
        for kind in ("inputs", "outputs"):
            for tensor in description["graphs"][found[0]][kind]:
                shape = ", ".join(map(str, tensor["shape"]))
                lines.append(
                    f"- {kind[:-1]} `{tensor['name']}` {tensor['dtype']} [{shape}]: "
                    f"{tensor['meaning']}"
                )
        lines += ["", "| file | largest difference from the product |", "|---|---|"]
        lines += [f"| `{file}` | {parity[file]['largest']:.1e} |" for file in found]
        lines.append("")
    return lines
