import os
import signal

import pytest

from a2fjax.train import preemption


@pytest.mark.parametrize("number", preemption.SIGNALS)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_repeated_after_the_last_context_it_is_ignored(number):
    before = signal.getsignal(number)
    try:
        with preemption.StopRequest(last=True) as stop:
            pass
        os.kill(os.getpid(), number)
        assert not stop.requested()
    finally:
        signal.signal(number, before)
