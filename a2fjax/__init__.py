"""a2fjax: train, evaluate and run speech-driven facial animation in JAX.

    import a2fjax as a2f

    model = a2f.load("runs/a")
    motion = model.predict("in.wav", emotion="happy=0.7", identity="neutral.obj")
    motion.save("out.csv", fps=60)

Audio in, 72 named rig channels a frame out, at 50 frames a second. Importing this package loads
nothing heavy: a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2fjax.api.evaluation import compare, compare_reports, evaluate, watch
    from a2fjax.api.model import Model, load
    from a2fjax.api.motion import Motion
    from a2fjax.api.reports import Comparison, Report, ReportComparison
    from a2fjax.api.training import Run, config, train
    from a2fjax.errors import InputError

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "InputError",
    "Model",
    "Motion",
    "Report",
    "ReportComparison",
    "Run",
    "compare",
    "compare_reports",
    "config",
    "evaluate",
    "load",
    "train",
    "watch",
]

_MODULES = {
    "Comparison": "a2fjax.api.reports",
    "InputError": "a2fjax.errors",
    "Model": "a2fjax.api.model",
    "Motion": "a2fjax.api.motion",
    "Report": "a2fjax.api.reports",
    "ReportComparison": "a2fjax.api.reports",
    "Run": "a2fjax.api.training",
    "compare": "a2fjax.api.evaluation",
    "compare_reports": "a2fjax.api.evaluation",
    "config": "a2fjax.api.training",
    "evaluate": "a2fjax.api.evaluation",
    "load": "a2fjax.api.model",
    "train": "a2fjax.api.training",
    "watch": "a2fjax.api.evaluation",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'a2fjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted({*globals(), *__all__})
