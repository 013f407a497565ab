import numpy as np
import pytest

from a2fjax.audio import io, level, pitch


def glide(start, end, *, harmonics, noise_db=None, seconds=1.28, tilt=1.0, rms=level.TARGET):
    """Returns (audio, F0 of each frame): a harmonic tone whose F0 moves at a constant rate in
    octaves, white noise `noise_db` below it."""
    n = int(seconds * 16000)
    f0 = start * (end / start) ** (np.arange(n) / n)
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    audio = sum(np.sin(h * phase + h * h) / h**tilt * (h * f0 < 7500) for h in harmonics)
    audio *= rms / np.sqrt(np.mean(audio**2))
    if noise_db is not None:
        audio += np.random.default_rng(0).normal(size=n) * rms * 10 ** (-noise_db / 20)
    return audio.astype(np.float32), f0[::320]


@pytest.mark.parametrize("noise_db", [None, 20.0])
@pytest.mark.parametrize(
    "harmonics", [range(1, 21), range(2, 12), range(3, 9)], ids=["full", "no 1st", "3rd to 8th"]
)
@pytest.mark.parametrize("ends", [(80, 400), (400, 80), (80, 80), (400, 400), (110, 220)])
def test_glides_are_followed_within_1_percent(ends, harmonics, noise_db):
    audio, f0 = glide(*ends, harmonics=harmonics, noise_db=noise_db)
    tracked = np.asarray(pitch.track(audio[None]))[0]
    assert tracked.shape == (64, 3) and tracked.dtype == np.float32
    inner = slice(2, -2)  # Half a window of silence beyond the ends has no period.
    assert np.abs(tracked[inner, 0] / f0[inner] - 1).max() < 0.01
    assert tracked[inner, 1].min() > 0.9


@pytest.mark.parametrize("hz", [65, 100, 250, 480])
def test_a_pure_tone_has_no_octave_errors(hz):
    audio, _ = glide(hz, hz, harmonics=[1], noise_db=20)
    tracked = np.asarray(pitch.track(audio[None]))[0]
    assert np.abs(tracked[2:-2, 0] / hz - 1).max() < 0.03


@pytest.mark.parametrize("kind", ["silence", "noise", "quiet noise", "offset", "click"])
def test_audio_without_pitch_is_unvoiced(kind):
    rng = np.random.default_rng(0)
    audio = {
        "silence": np.zeros(20480),
        "noise": rng.normal(size=20480) * 0.1,
        "quiet noise": rng.normal(size=20480) * 1e-4,
        "offset": np.full(20480, 0.1),
        "click": np.eye(1, 20480, 10000)[0],
    }[kind]
    tracked = np.asarray(pitch.track(audio[None].astype(np.float32)))[0]
    assert np.isfinite(tracked).all()
    assert np.mean(tracked[:, 0] > 0) < 0.05
    assert np.mean(tracked[:, 1]) < 0.45


def test_voicing_falls_with_noise_and_below_the_room():
    means = []
    for noise_db in (30, 10, 0, -10):
        audio, _ = glide(120, 140, harmonics=range(1, 20), noise_db=noise_db)
        means.append(np.asarray(pitch.track(audio[None]))[0, 2:-2, 1].mean())
    assert means[0] > 0.97 and means[-1] < 0.6 and all(np.diff(means) < 0)
    hum, _ = glide(100, 100, harmonics=range(1, 5), rms=level.TARGET * 10 ** (-65 / 20))
    assert np.asarray(pitch.track(hum[None]))[0, :, 1].max() < 0.1


def test_log_energy_is_that_of_the_window():
    noise = np.random.default_rng(0).normal(size=(1, 64000)).astype(np.float32) * 0.05
    energy = np.asarray(pitch.track(noise))[0, :, 2]
    assert np.exp(energy[2:-2]).mean() == pytest.approx(0.05**2, rel=0.03)
    silence = np.asarray(pitch.track(np.zeros((1, 640), np.float32)))[0, :, 2]
    np.testing.assert_allclose(silence, np.log(pitch.ENERGY_FLOOR), rtol=1e-5)


