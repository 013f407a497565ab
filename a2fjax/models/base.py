"""Model interface: two pure functions, `init` and `apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jax import Array

from a2fjax.batch import Batch
from a2fjax.models.params import Params

if TYPE_CHECKING:
    from a2fjax.models.audio_features import AudioFeatureExtractor


class Model(Protocol):
    """Maps audio and conditions to motion.

    The variables of a model are nested dicts by collection, as in `flax.linen`:

        params      weights of the network
        constants   statistics of the training data; never trained
        encoders    weights of speech encoders by key; layers from `audio.encoder.train_from` are
                    trained

    `a2fjax.models.audio_model.AudioModel` implements everything except `init` and `apply`. An
    example of a custom model (docs/extending.md):

        class Tiny(AudioModel):
            def __init__(self, config, audio, precision, constants=None, encoders=None):
                default = {"motion_mean": np.zeros(72), "motion_std": np.ones(72)}
                super().__init__(audio, precision, default, constants, encoders)
                self.network = MyModule(config.width)  # reads self.variables["constants"]

            def init(self, key, batch):
                params = self.draw_params(self.network, key, self.audio_features.zeros(batch))
                return {"params": params, "constants": self.device_constants()}

            def apply(self, variables, batch, *, key=None, train=False):
                rngs = self.streams(key, train)
                features = self.audio_features(variables, batch, rng=rngs.get("encoders"))
                motion = self.network.apply(variables, features, train=train, rngs=rngs)
                return {"motion": motion if train else jnp.clip(motion, rig.MIN, rig.MAX)}

    Attributes:
      audio_features: acoustic signals and encoders; its `pretrained` weights complete the variables
        that `init` returns.
    """

    audio_features: AudioFeatureExtractor
    stride: int
    """Number of frames per frame at the lowest rate; chunks start at multiples of it."""

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the frozen variables, for `params.split`."""
        ...

    @property
    def lookahead_frames(self) -> int | None:
        """Number of future frames that an output frame depends on; None for the whole clip."""
        ...

    @property
    def lookahead_seconds(self) -> float | None:
        """Look-ahead in seconds, including analysis windows; None for the whole clip."""
        ...

    def init(self, key: Array, batch: Batch) -> Params:
        """Initialises the collections "params", drawn from `key`, and "constants".

        `audio_features.with_pretrained` adds the encoders. Only the shapes of `batch` matter, so
        this function works under `eval_shape`.
        """
        ...

    def apply(
        self, variables: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]} in rig units.

        With `train=False` the motion lies within `rig.MIN` and `rig.MAX`. With `train=True` it is
        not clipped (a clipped channel would have no gradient), and `key` seeds dropout and noise:
        the same key gives the same values on any number of devices.
        """
        ...
