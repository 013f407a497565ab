import dataclasses

import numpy as np
import pytest
import scipy.signal

from a2fjax import rig
from a2fjax.audio import level
from a2fjax.configuration import AugmentConfig
from a2fjax.data import augment, noises, pauses, records, windows

JAW = rig.INDEX["jawOpen"]
NONE = AugmentConfig(
    gain_db=0.0, eq_db=0.0, noise_prob=0.0, speed=0.0, silence_prob=0.0, mirror_prob=0.0
)


def only(**values) -> AugmentConfig:
    return dataclasses.replace(NONE, **values)


def run(clip, config, seed=0, *, start=0, frames=100, rest=None):
    random = np.random.default_rng(seed)
    window = windows.cut(clip, start, frames, augment.draw_speed(config, random))
    return augment.augment(window, config, random, rest=rest)


def db(ratio):
    return 20 * np.log10(ratio)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def spiked(build, places, frames=200):
    """Clicks and one-frame openings of the jaw at the same instants."""
    audio = np.zeros(frames * 320, np.float32)
    motion = np.zeros((frames, 72), np.float32)
    for place in places:
        audio[place * 320] = 0.5
        motion[place, JAW] = 1.0
    clip = build.clip(0, seconds=frames / 50)
    return dataclasses.replace(clip, audio=audio, motion=motion, speech_level=level.TARGET)


def test_switched_off_leaves_the_clip_at_its_level(build):
    clip = build.clip(4)
    for config in (NONE, AugmentConfig(enabled=False)):
        window = run(clip, config, start=20)
        np.testing.assert_allclose(
            window.audio, clip.audio[6400 : 6400 + 32000] * 0.1 / clip.speech_level, rtol=1e-6
        )
        np.testing.assert_array_equal(window.motion, clip.motion[20:120])
        np.testing.assert_array_equal(window.emotion, clip.emotion[20:120])
        assert window.length == 100 and window.frame_mask.all() and not window.mirrored


def test_short_clips_are_padded(build):
    clip = build.clip(0, seconds=1.015)  # 51 frames, the last one 0.75 full
    window = run(clip, AugmentConfig(), seed=1)
    plain = windows.cut(clip, 0, 100)
    assert plain.length == 51 and plain.samples == 16239
    assert plain.frame_mask.sum() == 51 and not plain.frame_mask[51:].any()
    assert not plain.audio[16239:].any() and plain.audio[:16239].any()
    np.testing.assert_array_equal(plain.motion[51:], np.repeat(clip.motion[-1:], 49, 0))
    # Noise, filter and gain leave the padding silent.
    assert not window.audio[window.samples :].any() and np.isfinite(window.audio).all()


@pytest.mark.parametrize("speed", [0.9, 0.95, 1.05, 1.1])
def test_speed_keeps_sound_and_motion_together(build, speed):
    places = [30, 60, 110]
    start = 10
    window = windows.cut(spiked(build, places), start, 120, speed)
    for place in places:
        expected = (place - start) / speed
        near = slice(int(expected * 320) - 300, int(expected * 320) + 300)
        click = near.start + int(np.abs(window.audio[near]).argmax())
        assert abs(click - expected * 320) <= 1.0  # samples
        jaw = window.motion[:, JAW]
        at = np.arange(int(expected) - 1, int(expected) + 3)
        centre = (at * jaw[at]).sum() / jaw[at].sum()
        assert jaw[at].max() >= 0.5 and abs(centre - expected) < 0.5  # frames
        assert abs(centre - click / 320) < 0.5


