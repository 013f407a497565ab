"""Pins configuration, code, packages and data on submission in the specifications of runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax.configuration import Resolved
from launch.jobs import data_pins, formats, progress, record
from launch.jobs.spec import JobSpec
from launch.submission import dependencies, snapshot, target
from launch.submission.target import Target

PROGRAM = ("-m", "a2fjax.cli.main")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pins:
    """Pinned values that all runs of a submission share, computed once.

    Attributes:
      target: target of the runs.
      program: command of `a2fjax`, after the interpreter.
      code: folder that they import from; None for what the image of an array has.
      snapshot: digest of its files; None if the installed code runs.
      git: "commit" and "dirty"; None without git.
      packages: installed distribution -> version.
      options: options of the scheduler.
      unfilled: real paths of datasets that dependencies have yet to write.
    """

    target: Target
    program: Sequence[str]
    code: str | None
    snapshot: str | None
    git: Mapping[str, Any] | None
    packages: Mapping[str, str]
    options: Mapping[str, Any]
    unfilled: frozenset[str]

    def training(
        self, folder: Path, experiment: str, resolved: Resolved, overrides: Mapping[str, str]
    ) -> JobSpec:
        """Returns the specification of a training run in a folder."""
        command = ["train", "--config", str(record.launch(folder) / "config.json")]
        return dataclasses.replace(
            self.command(folder, [*command, "--workdir", str(folder)]),
            experiment=experiment,
            experiment_sha256=_digest(experiment),
            overrides=dict(overrides),
            config=json.loads(resolved.to_json()),
            data=data_pins.digests(resolved.config.data.shards, pending=self.unfilled),
        )

    def command(self, folder: Path, words: Sequence[str]) -> JobSpec:
        """Returns the specification of another `a2fjax` command that runs in a new folder."""
        return self._job(str(folder.relative_to(self.target.root)), words)

    def array(
        self,
        folder: Path,
        output: str,
        words: Sequence[str],
        *,
        name: str,
        elements: int,
        config: Resolved | None = None,
    ) -> JobSpec:
        """Returns the specification of a build or cache.

        Args:
          folder: folder of its record.
          output: folder that it fills.
          words: arguments of its program.
          name: its name for queues.
          elements: number of elements.
          config: configuration of its record's config.json, which is passed with `--config`.
        """
        if config is not None:
            words = [*words, "--config", str(record.launch(folder) / "config.json")]
        spec = self._job(output, words)
        return dataclasses.replace(
            spec,
            name=formats.slug(name, output),
            finalize=(*spec.command, "--finish"),
            elements=elements,
            output=output,
            config=None if config is None else json.loads(config.to_json()),
            retry_failures=True,
            directory="/" if self.target.capabilities.remote else spec.directory,
        )

    def _job(self, name: str, words: Sequence[str]) -> JobSpec:
        chosen = self.target
        command = [chosen.python, *self.program, *words]
        for word in command:
            formats.utf8(word, "argument")
        remote = chosen.capabilities.remote
        return JobSpec(
            id=name,
            command=tuple(command),
            directory=formats.utf8(str(chosen.root if remote else Path.cwd()), "folder"),
            python=chosen.python,
            environment=target.environment(
                self.code, chosen.resources, chosen.environment, remote=remote
            ),
            passed=chosen.passed,
            code=self.code,
            snapshot=self.snapshot,
            git=self.git,
            packages=self.packages,
            scheduler=chosen.scheduler,
            resources=chosen.resources,
            options=self.options,
            retries=chosen.retries,
            max_requeues=chosen.max_requeues,
            after=chosen.after,
            created=progress.now(),
        )


def pins(
    chosen: Target,
    program: Sequence[str] | None,
    *,
    plugins: Sequence[str] = (),
    dry_run: bool = False,
    array: tuple[Path, int] | None = None,
) -> Pins:
    """Takes the snapshot of the code and returns the pins shared by the runs of a submission.

    Args:
      chosen: target of the runs.
      program: command in place of `a2fjax`, after the interpreter.
      plugins: packages whose code is included in the snapshot.
      dry_run: whether to write nothing.
      array: record folder of an array, which keeps its snapshot, and the number of elements.

    Raises:
      InputError, WorkFailed: as `snapshot.take` and `snapshot.packages`.
    """
    folder, count = (chosen.root, None) if array is None else array
    options = chosen.options(count)
    code: str | None = None
    digest, missing = None, []
    # The record of a remote array stays on this machine, where its image finds no code.
    if array is None or not chosen.capabilities.remote:
        code, digest = snapshot.take(folder, plugins=plugins, keep=not dry_run)
        missing = snapshot.untracked()
    if missing:
        some = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        print(f"not in the snapshot, as git does not track them: {some}", file=sys.stderr)
    # A container image includes its packages, so its digest pins them.
    packages = {} if chosen.contained else snapshot.packages(chosen.python)
    return Pins(
        target=chosen,
        program=program or PROGRAM,
        code=code,
        snapshot=digest,
        git=snapshot.git_state(),
        packages=packages,
        options=options,
        unfilled=dependencies.unfilled(chosen.after),
    )


def plugins(*resolved: Resolved) -> list[str]:
    """Returns the plugin packages that configurations use."""
    return list(dict.fromkeys(name for one in resolved for name in one.plugins))


def _digest(experiment: str) -> str:
    file = experiment if experiment.endswith(".json") else experiment.partition(":")[0]
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
