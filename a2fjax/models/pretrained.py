"""Speech encoders of a run, read from their published source and stored in the run folder.

A run folder holds the weights of each encoder before training, one file each, so that evaluation
and inference need only the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from a2fjax import files
from a2fjax.configuration import AudioConfig, Config
from a2fjax.encoders import storage
from a2fjax.encoders.feature_names import feature_keys, parse
from a2fjax.encoders.speech_encoder import SpeechEncoder
from a2fjax.errors import InputError
from a2fjax.models.params import Params

FOLDER = "encoders"
"""Name of the encoder folder in a run folder."""

Encoders = Mapping[str, tuple[SpeechEncoder, Params]]
"""Encoders with their pretrained parameters, by key."""


def load(config: AudioConfig) -> dict[str, tuple[SpeechEncoder, Params]]:
    """Reads the configured encoders by key; empty if there are none.

    Raises:
      InputError: an encoder cannot be read, or `train_from` leaves none of its layers to train.
    """
    encoders = {
        key: storage.load(name, config.encoder)
        for key, name in feature_keys(config.features).items()
    }
    for encoder, _ in encoders.values():
        encoder.frozen_patterns(config.encoder.train_from)
    return encoders


def save(run: Path, encoders: Encoders) -> None:
    """Writes encoders into a run folder, so that the run is self-contained.

    Existing files are kept, since they hold the weights before training.
    """
    for key, (encoder, params) in encoders.items():
        path = _path(run, key)
        if not path.is_file():
            files.make_folder(path.parent)
            storage.save(path, encoder, params)


def restore(run: str | Path, config: AudioConfig) -> dict[str, tuple[SpeechEncoder, Params]]:
    """Reads the encoders of a run folder.

    Raises:
      InputError: an encoder is missing, damaged or of another kind.
    """
    return {
        key: storage.restore(_path(Path(run), key), config.encoder, parse(name)[0])
        for key, name in feature_keys(config.features).items()
    }


def load_or_restore(
    run: str | Path, config: AudioConfig, init_from: str | Path = ""
) -> dict[str, tuple[SpeechEncoder, Params]]:
    """Reads the encoders of a run without checkpoints, from its folder or otherwise their source.

    A run interrupted while writing its encoders has only some of them, or none.

    Args:
      run: run folder.
      config: selected features and the use of encoders.
      init_from: folder of another run, whose encoders replace the configured ones; "" for none.

    Raises:
      InputError: as for `restore` and `load`.
    """
    encoders = {}
    for key, name in feature_keys(config.features).items():
        path = _path(Path(run), key)
        if init_from and not path.is_file():
            path = _path(Path(init_from), key)
        encoders[key] = (
            storage.restore(path, config.encoder, parse(name)[0])
            if init_from or path.is_file()
            else storage.load(name, config.encoder)
        )
        encoders[key][0].frozen_patterns(config.encoder.train_from)
    return encoders


def _path(run: Path, key: str) -> Path:
    return run / FOLDER / f"{key}.safetensors"


def check_feature_source(config: Config) -> None:
    """Checks that the configuration allows cached hidden states if it uses them.

    Raises:
      InputError: the encoder is trained, so that cached hidden states become stale; or augmentation
        inserts pauses, which the cache does not contain.
    """
    if config.data.encoder_features != "cached" or not feature_keys(config.audio.features):
        return
    for key, value, wrong, why in (
        (
            "audio.encoder.train_from",
            config.audio.encoder.train_from,
            config.audio.encoder.train_from is not None,
            "an encoder that is trained must hear the audio",
        ),
        (
            "data.augment.silence_prob",
            config.data.augment.silence_prob,
            config.data.augment.enabled and config.data.augment.silence_prob > 0,
            "what an encoder makes of an inserted pause is not in a cache",
        ),
    ):
        if wrong:
            raise InputError(
                f"config: data.encoder_features='cached' with {key}={value}: {why}; "
                "set data.encoder_features='live'"
            )
