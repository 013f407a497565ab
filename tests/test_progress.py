"""Work that lasts is shown, and work that does not is not."""

import threading
import time

import pytest

from a2fjax import progress


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_long_work_is_shown_again_and_again_and_short_work_never():
    said = []
    with progress.shown("reading", said.append, after=60):
        pass
    assert not said
    with progress.shown("reading", said.append, after=0.01, every=0.01):
        until(lambda: len(said) > 2)
    assert said[0] == "reading (0 s)"
    count = len(said)
    assert not [t for t in threading.enumerate() if t.name == "progress"]
    time.sleep(0.03)
    assert len(said) == count


def test_it_ends_with_an_error_and_says_what_is_done_now():
    said, now = [], [""]
    with (
        pytest.raises(ValueError),
        progress.shown(lambda: now[-1], said.append, after=0.001, every=0.001),
    ):
        time.sleep(0.02)
        assert not said
        now.append("compiling")
        until(lambda: said)
        raise ValueError
    assert said[0].startswith("compiling (")


def test_lines_do_not_mix_with_results(capsys):
    progress.to_stderr("reading (2 s)")
    assert capsys.readouterr() == ("", "reading (2 s)\n")
