"""Logs metrics to metrics.jsonl, the console and Weights & Biases.

Keys that begin with "time/" or "perf/" hold wall-clock measurements. All others are functions of
the configuration, the data and the step, so an interruption of the run does not change them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import netrc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from a2fjax import budgets, files
from a2fjax.configuration import Config
from a2fjax.errors import InputError, WorkFailed

MEASURED = ("time/", "perf/")
"""Prefixes of keys whose values may differ between runs of the same experiment."""


class MetricsFile:
    """The file RUN/metrics.jsonl: one JSON object per line, each with a "step"."""

    def __init__(self, path: Path, *, step: int) -> None:
        """Opens the file to continue at `step`, and removes later and incomplete lines.

        Args:
          path: path of the file.
          step: completed updates of the state that training continues from.
        """
        self._path = path
        kept = [line for line in _read(path) if line["step"] <= step]
        self._known = {key for line in kept if line["step"] == step for key in line}
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if path.exists() and path.read_bytes() != text.encode():  # Leave a finished run untouched.
            files.write_text(path, text)
        self._file = files.open_append(path)

    def has(self, key: str) -> bool:
        """Returns True if the file had a line of its opening step with this key."""
        return key in self._known

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a line and passes it to the operating system."""
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise WorkFailed(f"{self._path} could not be written ({error.strerror})") from None

    def sync(self) -> None:
        """Returns when every line is on disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise WorkFailed(f"{self._path} could not be written ({error.strerror})") from None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of RUN/metrics.jsonl; a torn last line is left out.

    Raises:
      InputError: there is no such file.
    """
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"run {run}: has no metrics.jsonl")
    return _read(path)


def _read(path: Path) -> list[dict[str, Any]]:
    lines = []
    data = budgets.read_bytes(path) if path.exists() else b""
    for text in data.decode(errors="replace").splitlines():
        try:
            line = budgets.parse_json(text, name=str(path))
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


class WandB:
    """Logs the same lines to Weights & Biases, under one run across restarts."""

    def __init__(self, config: Config, workdir: Path, *, run_id: str) -> None:
        """Opens the run; offline, in `workdir`, if there is no account or no network.

        Raises:
          InputError: the package is not installed.
        """
        try:
            import wandb
        except ImportError:
            raise InputError(
                "config: log.wandb=True, but the package wandb is not installed; install it, or "
                "set --config.log.wandb=false"
            ) from None
        import dataclasses

        arguments: dict[str, Any] = {
            "project": config.log.wandb_project,
            "name": workdir.name,
            "id": run_id,
            "resume": "allow",
            "dir": str(workdir),
            "config": dataclasses.asdict(config),
            "settings": wandb.Settings(console="off", init_timeout=60, silent=True),
        }
        self.mode = wandb_mode()
        arguments["mode"] = self.mode
        try:
            self._run = wandb.init(**arguments)
        except Exception:  # noqa: BLE001 - training must continue if the server is unreachable
            if self.mode != "online":
                raise
            self.mode = arguments["mode"] = "offline"
            self._run = wandb.init(**arguments)
        # A resumed run repeats a few steps, which wandb's own step counter would reject.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the values of a step."""
        self._run.log({"step": step, **values})

    def close(self, *, failed: bool) -> None:
        """Ends the run, with exit code 1 if it failed."""
        self._run.finish(exit_code=int(failed))


def wandb_mode() -> str:
    """Returns WANDB_MODE if it is set, "online" with an account on this machine, else "offline"."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc().authenticators(host) else "offline"
    except (OSError, netrc.NetrcParseError):
        return "offline"


def wandb_id(workdir: Path, fingerprint: str) -> str:
    """Returns the run's id in Weights & Biases, from its folder and configuration."""
    return hashlib.sha256(f"{workdir.absolute()} {fingerprint}".encode()).hexdigest()[:16]


class Tracker:
    """Writes metrics to all destinations: file, console and Weights & Biases."""

    def __init__(
        self,
        config: Config,
        workdir: Path,
        *,
        step: int,
        identity: str,
        say: Callable[[str], None],
    ) -> None:
        """Opens metrics.jsonl to continue at `step`, and wandb if configured.

        Args:
          config: configuration of the run.
          workdir: run folder.
          step: completed updates.
          identity: digest from `run_dir.identity`.
          say: prints a line on the console.
        """
        self._config = config
        self._say = say
        self.file = MetricsFile(workdir / "metrics.jsonl", step=step)
        self._wandb = None
        if config.log.wandb:
            self._wandb = WandB(config, workdir, run_id=wandb_id(workdir, identity))
            say(f"wandb: {self._wandb.mode}, run {wandb_id(workdir, identity)}")

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """Records the metrics of an update and prints a line."""
        self._record(step, values)
        self._say(train_line(step, self._config.steps, values))

    def eval(self, step: int, values: Mapping[str, float]) -> None:
        """Records held-out metrics and prints a line."""
        self._record(step, values)
        start, end = "eval/set/", "/loss"
        sets = [
            f"{k[len(start) : -len(end)]} {v:.4g}"
            for k, v in values.items()
            if k.startswith(start) and k.endswith(end)
        ]
        each = f"; by set: {', '.join(sets)}" if sets else ""
        self._say(f"step {step}/{self._config.steps}  held out: {_losses('eval', values)}{each}")

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(step, values)
        if self._wandb is not None:
            self._wandb.write(step, values)

    def sync(self) -> None:
        """Returns when every line is on disk."""
        self.file.sync()

    def close(self, *, failed: bool) -> None:
        """Closes all destinations."""
        self.file.close()
        if self._wandb is not None:
            self._wandb.close(failed=failed)


def train_line(step: int, steps: int, values: Mapping[str, float]) -> str:
    """Returns the console line for an update."""
    parts = [f"step {step}/{steps}", _losses("train", values)]
    parts.append(f"grad {values['train/grad_norm']:.3g}  lr {values['train/lr']:.3g}")
    if "perf/steps_per_s" in values:
        parts.append(f"{_rate(values['perf/steps_per_s'])} steps/s")
        parts.append(f"{values['perf/frames_per_s']:,.0f} frames/s")
        parts.append(f"data wait {100 * values['perf/data_wait_share']:.0f} %")
        if "perf/mfu" in values:
            parts.append(f"MFU {100 * values['perf/mfu']:.1f} %")
        parts.append(f"ETA {duration((steps - step) * values['time/step_s'])}")
    if values.get("perf/bad_records"):
        parts.append(f"{values['perf/bad_records']:.0f} bad records skipped")
    return "  ".join(parts)


def _losses(prefix: str, values: Mapping[str, float]) -> str:
    start = f"{prefix}/loss/"
    terms = [f"{k[len(start) :]} {v:.4g}" for k, v in values.items() if k.startswith(start)]
    return f"loss {values[f'{prefix}/loss']:.4g}" + (f" ({', '.join(terms)})" if terms else "")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Returns a duration in seconds as readable text: "42s", "3m05s", "2h07m"."""
    if not math.isfinite(seconds):
        return "?"
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def every(step: int, interval: int, last: int) -> bool:
    """Returns True at every `interval`-th step and at the last one.

    An interval of 0 means never.
    """
    return interval > 0 and (step % interval == 0 or step == last)
