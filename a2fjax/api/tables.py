"""pandas, imported when a table is asked for."""

from __future__ import annotations

from types import ModuleType

from a2fjax.errors import InputError


def import_pandas() -> ModuleType:
    """Returns the module.

    Raises:
      InputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError(
            "tables need the extra `view`: pip install 'a2fjax[view]' (pandas is missing)"
        ) from None
    return pandas
