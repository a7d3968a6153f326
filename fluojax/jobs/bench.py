"""`fluojax bench`: rows timed one after another, told as they finish."""

import os

from fluojax.console import Console
from fluojax.errors import UserError
from fluojax.files import to_json, write_atomic

SIZES = {"A": ("A",), "B": ("B",), "full": ("A", "B"), "small": ("small",)}
# Enough to see that everything runs; figures want the trials of the default.
_SMALL_TRIALS, _SMALL_TRIAL_S = 3, 0.01


def bench(
    what: str,
    console: Console,
    *,
    size: str,
    pattern: str | None,
    threads: int | None,
    trials: int | None,
    json_file: str | None,
    with_peers: bool,
    compare: str | None,
    force: bool,
) -> int:
    """Times the rows, prints a line per contender and writes the JSON file."""
    if trials is not None and trials < 1:
        raise UserError(f"--trials: must be at least 1, got {trials}")
    # The pool of the CPU backend is made with the processors it may use.
    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
    from fluojax.bench import run, table, timing

    threads = run.limit_threads(threads)
    small = size == "small"
    trials = trials or (_SMALL_TRIALS if small else 9)
    sizes = SIZES[size]
    wanted = run.chosen(what, sizes, pattern)
    conditions = run.conditions(threads, trials, sizes)
    old = table.load(compare) if compare else None
    if old:
        table.check_comparable(old, conditions, force)
    if with_peers:
        absent = run.absent_packages(wanted)
        if absent:
            console.line(f"peers not installed: {', '.join(absent)}")
    console.line(table.HEAD)
    timings: list[run.Timing] = []
    for told in run.times(
        wanted,
        trials=trials,
        threads=threads,
        with_peers=with_peers,
        trial_s=_SMALL_TRIAL_S if small else timing.TRIAL_S,
    ):
        timings += told
        for contender in told:
            console.line(table.line(contender))
        if json_file:
            write_atomic(json_file, to_json(table.as_json(conditions, timings)))
    for text in table.compared(old, timings) if old else ():
        console.line(text)
    return 0
