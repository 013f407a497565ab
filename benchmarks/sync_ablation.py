r"""What losses by sync experts change in a motion model: none, contrastive, inverse, both ...

    python benchmarks/sync_ablation.py SHARDS --workdir DIR --contrastive RUN --inverse RUN
        [--adversarial RUN] [--judge RUN] [--seeds 0,1,2] [--split test_subjects]
        [--experiment experiments/regression_v2_3.py:demo] [--unchecked] [--config.KEY=VALUE ...]

Trains every arm with every seed by `a2fjax train` in DIR/ARM_SEED and evaluates it on
held-out people, seed by seed, with the table after each seed, so that one that is stopped early has
as many runs of each arm. What is done already is kept, so the same command continues.
With one expert only its arm and "none" are trained. `--adversarial` adds the arm "adversarial", a
discriminator that starts from this contrastive expert. The judge must be another expert than those
of the losses.

The table has the mean over seeds and people of each figure. Below each arm stand its difference
from "none" and the 95 % interval of that, over people and seeds (`a2fjax.evaluation.significance`;
with few people there may be none). "/ none" is the ratio of the arm's RMSE to that of "none". An
arm is worth its cost if closures or mouth correlation rise by more than chance, the RMSE worsens by
less than 1 %, the amplitude stays within 0.9 to 1.1 and, for models that sample, the variety of the
samples keeps 90 % of that of "none"; the last lines say so. The variety is the spread of
`VARIETY_SAMPLES` samples of jaw and mouth over the truth's deviation, of all people together
(`a2fjax evaluate --samples`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from a2fjax.api import evaluation  # noqa: E402
from a2fjax.evaluation import report, significance  # noqa: E402
from a2fjax.evaluation.layout import align  # noqa: E402
from a2fjax.infer.run_config import read_config  # noqa: E402
from a2fjax.infer.sampling import is_sampled  # noqa: E402

FIGURES = {
    "rmse_ratio": "rmse",
    "corr/jaw_mouth": "corr",
    "closure_recall": "recall",
    "closure_precision": "prec",
    "amp_ratio/jaw_mouth": "amp",
    "hf_ratio": ">10 Hz",
    "judge_confidence": "judge",
}
"""Figures of reports, with the heads of their columns; those that no arm has are left out."""

RISES = ("corr/jaw_mouth", "closure_recall")
WORSE = 0.01
AMPLITUDE = (0.9, 1.1)
VARIETY = 0.9
VARIETY_SAMPLES = 4


def arms(contrastive: str, inverse: str, adversarial: str = "") -> dict[str, dict[str, list[str]]]:
    """Returns the experts of each arm that can be trained, by key of `loss`."""
    given = {"contrastive": contrastive, "inverse": inverse}
    out: dict[str, dict[str, list[str]]] = {"none": {}}
    out |= {name: {"sync": [run]} for name, run in given.items() if run}
    if contrastive and inverse:
        out["both"] = {"sync": [contrastive, inverse]}
    if adversarial:
        out["adversarial"] = {"sync_adversary": [adversarial]}
    return out


def command(words: Sequence[str], log: Path) -> None:
    """Runs `a2fjax` and appends what it prints to a file; ends this program if it fails."""
    with log.open("a") as out:
        done = subprocess.run(
            [sys.executable, "-m", "a2fjax.cli.main", *words], cwd=ROOT, stdout=out, stderr=out
        )
    if done.returncode:
        last = log.read_text().strip().splitlines()[-1:]
        sys.exit(f"a2fjax {words[0]}: exit code {done.returncode}: {''.join(last)} ({log})")


def train(
    args: argparse.Namespace, name: str, seed: int, experts: Mapping[str, Sequence[str]]
) -> Path:
    """Returns the run folder of an arm and a seed, trained to its end."""
    run = args.workdir / f"{name}_{seed}"
    words = ["train", "--config", args.experiment, "--workdir", str(run)]
    words += [f"--config.data.shards={args.shards}", f"--config.seed={seed}", *args.overrides]
    for key, runs in experts.items():
        absolute = (str(Path(run).absolute()) for run in runs)
        words += [f"--config.loss.{key}={','.join(absolute)}"]
    if experts:
        words += ["--config.loss.sync_unchecked=true"] * args.unchecked
    command(words, args.workdir / f"{name}_{seed}.log")
    return run


def measure(args: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Returns the part of a run's report on the split, measured unless it was before.

    It has the "variety" of the samples beside the report's own entries, None where none are drawn.
    """
    path = args.workdir / "reports" / f"{run.name}_{args.split}.json"
    last = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdecimal())
    asked = {"step": last, "judge": str(args.judge)}
    beside = path.with_suffix(".asked")
    done = json.loads(beside.read_text()) if path.is_file() and beside.is_file() else {}
    if done.get("asked") != asked:
        judge = {"sync": args.judge, "sync_unchecked": args.unchecked} if args.judge else {}
        found = evaluation.evaluate(run, args.shards, args.split, **judge)
        found.save(path)
        done = {"asked": asked, "variety": variety(run, args.shards, args.split)}
        beside.write_text(json.dumps(done))
    return {**report.read(path)["splits"][args.split], "variety": done["variety"]}


