"""The network with the losses of the regression."""

import flax.linen as nn
import jax.numpy as jnp

from a2fjax import rig
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.regression import default_constants
from a2fjax.tasks.regression import RegressionTask


class Network(nn.Module):
    width: int

    @nn.compact
    def __call__(self, features):
        x = nn.Dense(rig.NUM_CHANNELS)(nn.gelu(nn.Conv(self.width, (9,))(features.signals)))
        constants = self.variables["constants"]
        return constants["motion_mean"] + constants["motion_std"] * x


class TinyConv(AudioModel):
    def init(self, key, batch):
        params = self.draw_params(self.network, key, self.audio_features.zeros(batch))
        return {"params": params, "constants": self.device_constants()}

    def apply(self, variables, batch, *, key=None, train=False):
        own = {name: variables[name] for name in ("params", "constants")}
        motion = self.network.apply(own, self.audio_features(variables, batch))
        return {"motion": motion if train else jnp.clip(motion, rig.MIN, rig.MAX)}


def build(config, constants=None, encoders=None):
    model = TinyConv(config.audio, config.precision, default_constants(), constants, encoders)
    model.network = Network(config.model.width)
    return RegressionTask(config.loss, model)
