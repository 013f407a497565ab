r"""The diffusion model (v3.0): the regression's backbone and a denoising U-Net over time.

    a2fjax train --config experiments/diffusion_v3_0.py --workdir runs/diffusion \
        --config.data.shards=shards
    a2fjax train --config experiments/diffusion_v3_0.py:demo --workdir demo/diffusion \
        --config.data.shards=demo/shards

To distil a trained teacher into a student that needs one to four network calls:

    a2fjax train --config experiments/diffusion_v3_0.py:demo+distilled --workdir demo/distilled \
        --config.data.shards=demo/shards --config.init_from=demo/diffusion

Variants: "" (40 M parameters) and "large" (150 M) for real datasets, "demo" (2 M) for the demo
corpus on two CPU cores. Append "+distilled" to any of them for a student.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the configuration values of the experiment.

    Args:
      variant: "", "large" or "demo", optionally followed by "+distilled" for a student.
    """
    variant, plus, kind = variant.partition("+")
    if plus and kind != "distilled":
        raise ValueError(f"unknown variant {kind!r} after +; expected distilled")
    config = ConfigDict(
        {
            "name": "diffusion_v3_0",
            "steps": 200_000,
            "data": {"batch_size": 64, "window_frames": 256},
            "model": {
                "kind": "diffusion",
                "conv_width": 512,
                "recurrent_width": 512,
                "emotion_dropout": 0.1,
                "condition_dropout": 0.1,
                "unet": {"widths": (288, 480, 704), "blocks": 2, "heads": 8, "dropout": 0.1},
            },
            "loss": {"balance": 1.0},
            "optim": {"learning_rate": 5e-4, "warmup_steps": 2000, "ema_decay": 0.9995},
            "checkpoint": {"every_steps": 1000, "keep_latest": 3},
            "eval": {"every_steps": 2000, "batches": 16},
            "log": {"every_steps": 50},
        }
    )
    if variant == "large":
        config.name = "diffusion_v3_0_large"
        config.model.unet.update({"widths": (576, 1088, 1408), "remat": True})
    elif variant == "demo":
        config.name = "diffusion_v3_0_demo"
        config.steps = 3000
        config.data.update({"batch_size": 16, "window_frames": 128})
        config.data.augment = {
            "gain_db": 5.0,
            "eq_db": 2.5,
            "noise_prob": 0.4,
            "noise_snr_db": (12.0, 50.0),
        }
        config.model.update({"conv_width": 192, "recurrent_width": 192, "dropout": 0.05})
        config.model.unet.update(
            {"widths": (96, 112, 128), "blocks": 1, "heads": 4, "dropout": 0.0}
        )
        config.loss.update({"velocity": 5.0, "aperture": 1.5})
        config.loss.group_weights = {"jaw_mouth": 2.0}
        config.optim.update(
            {"learning_rate": 2.5e-3, "warmup_steps": 100, "b2": 0.98, "ema_decay": 0.995}
        )
        config.checkpoint.update({"every_steps": 200, "keep_latest": 2})
        config.eval.update({"every_steps": 500, "batches": 8})
        config.log.every_steps = 50
    elif variant:
        raise ValueError(f"unknown variant {variant!r}; expected large or demo")
    if kind:
        config.name += "_distilled"
        config.steps //= 4
        config.model.distill_steps = 8
        config.model.sample = {"sampler": "consistency", "steps": 2}
        config.optim.learning_rate *= 0.4
        config.data.augment = {**config.data.get("augment", {}), "noise_prob": 0.0}
    return config
