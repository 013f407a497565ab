"""The audio of whole clips beside the windows, for live encoders."""

import dataclasses

import jax
import numpy as np
import pytest

from a2fjax.configuration import AugmentConfig
from a2fjax.data import loader
from a2fjax.errors import InputError


@pytest.fixture(scope="module")
def long_set(build, tmp_path_factory):
    """Clips of 2 to 4.8 s; the longest has 240 frames."""
    clips = [build.clip(k, seconds=2.0 + 0.4 * k) for k in range(8)]
    return build.write(tmp_path_factory.mktemp("heard") / "shards", clips)


def config_of(build, folder, augment, **data):
    """Nothing is read of an encoder here: its name says that windows travel with their clips."""
    config = build.config(folder, augment=augment, context_frames=240, **data)
    audio = dataclasses.replace(config.audio, features=("mel", "whisper:none"))
    return dataclasses.replace(config, audio=audio)


def rows(config, steps=6, **options):
    batches = loader.batches(config, **options)
    for _ in range(steps):
        batch = next(batches)
        for i in range(len(batch.clip)):
            yield batch.select(i)
    batches.close()


@pytest.mark.parametrize("train", [False, True])
def test_a_window_is_the_part_of_what_is_heard_that_it_says(build, long_set, train):
    """Gain, filter, noise, speed, pause and mirror included: the clip is changed as a whole."""
    augment = AugmentConfig(speed=0.2, silence_prob=0.5, mirror_prob=0.5)
    config = config_of(build, long_set, augment)
    shapes = loader.spec(config)
    assert shapes.context_audio.shape == (8, 288 * 320)
    for row in rows(config, train=train):
        assert jax.eval_shape(lambda b: b, row) == jax.eval_shape(lambda b: b.select(0), shapes)
        first, length = int(row.context_start), int(row.length)
        assert 1 <= length <= 64 and first + length <= row.context_length <= 288
        audio = row.context_audio[320 * first : 320 * (first + 64)]
        np.testing.assert_array_equal(row.audio[: len(audio)], audio)
        assert not row.context_audio[320 * row.context_length :].any()
        assert not row.frame_mask[length:].any()
        if not train:
            assert first == row.start


def test_slow_clips_are_heard_to_their_end(build, long_set):
    """The longest clip, played most slowly, needs more frames than it has on disk."""
    config = config_of(build, long_set, AugmentConfig(speed=0.2, eq_db=0, noise_prob=0, gain_db=0))
    longest = 0
    source = loader._source(config, None)
    for row in rows(config, steps=30):
        frames = int(source.frames[row.clip])
        assert frames / 1.21 - 1 <= row.context_length <= frames * 1.21 + 1
        longest = max(longest, int(row.context_length))
        # The window's motion is that of its place in the clip, at the clip's speed.
        speed = (frames - 1) / max(row.context_length - 1, 1)
        jaw = source.load(int(row.clip)).motion[:, 17]
        place = np.clip((row.context_start + np.arange(row.length)) * speed, 0, frames - 1)
        expected = np.interp(place, np.arange(frames), jaw)
        assert np.abs(row.motion[: row.length, 17] - expected).max() < 0.2
        assert abs(row.context_start * speed - row.start) < 3
    assert longest > 245


def test_mirrored_windows_hear_the_same_and_show_the_other_side(build, long_set):
    plain = AugmentConfig(eq_db=0, noise_prob=0, gain_db=0, speed=0)
    flipped = dataclasses.replace(plain, mirror_prob=1.0)
    for one, other in zip(
        rows(config_of(build, long_set, plain)),
        rows(config_of(build, long_set, flipped)),
        strict=True,
    ):
        for name in ("context_audio", "context_length", "context_start", "audio"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert not np.array_equal(one.motion, other.motion)
        np.testing.assert_array_equal(one.identity * [-1, 1, 1], other.identity)


def test_too_small_for_the_clips_is_said(build, long_set):
    config = config_of(build, long_set, AugmentConfig(speed=0.2))
    small = dataclasses.replace(config.data, context_frames=239)
    with pytest.raises(InputError, match=r"context_frames=239: clip .* has 240 frames"):
        loader.batches(dataclasses.replace(config, data=small))
    # Signals alone need no whole clips.
    signals = dataclasses.replace(
        config, audio=dataclasses.replace(config.audio, features=("mel",))
    )
    assert loader.context_frames(signals) == 0
    assert loader.spec(signals).context_audio is None
