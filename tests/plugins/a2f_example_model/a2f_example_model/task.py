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
    def __call__(self, signals, constants):
        x = nn.Dense(rig.NUM_CHANNELS)(nn.gelu(nn.Conv(self.width, (9,))(signals)))
        return constants["motion_mean"] + constants["motion_std"] * x


class TinyConv(AudioModel):
    def __init__(self, config, constants=None, encoders=None):
        super().__init__(config, default_constants(), constants, encoders)
        self.network = Network(config.model.width)

    def init(self, key, batch):
        constants = self.device_constants()
        params = self.network.init(key, self.zero_features(batch)[0], constants)["params"]
        return {"network": params, "constants": constants}

    def apply(self, params, batch, *, key=None, train=False):
        signals, constants = self.audio_features.signals(batch), params["constants"]
        motion = self.network.apply({"params": params["network"]}, signals, constants)
        return {"motion": motion if train else jnp.clip(motion, rig.MIN, rig.MAX)}


def build(config, constants=None, encoders=None):
    return RegressionTask(config, TinyConv(config, constants, encoders))
