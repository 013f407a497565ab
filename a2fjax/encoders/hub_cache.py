"""Files of checkpoints: in a folder, or in the Hugging Face hub's cache on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from a2fjax import budgets


def find_file(source: str | Path, filename: str) -> Path | None:
    """Returns the path of a checkpoint's file, None where the checkpoint has no such file.

    Nothing is downloaded.

    Args:
      source: a folder, or the name of a model in the hub's cache ("facebook/wav2vec2-base").
      filename: in the folder or model.

    Raises:
      InputError: a folder, pipe, socket, device or broken link has the file's name.
    """
    if Path(source).is_dir():
        path = Path(source) / filename
        # What is there but is no file must not pass for a file that a checkpoint may lack.
        return budgets.regular_file(path) if os.path.lexists(path) else None
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        cached = huggingface_hub.try_to_load_from_cache(str(source), filename)
    except HFValidationError:
        return None
    # Beside a path and None there is a marker of files known not to exist.
    return Path(cached) if isinstance(cached, str) else None
