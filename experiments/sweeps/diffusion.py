r"""Sweep of the diffusion model: effect of coarse prediction, dropped audio and width.

    python launch/submit.py submit experiments/diffusion_v3_0.py --sweep \
        experiments/sweeps/diffusion.py --config.data.shards=shards ...

Append `:search` to the file name to draw 24 random settings instead.
"""

from launch.sweeps import Sweep, choice, grid, loguniform, random, uniform, zip


def sweep() -> Sweep:
    """Returns single changes, and several widths with the highest learning rate of each."""
    sizes = zip(
        grid("model.unet.widths", (192, 320, 480), (288, 480, 704)),
        grid("optim.learning_rate", 7e-4, 5e-4),
    )
    return sizes + grid("model.coarse", 0.0, 0.3) + grid("model.audio_dropout", 0.0, 0.2)


def search() -> Sweep:
    """Returns 24 random settings; a larger number extends the same sequence."""
    return random(
        24,
        {
            "optim.learning_rate": loguniform(1e-4, 2e-3),
            "model.unet.dropout": uniform(0.0, 0.3),
            "model.audio_dropout": choice(0.05, 0.1, 0.2),
        },
    )
