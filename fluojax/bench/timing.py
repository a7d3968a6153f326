"""How long a call takes and what memory it needs; no framework is imported."""

import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

# A trial repeats its call until it lasts this long.
TRIAL_S = 0.1
_BOOTSTRAPS = 2000


class First(NamedTuple):
    """The first call: compilation included, and the rise of memory in bytes."""

    seconds: float
    bytes: int


def trial(call: Callable[[], object], at_least_s: float = TRIAL_S) -> float:
    """Seconds per call, the mean over as many calls as fill a trial."""
    calls, start = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        passed = time.perf_counter() - start
        if passed >= at_least_s:
            return passed / calls


def first(call: Callable[[], object]) -> First:
    """Times the first call, then finds what memory one more takes."""
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    before = _forget_peak()
    call()
    return First(seconds, max(_peak() - before, 0))


def _status(field: str) -> int | None:
    """A line of the process' memory figures in bytes; Linux only."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(field + ":")]
    return int(found[0]) * 1024 if found else None


def _forget_peak() -> int:
    """Resets the peak where the system can; returns the memory in use."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass
    return _status("VmRSS") or _peak()


def _peak() -> int:
    peak = _status("VmHWM")
    # Bytes on macOS, kilobytes on other systems without /proc.
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ratio_interval(
    ours: Sequence[float], theirs: Sequence[float], coverage: float = 0.95
) -> tuple[float, float, float]:
    """Median of the paired ratios ours / theirs and its bootstrap interval."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    rng = np.random.default_rng(0)
    drawn = rng.choice(ratios, (_BOOTSTRAPS, len(ratios)))
    tail = 50.0 * (1.0 - coverage)
    low, high = np.percentile(np.median(drawn, axis=1), [tail, 100.0 - tail])
    return float(np.median(ratios)), float(low), float(high)