def test_speed_moves_the_pitch_and_nothing_else(build):
    clip = build.clip(0, seconds=4.0)
    time = np.arange(64000) / 16000
    for tone in (300.0, 3000.0, 6000.0):
        each = dataclasses.replace(
            clip, audio=(0.1 * np.sin(2 * np.pi * tone * time)).astype(np.float32), speech_level=0.1
        )
        window = windows.cut(each, 0, 150, 1.08)
        heard = window.audio[2000:42960] * np.hanning(40960)
        power = np.abs(np.fft.rfft(heard)) ** 2
        peak = power.argmax() * 16000 / 40960
        assert abs(peak - tone * 1.08) < 1.0
        around = power[max(0, power.argmax() - 20) : power.argmax() + 21].sum()
        assert 1 - around / power.sum() < 1e-5  # what the resampler adds: below -50 dB
        assert abs(db(rms(window.audio[2000:-2000]) / (0.1 / np.sqrt(2)))) < 0.1


def test_speed_near_the_end_of_a_clip(build):
    clip = build.clip(0, seconds=2.0)
    for speed in (0.91, 1.1):
        window = windows.cut(clip, 60, 100, speed)
        assert window.length == int(39 / speed) + 1
        assert window.samples <= window.length * 320
        assert not window.frame_mask[window.length :].any()
        assert not window.audio[window.samples :].any()


def test_bad_frames_spread_to_what_is_made_from_them(build):
    clip = build.clip(0)
    mask = np.ones(150, bool)
    mask[50] = False
    clip = dataclasses.replace(clip, frame_mask=mask)
    assert windows.cut(clip, 0, 100).frame_mask.tolist() == mask[:100].tolist()
    fast = windows.cut(clip, 0, 100, 1.1)
    place = 1.1 * np.arange(100)
    touched = np.abs(place - 50) < 1 - 1e-9
    np.testing.assert_array_equal(fast.frame_mask, ~touched)


def test_speeds_are_drawn_within_bounds():
    speeds = [augment.draw_speed(only(speed=0.1), np.random.default_rng(i)) for i in range(2000)]
    assert 1 / 1.1 - 1e-9 <= min(speeds) < 0.92 and 1.09 < max(speeds) <= 1.1
    assert abs(np.mean(np.log(speeds))) < 0.005
    assert augment.draw_speed(NONE, np.random.default_rng(0)) == 1.0


def test_gain_is_uniform_in_db(build):
    clip = build.clip(2)
    plain = rms(run(clip, NONE).audio)
    gains = [db(rms(run(clip, only(gain_db=6.0), i).audio) / plain) for i in range(400)]
    assert -6.001 < min(gains) < -5.5 and 5.5 < max(gains) < 6.001
    assert abs(np.mean(gains)) < 0.5 and abs(np.std(gains) - 6 / np.sqrt(3)) < 0.3


def test_filter_is_smooth_without_delay_and_of_the_stated_size():
    impulse = np.zeros(20480, np.float32)
    impulse[10240] = 1.0
    curves = []
    for i in range(300):
        out = augment.equalise(impulse, 4.0, np.random.default_rng(i))
        np.testing.assert_allclose(out[10241:10740], out[10239:9740:-1], atol=1e-6)
        assert np.abs(out).argmax() == 10240
        curves.append(db(np.abs(np.fft.rfft(out))[::64][1:]))
    curves = np.array(curves)
    assert np.abs(curves.mean(axis=0)).max() < 0.8
    assert 2.5 < curves.std(axis=0).mean() < 4.2
    octave = db(np.abs(np.fft.rfft(out)))
    bins = np.array([500, 530]) * 20480 // 16000
    assert abs(octave[bins[0]] - octave[bins[1]]) < 1.0


@pytest.mark.parametrize("snr", [0.0, 20.0, 40.0])
def test_noise_has_the_ratio_to_the_speech_level(snr):
    ratios = []
    for i in range(60):
        audio = np.zeros(40960, np.float32)
        noises.add_noise(audio, snr, np.random.default_rng(i))
        ratios.append(db(level.TARGET / rms(audio)))
    assert abs(np.mean(ratios) - snr) < 0.7
    # Babble and brown noise rise and fall within a window.
    assert np.std(ratios) < 2.0


