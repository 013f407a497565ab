"""The result of solving a take, and its file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, files
from a2fjax.errors import WorkFailed


@dataclasses.dataclass(frozen=True)
class SolvedTake:
    """Curves of a take on the capture's clock, and measures of the take.

    Attributes:
      times: [F] s; dropped-out frames are omitted.
      curves: [F, 72] float32, rig units.
      observed: [72].
      residual: [F] float32 mm; empty for curves read from files.
      envelope: [N] float32 loudness in dB at `align.ENVELOPE_RATE`; empty without audio.
      clicks: [N] s, click times of a slate.
      facts: JSON values: "solved", "kkt", "notes", "warnings", "audio", "motion".
    """

    times: np.ndarray
    curves: np.ndarray
    observed: np.ndarray
    residual: np.ndarray
    envelope: np.ndarray
    clicks: np.ndarray
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes the file atomically."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays["facts"] = np.frombuffer(json.dumps(self.facts).encode(), np.uint8)
        with files.atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> SolvedTake:
        """Reads what `save` wrote.

        Raises:
          WorkFailed: the file is damaged, for example by a power loss; it is removed.
        """
        try:
            with archives.load_npz(path) as data:
                arrays = dict(data)
            return cls(**{**arrays, "facts": json.loads(arrays["facts"].tobytes())})
        except (ValueError, KeyError, TypeError) as error:
            path.unlink(missing_ok=True)
            raise WorkFailed(
                f"{path}: was damaged ({error}) and is removed; run it again"
            ) from None
