"""Variables of a model as safetensors: "params/head/kernel" is stored as "params.head.kernel".

Arrays keep Flax's layout: kernels are [in, out], of convolutions [taps, in, out].
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from a2fjax import budgets
from a2fjax.errors import InputError
from a2fjax.models.params import Params, nest, paths

FILE = "model.safetensors"


def save(path: Path, variables: Params, metadata: dict[str, str]) -> None:
    """Writes variables.

    Args:
      path: of the file.
      variables: nested dicts of arrays; no key has a dot.
      metadata: texts stored with them.
    """
    from safetensors.numpy import save as serialised

    tensors = {
        name.replace("/", "."): np.asarray(leaf, order="C") for name, leaf in paths(variables)
    }
    # One entry, because the order of several is not always the same. Not `save_file`, whose files
    # only their owner may read.
    path.write_bytes(serialised(tensors, metadata={"a2fjax": json.dumps(metadata)}))


def load(path: Path) -> Params:
    """Returns the variables of a file as nested dicts of NumPy arrays.

    Raises:
      InputError: no such file, or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    budgets.regular_file(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not safetensors, or damaged ({error})") from None
    try:
        return nest({name.replace(".", "/"): value for name, value in tensors.items()})
    except (AttributeError, IndexError, TypeError):
        raise InputError(f"{path}: a tensor has the name of a group of tensors") from None
