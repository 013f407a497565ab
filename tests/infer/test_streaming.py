"""A stream gives what the whole recording gives, as far as it may hear, and holds no more."""

import numpy as np
import pytest

from a2fjax.errors import InputError
from a2fjax.infer import streaming


def streamed(model, audio, step=700, chunking=None, **keywords):
    stream = streaming.StreamingPredictor(model, chunking, **keywords)
    out = [stream.push(audio[i : i + step]) for i in range(0, len(audio), step)]
    return np.concatenate([*out, stream.finish()]), stream


@pytest.mark.parametrize("seconds", [0.013, 0.5, 3.21])
def test_every_frame_comes_out_once(any_model, speech, seconds):
    audio = speech(seconds)[: max(1, round(seconds * 16000))]
    motion, _ = streamed(any_model, audio, speech_level=0.05)
    assert motion.shape == (-(-len(audio) // 320), 72) and np.isfinite(motion).all()


def test_what_comes_out_does_not_depend_on_the_blocks(any_model, speech):
    audio = speech(2.0)
    one, _ = streamed(any_model, audio, 160, speech_level=0.05)
    other, _ = streamed(any_model, audio, 9973, speech_level=0.05)
    np.testing.assert_array_equal(one, other)


def test_with_enough_around_it_a_chunk_is_what_the_whole_gives(any_model, speech):
    audio = speech(3.0)
    whole = any_model(audio, speech_level=0.05, sample_index=3)
    wide = streaming.Chunking(chunk=16, lookahead=48, context=64, fade=4)
    motion, _ = streamed(any_model, audio, chunking=wide, speech_level=0.05, sample_index=3)
    assert np.abs(motion - whole).max() < 5e-3
    narrow = streaming.Chunking(chunk=16, lookahead=0, context=0, fade=0)
    motion, _ = streamed(any_model, audio, chunking=narrow, speech_level=0.05, sample_index=3)
    assert np.abs(motion - whole).max() > 0.02


def test_joins_are_no_faster_than_the_motion_inside(any_model, speech):
    audio = speech(4.0)
    chunking = streaming.Chunking(chunk=8, lookahead=16, context=64, fade=4)
    motion, _ = streamed(any_model, audio, chunking=chunking, speech_level=0.05)
    speed = np.abs(np.diff(motion, axis=0)).max(1)
    joins = np.zeros(len(speed), bool)
    joins[7::8] = True
    assert speed[joins].mean() < 1.3 * speed[~joins].mean()


def test_motion_is_known_after_the_stated_latency(any_model, speech):
    stream = streaming.StreamingPredictor(any_model, speech_level=0.05)
    audio = speech(2.0)
    done = 0
    for i in range(0, len(audio), 320):
        done += len(stream.push(audio[i : i + 320]))
        heard = i // 320 + 1
        assert heard - done < stream.latency * 50
    assert done > 0


def test_the_state_does_not_grow(any_model, speech):
    stream = streaming.StreamingPredictor(any_model)
    audio = speech(8.0)
    sizes = []
    for i in range(0, len(audio), 1600):
        stream.push(audio[i : i + 1600])
        sizes.append(len(stream._audio))
    own = stream.chunking
    assert max(sizes) <= (own.context + own.chunk + own.lookahead + 4) * 320 + 1600


def test_the_level_is_measured_on_the_way(any_model, speech):
    audio = speech(4.0)
    loud, _ = streamed(any_model, audio)
    quiet, _ = streamed(any_model, 0.5 * audio)
    # From the first second of speech on both are heard alike.
    np.testing.assert_allclose(quiet[100:], loud[100:], atol=2e-3)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"chunk": 0}, "at least 1 frame"),
        ({"fade": 20}, "fade=20"),
        ({"lookahead": 2, "fade": 3}, "at most lookahead=2"),
    ],
)
def test_chunkings_that_do_not_fit_are_refused(any_model, changes, says):
    with pytest.raises(InputError, match=says):
        streaming.StreamingPredictor(any_model, streaming.Chunking(**changes))


def test_chunks_fit_the_levels_of_a_diffusion_model(diffusion, speech):
    with pytest.raises(InputError, match="multiples of 2"):
        streaming.StreamingPredictor(diffusion, streaming.Chunking(chunk=7))
    with pytest.raises(InputError, match="finite samples"):
        streaming.StreamingPredictor(diffusion).push(np.full(10, np.nan))
