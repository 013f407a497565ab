import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recordings and captures beside the checkout; tests that need them skip where they are not."""
    root = Path(__file__).resolve().parents[1]
    path = Path(os.environ.get("A2FJAX_SHARED_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}; set A2FJAX_SHARED_DATA")
    return path