def test_frames_are_centred_on_their_time():
    audio, _ = glide(150, 150, harmonics=range(1, 20), seconds=0.64)
    audio = np.concatenate([np.zeros(5120), audio, np.zeros(5120)]).astype(np.float32)
    power = np.exp(np.asarray(pitch.track(audio[None]))[0, :, 2])
    time = np.sum(np.arange(len(power)) / 50 * power) / power.sum()
    assert time == pytest.approx(0.64, abs=2e-3)


def test_written_out_zeros_change_nothing():
    """The last frames are the same whether silence follows or the clip ends."""
    audio, _ = glide(90, 300, harmonics=range(1, 20), noise_db=20, seconds=0.64)
    audio = audio[None, :10100]
    short = np.asarray(pitch.track(audio))
    after = np.asarray(pitch.track(np.pad(audio, ((0, 0), (0, 3200)))))
    before = np.asarray(pitch.track(np.pad(audio, ((0, 0), (3200, 0)))))
    np.testing.assert_allclose(after[:, :32], short, atol=2e-3)
    np.testing.assert_allclose(before[:, 10:], short, atol=2e-3)


def test_a_frame_depends_on_the_stated_stretch_of_audio():
    audio, _ = glide(90, 300, harmonics=range(1, 20), noise_db=10)
    rng = np.random.default_rng(1)
    t = 30
    inside = slice(320 * t - pitch.LOOKBACK, 320 * t + pitch.LOOKAHEAD + 1)
    changed = (rng.normal(size=len(audio)) * 0.3).astype(np.float32)
    changed[inside] = audio[inside]
    tracked = np.asarray(pitch.track(np.stack([audio, changed])))
    np.testing.assert_allclose(tracked[1, t], tracked[0, t], atol=2e-3)


def test_rows_of_a_batch_are_independent():
    one, _ = glide(100, 200, harmonics=range(1, 20))
    other = np.random.default_rng(0).normal(size=len(one)).astype(np.float32) * 0.1
    both = np.asarray(pitch.track(np.stack([one, other])))
    np.testing.assert_allclose(both[0], np.asarray(pitch.track(one[None]))[0], atol=2e-3)


@pytest.mark.parametrize("samples", [1, 320, 321])
def test_short_clips(samples):
    tracked = np.asarray(pitch.track(np.full((1, samples), 0.1, np.float32)))
    assert tracked.shape == (1, -(-samples // 320), 3) and np.isfinite(tracked).all()
    with pytest.raises(ValueError, match="shape"):
        pitch.track(np.zeros(samples, np.float32))


def test_gross_errors_on_real_speech_are_at_most_5_percent(shared):
    pyworld = pytest.importorskip("pyworld", reason="needs pyworld, of the dev extra")
    names = ["ljspeech/LJ001-0002", "nvidia_a2f/Claire_neutral", "nvidia_a2f/Mark_neutral"]
    paths = [shared / "speech" / f"{name}.flac" for name in names]
    paths = [p for p in paths if p.is_file()]
    paths += sorted((shared / "speech" / "fsdd").glob("?_*_0.flac"))[::9]
    both = gross = 0
    for path in paths:
        audio = io.load(path)[: 4 * 16000]
        normal = level.normalise(audio, level.speech_level(audio))
        ours = np.asarray(pitch.track(np.pad(normal, (0, 64000 - len(normal)))[None]))[0, :, 0]
        audio = audio.astype(np.float64)
        f0, times = pyworld.dio(audio, 16000, f0_floor=60.0, f0_ceil=500.0, frame_period=20.0)
        f0 = pyworld.stonemask(audio, f0, times, 16000)[: len(ours)]
        voiced = (f0 > 0) & (ours[: len(f0)] > 0)
        ratio = ours[: len(f0)][voiced] / f0[voiced]
        both += voiced.sum()
        gross += (np.abs(ratio - 1) > 0.2).sum()
    assert both > 300
    assert gross <= 0.05 * both
