import os
import signal

import pytest

from a2fjax import signals
from a2fjax.training.distributed import preemption


@pytest.mark.parametrize("number", signals.STOP_SIGNALS)
def test_signal_becomes_a_request_and_handlers_return(number):
    before = signal.getsignal(number)
    with preemption.StopRequest() as stop:
        assert not stop.requested()
        os.kill(os.getpid(), number)
        assert stop.requested() and stop.name == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_second_interrupt_interrupts():
    with preemption.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", signals.SCHEDULER_SIGNALS)
def test_in_a_process_that_then_ends_it_is_ignored_after_the_context(number):
    signals.ignore()
    with preemption.StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.name == number.name
    with preemption.StopRequest() as stop:
        pass
    os.kill(os.getpid(), number)
    assert not stop.requested()
