r"""Sweep of the demo regression: effect of learning rate and velocity weight.

    python launch/submit.py submit experiments/regression_v2_3.py:demo --sweep \
        experiments/sweeps/regression_demo.py --config.data.shards=demo/shards ...

Append `:quick` to the file name for a test with one seed and a quarter of the steps.
"""

from launch.sweeps import Sweep, grid, seeds, zip


def sweep() -> Sweep:
    """Returns 3 learning rates by 2 velocity weights with 3 seeds each, and no warm-up once."""
    rates = grid("optim.learning_rate", 1.25e-3, 2.5e-3, 5e-3)
    weights = grid("loss.velocity", 2.0, 5.0)
    return rates * weights * seeds(3) + grid("optim.warmup_steps", 0)


def quick() -> Sweep:
    """Returns short runs; the lower EMA decay averages over the same share of a run."""
    short = zip(grid("steps", 425), grid("optim.ema_decay", 0.98))
    return grid("optim.learning_rate", 1.25e-3, 2.5e-3, 5e-3) * short
