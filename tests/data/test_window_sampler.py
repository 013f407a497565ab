import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax.data import window_sampler

LENGTHS = st.lists(st.integers(1, 900), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 300), st.integers(0, 2**40))
def test_every_epoch_has_each_clip_by_its_length(lengths, window, seed):
    plan = window_sampler.Plan(np.array(lengths), window, seed)
    share = np.array(lengths) / sum(lengths) * plan.per_epoch
    for epoch in range(3):
        at = epoch * plan.per_epoch
        clips = [plan.clip(i) for i in range(at, at + plan.per_epoch)]
        count = np.bincount(clips, minlength=len(lengths))
        assert (count >= np.floor(share - 1e-9)).all() and (count <= np.ceil(share + 1e-9)).all()


def test_long_run_share_is_the_length():
    lengths = np.array([10, 20, 30, 340])
    plan = window_sampler.Plan(lengths, 100, seed=1)
    count = np.bincount([plan.clip(i) for i in range(4000)], minlength=4)
    np.testing.assert_allclose(count / 4000, lengths / 400, atol=0.01)


def test_epochs_and_seeds_differ_and_repeat():
    lengths = np.full(200, 128)
    plan, other = window_sampler.Plan(lengths, 128, 0), window_sampler.Plan(lengths, 128, 1)
    first = [plan.clip(i) for i in range(200)]
    second = [plan.clip(i) for i in range(200, 400)]
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second and first != [other.clip(i) for i in range(200)]
    assert first != sorted(first)
    again = window_sampler.Plan(lengths, 128, 0)
    assert [again.clip(i) for i in reversed(range(400))][::-1] == first + second


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 300), st.integers(0, 10**9))
def test_windows_stay_in_their_clip(frames, need, index):
    start = window_sampler.Plan(np.array([frames]), 128, 0).start(index, frames, need)
    assert 0 <= start <= max(0, frames - need)


def test_starts_and_ends_of_clips_are_seen():
    plan = window_sampler.Plan(np.array([300]), 128, 0)
    starts = np.array([plan.start(i, 300, 128) for i in range(3000)])
    seen = np.mean(
        (starts[:, None] <= np.arange(300)) & (np.arange(300) < starts[:, None] + 128), 0
    )
    assert seen[0] > 0.45 * seen[150] and seen[-1] > 0.45 * seen[150]


def test_even_windows_cover_the_split():
    lengths = np.array([200, 50, 400])
    found = window_sampler.even(lengths, 100, 13)
    assert found == window_sampler.even(lengths, 100, 13) and len(found) == 13
    assert {c for c, _ in found} == {0, 1, 2}
    assert all(0 <= s <= max(0, lengths[c] - 100) for c, s in found)
    seen = [np.zeros(n, bool) for n in lengths]
    for c, s in found:
        seen[c][s : s + 100] = True
    assert all(each.all() for each in seen)


def test_even_windows_stand_about_the_middles_of_equal_parts():
    assert window_sampler.even(np.array([100]), 10, 4) == [(0, 8), (0, 32), (0, 58), (0, 82)]
