r"""NVIDIA's two networks trained on shards: conv_w2v_autocorr ("v2.3") and diffusion_rnn ("v3.0").

    a2fjax train --config experiments/nvidia_presets.py:mark --workdir runs/mark \
        --config.data.shards=shards --config.audio.features=wav2vec2:facebook/wav2vec2-base
    a2fjax train --config experiments/nvidia_presets.py:conv_demo --workdir runs/conv_demo \
        --config.data.shards=demo/shards --config.audio.features=whisper:whisper_tiny_en.npz

Variants: "mark" (1 layer of wav2vec 2.0, 272 + 10 PCA coefficients), "claire" (4 layers, 140 + 10)
and "diffusion" (HuBERT, one actor per training subject). They output the rig's 72 channels unless

    --config.model.head=geometry --config.model.rig=HEAD.npz

selects NVIDIA's geometry head. "conv_demo" and "diffusion_demo" are small variants for two CPU
cores and an encoder such as Whisper tiny. Learning rates, loss weights and dropout are NVIDIA's,
per step instead of per epoch; batches consist of windows, not of pairs of frames (v2.3) or of a
single clip (v3.0).
"""

from ml_collections import ConfigDict

VARIANTS = ("mark", "claire", "diffusion", "conv_demo", "diffusion_demo")


def get_config(variant: str = "mark") -> ConfigDict:
    """Returns the configuration values of the experiment.

    Args:
      variant: one of `VARIANTS`.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; expected one of {', '.join(VARIANTS)}")
    config = ConfigDict(
        {
            "name": f"nvidia_{variant}",
            "steps": 35_000,
            "audio": {"features": ("wav2vec2:facebook/wav2vec2-base",), "encoder": {}},
            "data": {"batch_size": 16, "window_frames": 128, "augment": {"mirror_prob": 0.0}},
            "model": {"kind": "conv_w2v_autocorr"},
            "loss": {"position": 1.0, "velocity": 10.0, "aperture": 0.0, "closure": 1.0},
            "optim": {
                "learning_rate": 2e-4,
                "warmup_steps": 100,
                "weight_decay": 0.0,
                "b2": 0.999,
                "clip_norm": 0.0,
            },
            "checkpoint": {"every_steps": 1000},
            "eval": {"every_steps": 1000, "batches": 8},
        }
    )
    model, encoder = config.model, config.audio.encoder
    if variant in ("mark", "claire"):
        encoder.update({"layers": 4, "mix": True} if variant == "claire" else {"layers": 1})
        model.update({"skin": 140 if variant == "claire" else 272, "tongue": 10})
        model.update({"implicit_emotion": True, "normalise": True, "vol_stab": 100.0})
    elif variant == "diffusion":
        model.kind = "diffusion_rnn"
        config.audio.features = ("hubert:facebook/hubert-base-ls960",)
        encoder.update({"train_from": 2, "learning_rate": 1.0})
        model.update({"actors": 0, "whole_encoder": True, "exp_smooth": 25.0})
        config.loss.update({"velocity": 0.0, "closure": 1e-5})
        config.steps = 26_000
        config.data.update({"batch_size": 4, "window_frames": 300})
        config.optim.update({"learning_rate": 5e-5})
    else:
        config.steps = 600
        config.audio.features = ("whisper:whisper_tiny_en.npz",)
        model.update({"standardise": True, "width": 64})
        config.data.augment = {"enabled": False}
        config.optim.update({"learning_rate": 1e-3, "warmup_steps": 50, "clip_norm": 1.0})
        config.optim.update({"ema_decay": 0.99})
        config.checkpoint.every_steps = 200
        config.eval.update({"every_steps": 200, "batches": 4})
        config.data.update({"batch_size": 8, "window_frames": 96})
        encoder.update({"layers": 2, "mix": variant == "conv_demo"})
        if variant == "diffusion_demo":
            model.update({"kind": "diffusion_rnn", "recurrent_width": 128})
            model.recurrent_dropout = 0.1
            config.loss.update({"velocity": 0.0, "closure": 0.5})
        else:
            model.update({"lag_widths": (18, 27, 40, 60), "skin": 40})
    return config
