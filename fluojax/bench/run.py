"""Times the rows: ours and, if asked, its peers in alternation, values first.

The headline is the ratio of the minima of one run; the interval is that of the
median of paired ratios. A peer whose values differ gets no ratio.
"""

import fnmatch
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluojax.bench import loader, metric_rows, networks, peers, timing
from fluojax.bench.rows import Row, rows
from fluojax.bench.worker import PeerError, Peers
from fluojax.errors import UserError, nearest

OURS = "fluojax"


class Timing(NamedTuple):
    """One contender of one row; `ratio` and what follows are ours over theirs."""

    row: str
    contender: str
    trials: list[float]  # seconds per call
    first_s: float
    bytes: int
    state: str = ""  # DIFFERS, or why it did not run
    ratio: float | None = None
    interval: tuple[float, float, float] | None = None  # median, low, high
    bound_bytes: int | None = None
    planned_bytes: int | None = None  # temporaries and results, by the compiler
    images: int | None = None  # of a call

    @property
    def minimum(self) -> float:
        return min(self.trials)


def chosen(what: str, sizes: tuple[str, ...], pattern: str | None) -> list[Row]:
    """The rows asked for.

    Raises:
      UserError: the pattern fits none of them.
    """
    known = [row for size in sizes for row in _rows(what, size)]
    unique = list({row.name: row for row in known}.values())
    if pattern is None:
        return unique
    found = [row for row in unique if fnmatch.fnmatch(row.name, pattern)]
    if not found:
        names = [row.name for row in unique]
        raise UserError(
            f"--rows: nothing fits {pattern!r}{nearest(pattern, names)}; rows are named "
            f"like {names[0]}"
        )
    return found


def _rows(what: str, size: str) -> tuple[Row, ...]:
    made = rows(what, size)
    if what in ("train", "all"):
        made += networks.train_rows(size)
    if what in ("metrics", "all"):
        made += metric_rows.metric_rows(size)
    if what in ("models", "all"):
        made += networks.infer_rows(size)
    if what in ("input", "all"):
        made += loader.loader_rows(size)
    return made


def limit_threads(threads: int | None) -> int:
    """Keeps this process and its children on so many processors.

    Call it before jax runs anything: its pool is made once.

    Raises:
      UserError: the system cannot, or there are not so many.
    """
    if not hasattr(os, "sched_setaffinity"):
        if threads is not None:
            raise UserError(
                "--threads: this system cannot bind a process; leave it out"
            )
        return os.cpu_count() or 1
    available = sorted(os.sched_getaffinity(0))
    if threads is None:
        return len(available)
    if not 1 <= threads <= len(available):
        raise UserError(
            f"--threads: must lie between 1 and {len(available)}, got {threads}"
        )
    os.sched_setaffinity(0, available[:threads])
    return threads


def times(
    wanted: list[Row], *, trials: int, threads: int, with_peers: bool, trial_s: float
) -> Iterator[list[Timing]]:
    """The contenders of each row, ours first, as the rows finish."""
    if not with_peers:
        for row in wanted:
            alone = row.paired is None
            yield [_Ours(row).timing(trials, trial_s)] if alone else _fed(row, trials)
        return
    with Peers(threads) as process:
        for row in wanted:
            alone = row.paired is None
            yield (
                _against(row, process, trials, trial_s) if alone else _fed(row, trials)
            )


def _fed(row: Row, trials: int) -> list[Timing]:
    """A step with real input, and its ratio to the same step with one batch."""
    told = row.paired(trials)
    return [
        Timing(row.name, OURS, told.real, told.first_s, 0, images=row.images),
        Timing(
            row.name,
            loader.FIXED,
            told.fixed,
            0.0,
            0,
            ratio=min(told.real) / min(told.fixed),
            interval=timing.ratio_interval(told.real, told.fixed),
        ),
    ]


class _Ours:
    """The compiled function of a row and its inputs on the device."""

    def __init__(self, row: Row):
        self.row = row
        self.given = row.arrays()
        arrays = {k: jnp.asarray(v) for k, v in self.given.items()}
        jax.block_until_ready(arrays)
        if row.grad:
            rest = {k: v for k, v in arrays.items() if k != "logits"}

            def function(z):
                return row.function({**rest, "logits": z})

            jitted, argument = jax.jit(jax.value_and_grad(function)), arrays["logits"]
        else:
            jitted, argument = jax.jit(row.function), arrays
        start = time.perf_counter()
        compiled = jitted.lower(argument).compile()
        compiling_s = time.perf_counter() - start
        self.planned_bytes = _planned(compiled)
        self.call = lambda: jax.block_until_ready(compiled(argument))
        seconds, rise = timing.first(self.call)
        self.first = timing.First(compiling_s + seconds, rise)

    def result(self) -> list[np.ndarray]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self.call())]

    def timing(self, trials: int, trial_s: float) -> Timing:
        seconds = [timing.trial(self.call, trial_s) for _ in range(trials)]
        return self.told(seconds)

    def told(self, seconds: list[float]) -> Timing:
        passes = self.row.passes
        bound = None if passes is None else 4 * passes * self.row.pixels
        name = self.row.name
        return Timing(
            name,
            OURS,
            seconds,
            *self.first,
            bound_bytes=bound,
            planned_bytes=self.planned_bytes,
            images=self.row.images,
        )


def _planned(compiled: jax.stages.Compiled) -> int | None:
    """Bytes beside the arguments that a program reserves, where a backend says so."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def _against(row: Row, process: Peers, trials: int, trial_s: float) -> list[Timing]:
    ours = _Ours(row)
    expected = ours.result()
    offered = peers.contenders(row.kind)
    absent = peers.missing({package for package, _ in offered.values()})
    names = [name for name, (package, _) in offered.items() if package not in absent]
    process.give(ours.given)
    firsts: dict[str, timing.First] = {}
    states: dict[str, str] = {}
    for name in names:
        try:
            firsts[name], result = process.first(row.kind, name)
            states[name] = "" if row.agree(expected, result) else "DIFFERS"
        except PeerError as error:
            states[name] = str(error)
    running = [name for name in names if states[name] == ""]
    seconds: dict[str, list[float]] = {name: [] for name in [OURS, *running]}
    for _ in range(trials):
        seconds[OURS].append(timing.trial(ours.call, trial_s))
        for name in running:
            seconds[name].append(process.trial(row.kind, name, trial_s))
    told = [ours.told(seconds[OURS])]
    for name in names:
        if name not in running:
            told.append(Timing(row.name, name, [], 0.0, 0, state=states[name]))
            continue
        told.append(
            Timing(
                row.name,
                name,
                seconds[name],
                *firsts[name],
                ratio=min(seconds[OURS]) / min(seconds[name]),
                interval=timing.ratio_interval(seconds[OURS], seconds[name]),
            )
        )
    return told


def absent_packages(wanted: list[Row]) -> list[str]:
    """Packages of peers of these rows that are not installed."""
    packages = {
        package for row in wanted for package, _ in peers.contenders(row.kind).values()
    }
    return peers.missing(packages)


def conditions(threads: int, trials: int, sizes: tuple[str, ...]) -> dict[str, Any]:
    """What a figure is worth nothing without."""
    from fluojax import environment
    from fluojax.bench import inputs

    versions = {name: environment.version(name) for name in ("torch", "monai", "scipy")}
    return {
        **environment.environment(),
        **{name: version for name, version in versions.items() if version},
        "threads": threads,
        "trials": trials,
        "sizes": list(sizes),
        "seed": inputs.SEED,
        "precision": "float32",
        "flags": os.environ.get("XLA_FLAGS", ""),
    }