def test_share_of_windows_with_noise(build):
    clip = build.clip(2)
    plain = run(clip, NONE).audio
    config = only(noise_prob=0.7, noise_snr_db=(10.0, 50.0))
    noisy = [not np.array_equal(run(clip, config, i).audio, plain) for i in range(400)]
    assert abs(np.mean(noisy) - 0.7) < 0.07


def test_noise_bank_has_the_colours_it_names():
    bank = dict(zip(noises.NOISES, noises.noise_bank(), strict=True))
    slope = {}
    for name, noise in bank.items():
        assert abs(rms(noise) - 1) < 1e-3 and np.isfinite(noise).all()
        frequency, power = scipy.signal.welch(noise, 16000, nperseg=4096)
        band = (frequency > 200) & (frequency < 4000)
        slope[name] = np.polyfit(np.log2(frequency[band]), 10 * np.log10(power[band]), 1)[0]
    assert abs(slope["white"]) < 0.5 and abs(slope["pink"] + 3) < 0.5
    assert abs(slope["brown"] + 6) < 1.0
    power = np.abs(np.fft.rfft(bank["hum"])) ** 2
    mains = np.round(np.arange(1, 13) * 50.0 * len(bank["hum"]) / 16000).astype(int)
    assert power[mains].sum() > 0.9 * power.sum()
    # Babble comes and goes at the rate of syllables; fan noise does not.
    swing = {
        k: np.std(np.log([rms(x) for x in bank[k].reshape(-1, 2048)])) for k in ("babble", "white")
    }
    assert swing["babble"] > 4 * swing["white"]
    np.testing.assert_array_equal(noises.noise_bank.__wrapped__(0), noises.noise_bank(0))


def test_rest_pose_is_closed_and_found_in_silence(build):
    clip = build.clip(0)
    rest = pauses.rest_pose(clip)
    assert rest is not None and rig.aperture(rest) < 0.02
    assert rest[rig.INDEX["mouthSmileLeft"]] == pytest.approx(0.3)


def test_no_rest_pose_where_the_clip_shows_none(build):
    clip = build.clip(0)
    open_always = dataclasses.replace(clip, motion=np.maximum(clip.motion, 0.5))
    assert pauses.rest_pose(open_always) is None
    loud = dataclasses.replace(clip, audio=clip.audio + np.float32(0.1))
    assert pauses.rest_pose(loud) is None
    unseen = dataclasses.replace(clip, channel_mask=np.arange(72) != JAW)
    assert pauses.rest_pose(unseen) is None
    bad = dataclasses.replace(clip, frame_mask=clip.motion[:, JAW] > 0.1)
    assert pauses.rest_pose(bad) is None


def test_inserted_pause_is_silent_and_at_rest(build):
    clip = build.clip(0, seconds=4.0)
    motion = np.array(clip.motion)
    motion[:, JAW] = 0.6
    clip = dataclasses.replace(
        clip, motion=motion, audio=np.tile(np.float32([0.14, -0.14]), 32000), speech_level=0.14
    )
    rest = np.zeros(72, np.float32)
    lengths = []
    for seed in range(200):
        before = windows.cut(clip, 0, 128)
        after = windows.cut(clip, 0, 128)
        pauses.insert_pause(after, rest, np.random.default_rng(seed))
        changed = np.nonzero(before.motion[:, JAW] != after.motion[:, JAW])[0]
        first, last = changed[0], changed[-1]
        lengths.append((last - first + 1) / 50)
        assert (np.diff(changed) == 1).all() and first >= 1 and last <= 126
        power = np.sqrt((after.audio.reshape(128, 320) ** 2).mean(1)) / level.TARGET
        assert (np.abs(np.delete(power, changed) - 1) < 1e-5).all()
        inner = slice(first + 2, last - 1)
        assert db(power[inner].max()) < -30
        assert np.abs(after.motion[first + 6 : last - 5, pauses.LOWER_FACE]).max() == 0
        upper = rig.GROUPS["upper_face"]
        np.testing.assert_array_equal(after.motion[:, upper], before.motion[:, upper])
        # Neither sound nor mouth jumps.
        assert np.abs(np.diff(after.motion[:, JAW])).max() < 0.2
        assert np.abs(np.diff(power)).max() < 0.8
        # The mouth closes after the sound has faded and opens before it is back.
        assert after.motion[first + 1, JAW] > 0.2 and power[first + 3] < 0.05
    assert 0.3 <= min(lengths) < 0.4 and 1.1 < max(lengths) <= 1.2


