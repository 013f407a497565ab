"""Converts parameters of networks trained in NVIDIA's framework.

NVIDIA's training writes `weights.pth`, a PyTorch state dict. With PyTorch installed, this gives the
input of `convert`:

    state = {k: v.numpy() for k, v in torch.load(path, weights_only=True).items()}

This module does not need PyTorch. It does not read NVIDIA's released models, which are ONNX files
with different names and layouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from a2fjax.errors import InputError, nearest
from a2fjax.models.params import Params, paths

ENCODERS = ("w2v.", "audio_model.")
"""Prefixes of the speech encoder in a state dict: torchaudio's wav2vec 2.0, and HuBERT."""

_EMBEDDING = re.compile(r"^((?:skin|tongue|jaw|eyes)_embedding|final)/(?:linear|conv)_(\d)/")
_HEAD = re.compile(r"^(final_layer_\w+)/linear_(\d)/")


def convert(state: Mapping[str, np.ndarray], expected: Params) -> Params:
    """Converts a state dict to parameters of the `Network` of either model.

    Args:
      state: state dict of NVIDIA's `conv_w2v_autocorr` or `diffusion_rnn`; the speech encoder is
        ignored.
      expected: the network's parameters, or their shapes from `jax.eval_shape` of its `init`.

    Raises:
      InputError: a parameter is missing, has another shape, or does not belong to the network.
    """
    left = {name for name in state if not name.startswith(ENCODERS)}
    out: Params = {}
    for path, leaf in paths(expected):
        name = torch_name(path)
        if name not in state:
            raise InputError(f"weights: {name} is missing{nearest(name, left)}")
        value = np.asarray(state[name], np.float32)
        if path.endswith("/kernel"):
            if len(leaf.shape) == 3:
                # NVIDIA's convolutions are 2-D with a kernel width of 1; these are 1-D.
                value = value.reshape(*value.shape[:2], -1) if value.ndim == 4 else value
                value = value.transpose(2, 1, 0) if value.ndim == 3 else value
            else:
                value = value.T
        if value.shape != tuple(leaf.shape):
            raise InputError(
                f"weights: {name} has shape {list(np.shape(state[name]))}, which does not fit "
                f"{path} {list(leaf.shape)}: check layout, layers and actors"
            )
        left.discard(name)
        *parents, last = path.split("/")
        branch = out
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    if left:
        raise InputError(f"weights: {sorted(left)[0]} is no parameter of this network")
    return out


def torch_name(path: str) -> str:
    """Returns NVIDIA's name of a parameter, such as "freq1.weight" for "freq1/kernel"."""
    path = _EMBEDDING.sub(r"geometry_embedding/\1/\2/", path)
    path = _HEAD.sub(r"\1/\2/", path)
    path = re.sub(r"^gru/(ih|hh)_l(\d+)/kernel$", r"gru/weight_\1_l\2", path)
    path = re.sub(r"^gru/(ih|hh)_l(\d+)/bias$", r"gru/bias_\1_l\2", path)
    path = path.replace("eyes_embedding", "eye_embedding").replace("_layer_eyes", "_layer_eye")
    path = re.sub(r"^proj_time/", "proj_time/0/", path)
    path = re.sub(r"^phoneme_regressors_(\d+)/", r"phoneme_regressors/\1/", path)
    return re.sub(r"/kernel$", "/weight", path).replace("/", ".")
