# %% [markdown]
# # Add a loss of your own
#
# A loss term is a function of the masked error of a batch and its settings. In a real project it
# lives in a package that `config.plugins` names, so that training, evaluation and submission import
# it; docs/extending.md shows such a package.

# %%
import dataclasses

import jax.numpy as jnp
import tiny_data

import a2fjax as a2f
from a2fjax import losses, registry
from a2fjax.configuration import LossTermConfig

# %% [markdown]
# Settings are a frozen dataclass; every term has a weight. The term returns a sum and its weight,
# so that masks, accumulated batches and several hosts add up exactly.


# %%
@dataclasses.dataclass(frozen=True, kw_only=True)
class JerkConfig(LossTermConfig):
    """Settings of the jerk term.

    Attributes:
      power: exponent of the jerk.
    """

    power: float = 2.0


@registry.losses.register("jerk", settings=JerkConfig)
def jerk(inputs: losses.LossInputs, config: JerkConfig) -> losses.WeightedSum:
    """Penalises the third difference of the predicted motion over time."""
    third = jnp.diff(inputs.prediction, n=3, axis=1)
    valid = inputs.mask[:, 3:] & inputs.mask[:, :-3]
    return losses.masked_mean(jnp.abs(third) ** config.power, valid)


# %%
config = a2f.config(
    None,
    {
        **tiny_data.SMALL,
        "data.shards": tiny_data.shards(),
        "loss.terms": {"jerk": {"weight": 10.0, "power": 1.5}},
        "steps": 20,
    },
)
run = a2f.train(config, tiny_data.folder() / "own_loss")

# %%
values = [line["train/loss/jerk"] for line in run.metrics() if "train/loss/jerk" in line]
print(f"jerk {values[0]:.5f} to {values[-1]:.5f}")
