import os
import signal
import threading

import pytest

from a2fjax import signals
from a2fjax.errors import Preempted

pytestmark = pytest.mark.parametrize("number", signals.SCHEDULER_SIGNALS)


def test_the_first_signal_ends_the_block_and_later_ones_are_ignored(number):
    done = []
    with pytest.raises(Preempted, match=f"{number.name}; run it again"), signals.raise_on_signal():
        try:
            os.kill(os.getpid(), number)
            done.append("more")
        finally:
            for again in signals.SCHEDULER_SIGNALS:
                os.kill(os.getpid(), again)
            done.append("tidied up")
    for again in signals.SCHEDULER_SIGNALS:
        os.kill(os.getpid(), again)
    assert done == ["tidied up"]


def test_without_signals_the_handlers_return(number):
    before = signal.getsignal(number)
    with signals.raise_on_signal(KeyError):
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before


def test_other_threads_set_no_handlers(number):
    before, seen = signal.getsignal(number), []

    def work():
        with signals.raise_on_signal():
            seen.append(signal.getsignal(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