def variety(run: Path, shards: Path, split: str) -> float | None:
    """Returns the spread of a run's samples over the truth's deviation; None if it draws none."""
    if not is_sampled(read_config(run).config):
        return None
    found = evaluation.compare(run, shards=shards, split=split, samples=VARIETY_SAMPLES)
    (row,) = found.values["splits"][split]["rows"].values()
    return float(row["mouth"])


def values(parts: Sequence[Mapping[str, Any]], people: Sequence[str], figure: str) -> np.ndarray:
    """Returns a figure [runs, people], NaN where a person has none."""
    found = [[part["by_subject"][p]["metrics"].get(figure) for p in people] for part in parts]
    return np.array([[np.nan if v is None else float(v) for v in row] for row in found])


def compare(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[str], list[str]]:
    """Returns the lines of the table and those of the conclusions.

    Args:
      parts: reports of one split, one for each seed, by arm; "none" is among them.
    """
    people = sorted(parts["none"][0]["by_subject"])
    found = {
        name: {figure: values(runs, people, figure) for figure in FIGURES}
        for name, runs in parts.items()
    }
    shown = [f for f in FIGURES if any(np.isfinite(rows[f]).any() for rows in found.values())]
    drawn = {
        name: float(np.mean([part["variety"] for part in runs]))
        for name, runs in parts.items()
        if all(part.get("variety") is not None for part in runs)
    }
    header = ["", FIGURES[shown[0]], "/ none", *(FIGURES[f] for f in shown[1:])]
    header += ["variety"] * bool(drawn)
    table, conclusions = [], []
    for name, rows in found.items():
        tests = {f: significance.paired(found["none"][f], rows[f]) for f in shown}
        means = {f: _mean(rows[f]) for f in shown}
        ratio = means["rmse_ratio"] / _mean(found["none"]["rmse_ratio"])
        table.append([name, f"{means[shown[0]]:.3f}", f"{ratio:.3f}"])
        table[-1] += [f"{means[f]:.3f}" for f in shown[1:]]
        table[-1] += [f"{drawn[name]:.3f}"] if drawn else []
        if name == "none":
            continue
        for label, side in (("  difference", None), ("  95% low", 0), ("  95% high", 1)):
            cells = [_cell(tests[f], side) for f in shown]
            table.append([label, cells[0], "", *cells[1:], *[""] * bool(drawn)])
        rises = [FIGURES[f] for f in RISES if (tests[f].interval or (0.0, 0.0))[0] > 0]
        amplitude = means["amp_ratio/jaw_mouth"]
        kept = drawn[name] / drawn["none"] if drawn else None
        good = bool(rises) and ratio < 1 + WORSE and AMPLITUDE[0] <= amplitude <= AMPLITUDE[1]
        good = good and (kept is None or kept >= VARIETY)
        conclusions.append(
            f"{name}: {'worth it' if good else 'not worth it'}: "
            f"{' and '.join(rises) or 'neither corr nor recall'} "
            f"{'rise' if len(rises) > 1 else 'rises'} by more than chance, RMSE "
            f"{100 * (ratio - 1):+.1f} %, amplitude {amplitude:.2f}"
            + ("" if kept is None else f", variety {100 * kept:.0f} %")
        )
    return align(header, table), conclusions


def _mean(found: np.ndarray) -> float:
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def _cell(test: significance.Test, side: int | None) -> str:
    if side is None:
        return f"{test.difference:+.3f}"
    return "-" if test.interval is None else f"{test.interval[side]:+.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--contrastive", default="", metavar="RUN")
    parser.add_argument("--inverse", default="", metavar="RUN")
    parser.add_argument("--adversarial", default="", metavar="RUN")
    parser.add_argument("--judge", default="", metavar="RUN")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--split", default="test_subjects")
    parser.add_argument("--experiment", default="experiments/regression_v2_3.py:demo")
    parser.add_argument("--unchecked", action="store_true", help="experts need not have passed")
    args, args.overrides = parser.parse_known_args()
    chosen = arms(args.contrastive, args.inverse, args.adversarial)
    wrong = [word for word in args.overrides if not word.startswith("--config.")]
    if wrong:
        parser.error(f"unknown arguments {' '.join(wrong)}")
    if len(chosen) < 2:
        parser.error("give --contrastive, --inverse, --adversarial or several")
    if args.judge and args.judge in (args.contrastive, args.inverse, args.adversarial):
        parser.error(f"--judge {args.judge}: trains an arm; expected another expert")
    for name in ("shards", "workdir"):
        setattr(args, name, getattr(args, name).absolute())
    args.judge = args.judge and str(Path(args.judge).absolute())
    (args.workdir / "reports").mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[dict[str, Any]]] = {}
    seeds = args.seeds.split(",")
    for count, seed in enumerate(seeds, 1):
        for name, experts in chosen.items():
            print(f"{name}, seed {seed}", flush=True)
            parts.setdefault(name, []).append(measure(args, train(args, name, int(seed), experts)))
        first, done = parts["none"][0], ",".join(seeds[:count])
        print(f"\n{args.split}: {first['subjects']} people, {first['clips']} clips, seeds {done}")
        table, conclusions = compare(parts)
        print("\n".join([*table, "", *conclusions]), flush=True)


if __name__ == "__main__":
    main()
