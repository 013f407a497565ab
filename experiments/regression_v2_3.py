r"""The regression model (v2.3): log-mel, convolutions over +-5 frames, bidirectional GRU, linear.

    a2fjax train --config experiments/regression_v2_3.py --workdir runs/regression \
        --config.data.shards=shards
    a2fjax train --config experiments/regression_v2_3.py:demo --workdir demo/run \
        --config.data.shards=demo/shards

Variants: "" for real datasets; "demo" for the demo corpus on two CPU cores; "causal" for a model
whose convolutions are its only look-ahead; "streaming" for live audio, with a look-ahead that is
chosen at run time, and "streaming_demo" for that on the demo corpus (docs/streaming.md). Append
"+ENCODER" to one of the first three to add a frozen pretrained speech encoder, read from a cache,
to log-mel:

    a2fjax cache shards --features whisper:tiny.npz
    a2fjax train --config experiments/regression_v2_3.py:+whisper:tiny.npz \
        --workdir runs/hybrid --config.data.shards=shards
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration values of the experiment.

    Args:
      variant: "", "demo", "causal", "streaming" or "streaming_demo", the first three optionally
        followed by "+" and an encoder, such as "demo+whisper:PATH".
    """
    variant, *encoders = variant.split("+")
    streaming = variant.startswith("streaming")
    if streaming:
        variant = variant.removeprefix("streaming").removeprefix("_")
    config = ConfigDict(
        {
            "name": "regression_v2_3",
            "steps": 40_000,
            "data": {"batch_size": 32, "window_frames": 256},
            "optim": {"learning_rate": 1e-3, "warmup_steps": 1000},
            "checkpoint": {"every_steps": 1000, "keep_latest": 3},
            "eval": {"every_steps": 1000, "batches": 16},
            "log": {"every_steps": 50},
        }
    )
    if variant == "demo":
        config.name = "regression_v2_3_demo"
        config.steps = 1700
        config.data.update({"batch_size": 16, "window_frames": 128})
        # Audio does not predict blinks, brow beats and gaze; fitting them makes the mouth less
        # accurate.
        config.loss = {
            "velocity": 5.0,
            "aperture": 1.5,
            "closure": 1.0,
            "group_weights": {"upper_face": 0.2, "jaw_mouth": 2.0},
        }
        config.model = {"dropout": 0.05}
        config.data.augment = {
            "gain_db": 5.0,
            "eq_db": 2.5,
            "noise_prob": 0.4,
            "noise_snr_db": (12.0, 50.0),
        }
        config.optim.update(
            {"learning_rate": 2.5e-3, "warmup_steps": 100, "b2": 0.98, "ema_decay": 0.995}
        )
        config.checkpoint.update({"every_steps": 200, "keep_latest": 2})
        config.eval.update({"every_steps": 200, "batches": 8})
        config.log.every_steps = 20
    elif variant == "causal":
        config.name = "regression_v2_3_causal"
        config.model = {"recurrent": "causal"}
    elif variant:
        raise ValueError(
            f"unknown variant {variant!r}; expected demo, causal, streaming or streaming_demo"
        )
    if streaming:
        config.name += "_streaming"
        config.model = {"kind": "streaming", **config.get("model", {})}
        # A microphone's level is measured on the way: the first frames have any level.
        config.data.augment = {**config.data.get("augment", {}), "gain_db": 12.0}
    if encoders:
        config.name += "_hybrid"
        config.audio = {"features": ("mel", *encoders), "encoder": {"noise": 0.2}}
        config.data.encoder_features = "cached"
    return config