def test_pauses_come_as_often_as_asked_and_not_without_a_rest_pose(build):
    clip = build.clip(0, seconds=4.0)
    plain = run(clip, NONE)
    config = only(silence_prob=0.4)
    rest = pauses.rest_pose(clip)
    changed = [
        not np.array_equal(run(clip, config, i, rest=rest).audio, plain.audio) for i in range(300)
    ]
    assert abs(np.mean(changed) - 0.4) < 0.08
    np.testing.assert_array_equal(run(clip, only(silence_prob=1.0)).audio, plain.audio)
    short = windows.cut(build.clip(0, seconds=0.3), 0, 100)
    pauses.insert_pause(short, rest, np.random.default_rng(0))
    np.testing.assert_array_equal(
        short.motion, windows.cut(build.clip(0, seconds=0.3), 0, 100).motion
    )


def test_mirror_twice_is_the_identity(build):
    clip = build.clip(0)
    mask = np.ones(72, bool)
    mask[[rig.INDEX["mouthSmileLeft"], rig.INDEX["tongueOut"]]] = False
    clip = dataclasses.replace(clip, channel_mask=mask)
    config = only(mirror_prob=1.0)
    once = run(clip, config)
    assert once.mirrored
    assert once.motion[:, rig.INDEX["mouthSmileRight"]].min() == pytest.approx(0.3)
    assert not once.motion[:, rig.INDEX["mouthSmileLeft"]].any()
    assert not once.channel_mask[rig.INDEX["mouthSmileRight"]]
    assert once.channel_mask[rig.INDEX["mouthSmileLeft"]]
    twice = augment.augment(dataclasses.replace(once), config, np.random.default_rng(0))
    plain = run(clip, NONE)
    np.testing.assert_array_equal(twice.motion, plain.motion)
    np.testing.assert_array_equal(twice.channel_mask, plain.channel_mask)
    np.testing.assert_array_equal(twice.audio, plain.audio)
    points = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    np.testing.assert_array_equal(augment.mirror_points(augment.mirror_points(points)), points)
    np.testing.assert_array_equal(augment.mirror_points(points)[:, 0], -points[:, 0])


def test_same_seed_same_window_and_switches_are_independent(build):
    clip = build.clip(3)
    full = AugmentConfig(silence_prob=0.5, mirror_prob=0.5)
    rest = pauses.rest_pose(clip)
    for seed in range(20):
        a, b = run(clip, full, seed, rest=rest), run(clip, full, seed, rest=rest)
        for field in dataclasses.fields(windows.Window):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
        # Without noise, the same pause, mirror and gain.
        quiet = run(clip, dataclasses.replace(full, noise_prob=0.0), seed, rest=rest)
        np.testing.assert_array_equal(quiet.motion, a.motion)
        assert quiet.mirrored == a.mirrored


def test_clips_are_never_written_to(build):
    clip = records.decode(records.encode(build.clip(3)))
    clip.audio.flags.writeable = False
    before = records.encode(clip)
    for seed in range(30):
        run(
            clip,
            AugmentConfig(silence_prob=1.0, mirror_prob=0.5, speed=0.0),
            seed,
            rest=pauses.rest_pose(clip),
        )
    assert records.encode(clip) == before
