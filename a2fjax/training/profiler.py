"""Traces a few updates into RUN/profile, for TensorBoard's profiler and for Perfetto."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import jax

from a2fjax.configuration import LogConfig

FOLDER = "profile"


class Profiler:
    """Context that traces a range of updates (`log.profile_step`, `log.profile_steps`)."""

    def __init__(
        self, config: LogConfig, workdir: Path, say: Callable[[str], None], *, on: bool
    ) -> None:
        """Stores the settings; the trace starts in `at`.

        Args:
          config: sets the range of updates.
          workdir: the run folder.
          say: prints a line.
          on: whether this process traces.
        """
        first = config.profile_step
        self._window = range(first, first + config.profile_steps) if first and on else range(0)
        self._folder, self._say = workdir / FOLDER, say
        self._running = False

    def at(self, step: int) -> None:
        """Starts or ends the trace; call it before update `step`, where 1 is the first."""
        if self._running and step not in self._window:
            self._end()
        elif not self._running and self._window and step == self._window.start:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def _end(self) -> None:
        self._running = False
        jax.effects_barrier()
        jax.profiler.stop_trace()
        self._say(
            f"updates {self._window.start} to {self._window.stop - 1} are traced: "
            f"tensorboard --logdir {self._folder} (with the plugin `xprof`)"
        )

    def __enter__(self) -> Profiler:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Ends a running trace."""
        if self._running:
            self._end()
