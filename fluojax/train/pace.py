"""Time left, and the signals that ask a run to stop."""

import contextlib
import signal
import time
from collections.abc import Iterator

from fluojax.console import duration
from fluojax.train import parallel


class Clock:
    """Throughput without compilation, evaluation and saving."""

    def __init__(self, start: int, num_steps: int):
        self._first_step = start + 1
        self._num_steps = num_steps
        self._began = time.monotonic()
        self._away = 0.0

    def begin(self) -> None:
        """The first step is done; the clock starts here."""
        self._began = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is not training."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._away += time.monotonic() - began

    def rate_and_left(self, done: int) -> tuple[float, str]:
        """Steps per second since the first, and the time left as text."""
        steps = done - self._first_step
        if steps < 1:
            return 0.0, "?"
        rate = steps / max(time.monotonic() - self._began - self._away, 1e-9)
        return rate, duration((self._num_steps - done) / rate)


class Signals:
    """SIGTERM, SIGUSR1 and the first Ctrl-C ask to stop after a step.

    With several processes jax agrees on the step in which all of them stop, and
    handles SIGTERM itself.
    """

    def __init__(self):
        self._asked: int | None = None  # number of the signal
        self._heard = False
        self._old = {}
        numbers = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
        for number in numbers[: None if parallel.alone() else 1]:
            with contextlib.suppress(ValueError):  # not in the main thread
                self._old[number] = signal.signal(number, self._ask)

    def asked(self, step: int) -> bool:
        """Whether the run should stop after this step."""
        if not parallel.alone():
            return parallel.preempted(step)
        self._heard = self._asked is not None
        return self._heard

    def _ask(self, number, frame):
        if number == signal.SIGINT and (self._asked or not parallel.alone()):
            raise KeyboardInterrupt
        self._asked = number

    def restore(self) -> None:
        """Gives the signals back to who had them, with one that came too late here.

        After the last step nobody asks any more; without this a sweep would go on
        with its next member.
        """
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self._asked and not self._heard and parallel.alone():
            signal.raise_signal(self._asked)


@contextlib.contextmanager
def stopped_by_signals(error: Exception) -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise `error` at once wherever no `Signals` listen.

    With several processes jax handles SIGTERM itself; nothing is changed then, nor
    outside the main thread.
    """

    def stop(number, frame):
        raise error

    old = {}
    for number in (signal.SIGTERM, signal.SIGUSR1) if parallel.alone() else ():
        with contextlib.suppress(ValueError):
            old[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
