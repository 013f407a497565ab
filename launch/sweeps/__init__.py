"""Sweeps: lists of trials, each a few configuration values by dotted key.

The same functions define a sweep in Python and on the command line (`submit.py submit --sweep`):

    grid("optim.learning_rate", 1e-3, 3e-4)       one trial per value
    seeds(3)                                      seed = 0, 1, 2
    A * B                                         every trial of A with every trial of B
    A + B                                         the trials of A, then those of B
    zip(A, B)                                     the first of A with the first of B, and so on
    random(20, {"optim.learning_rate": loguniform(1e-4, 1e-2), "model.dropout": uniform(0, 0.3)})
                                                  20 draws; also integer(1, 9), choice("x", "y")
    [{"loss.velocity": 2, "seed": 1}, {}]         explicit trials; {} changes nothing

Example:
    >>> from launch.sweeps import grid, seeds
    >>> grid("optim.learning_rate", 1e-3, 3e-4) + seeds(1)
    [{'optim.learning_rate': 0.001}, {'optim.learning_rate': 0.0003}, {'seed': 0}]
"""

from launch.sweeps.spaces import Space, choice, integer, loguniform, uniform
from launch.sweeps.sweep import Sweep, Trial, grid, random, seeds, zip

__all__ = [
    "Space",
    "Sweep",
    "Trial",
    "choice",
    "grid",
    "integer",
    "loguniform",
    "random",
    "seeds",
    "uniform",
    "zip",
]
