"""Signals that ask a run to stop, heard or too late."""

import signal
import threading

import pytest

from fluojax.train.pace import Signals, stopped_by_signals

pytestmark = pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals reach the main thread only",
)


class Stop(Exception):
    pass


def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    return [signal.getsignal(number) for number in numbers]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_outside_a_training_loop_stops_at_once(number):
    before = handlers()
    with pytest.raises(Stop), stopped_by_signals(Stop()):
        signal.raise_signal(number)
    assert handlers() == before


def test_a_signal_that_was_heard_is_not_sent_again():
    before = handlers()
    with stopped_by_signals(Stop()):
        signals = Signals()
        assert not signals.asked(1)
        signal.raise_signal(signal.SIGTERM)
        assert signals.asked(2)
        signals.restore()
    assert handlers() == before


def test_a_signal_after_the_last_step_reaches_who_listens_outside():
    before = handlers()
    with pytest.raises(Stop), stopped_by_signals(Stop()):
        signals = Signals()
        assert not signals.asked(1)
        signal.raise_signal(signal.SIGTERM)
        signals.restore()
    signals = Signals()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signals.restore()
    assert handlers() == before
