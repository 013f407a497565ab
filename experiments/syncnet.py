r"""Sync experts: is this motion in step with this speech?

    a2fjax train --config experiments/syncnet.py --workdir runs/sync --config.data.shards=shards
    a2fjax evaluate runs/sync

Variants: "" is the contrastive expert, "long" the same with windows of 0.64 s, "inverse" the one
that predicts speech features from motion. Append "+ENCODER" to add a frozen speech encoder, read
from a cache, to log-mel; docs/sync.md explains the gate.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration values of the experiment.

    Args:
      variant: "", "long" or "inverse", optionally followed by "+" and an encoder.
    """
    variant, *encoders = variant.split("+")
    config = ConfigDict(
        {
            "name": "syncnet",
            "steps": 3000,
            "data": {
                "batch_size": 32,
                "window_frames": 128,
                "augment": {"noise_prob": 0.3, "noise_snr_db": (15.0, 50.0), "mirror_prob": 0.3},
            },
            "model": {"kind": "syncnet"},
            "optim": {"learning_rate": 2e-3, "warmup_steps": 200, "weight_decay": 0.05},
            "checkpoint": {"every_steps": 500},
            "eval": {"every_steps": 500, "batches": 8},
            "log": {"every_steps": 50},
        }
    )
    if variant == "long":
        config.name = "syncnet_long"
        config.model.window_frames = 32
    elif variant == "inverse":
        config.name = "syncnet_inverse"
        config.model.kind = "syncnet_inverse"
    elif variant:
        raise ValueError(f"unknown variant {variant!r}; expected long or inverse")
    if encoders:
        config.name += "_hybrid"
        config.audio = {"features": ("mel", *encoders), "encoder": {"noise": 0.2}}
        config.data.encoder_features = "cached"
    return config
