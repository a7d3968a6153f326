"""Several seeds of one experiment in lock-step: over devices, or vmapped in one.

States and batches carry a leading axis of seeds; nothing is exchanged between
them. Each seed keeps its own run folder, checkpoints, validation, early stopping
and plateau, so that what it leaves behind is that of a run by itself, up to the
rounding of a program compiled for several.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import jax
import numpy as np

from fluojax.console import Console
from fluojax.data import pipeline
from fluojax.errors import Diverged
from fluojax.train import loop, parallel
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.journal import Journal
from fluojax.train.pace import Clock, Signals
from fluojax.train.program import Program
from fluojax.train.state import TrainState

Form = Literal["devices", "vmap"]


@dataclass
class Seed:
    """One member while it trains.

    Attributes:
      job: what the loop's parts need of it.
      state: host arrays, the newest that it was stopped with.
      progress: best score, patience and so on.
      outcome: once it has ended: where, or the error of a seed that diverged.
    """

    job: loop.Job
    state: TrainState
    progress: loop.Progress
    outcome: loop.Outcome | Diverged | None = None

    @property
    def step(self) -> int:
        return int(self.state.step)


def run(
    program: Program,
    members: Mapping[int, tuple[Path, loop.Validate]],
    form: Form,
    console: Console,
) -> dict[int, loop.Outcome | Diverged]:
    """Trains, or continues, seeds until `num_steps`, or each until its patience.

    Args:
      program: of the experiment, with any seed.
      members: run folder (locked by the caller) and validation of each seed.
      form: "devices" (a seed on each, in groups if there are more seeds) or
        "vmap" (all in the first device).
      console: for people.

    Returns:
      Where each seed ended; the error of one that diverged.

    Raises:
      Interrupted: after a signal; all states are saved.
    """
    seeds = {
        number: _open(program.with_seed(number), folder, validate, console)
        for number, (folder, validate) in members.items()
    }
    try:
        for group in _groups(list(seeds.values()), form):
            _train(program, group, form, console)
    finally:
        for seed in seeds.values():
            seed.job.journal.close()
            seed.job.checkpoints.close()
    return {number: seed.outcome for number, seed in seeds.items()}


def _open(
    program: Program, folder: Path, validate: loop.Validate, console: Console
) -> Seed:
    """A seed with its newest checkpoint, or as new."""
    checkpoints = Checkpoints(folder / "checkpoints", say=console.line)
    restored = checkpoints.restore_latest(jax.eval_shape(program.new_state))
    if restored is None:
        state, progress = jax.device_get(program.new_state()), loop.Progress()
    else:
        step, state, saved = restored
        progress = loop.Progress(**saved)
        console.line(f"{folder}: resuming from step {step}")
    journal = Journal(folder, start=int(state.step), say=console.line)
    job = loop.Job(
        program.config, program, folder, checkpoints, journal, validate, console
    )
    return Seed(job, state, progress)


def _groups(seeds: Sequence[Seed], form: Form) -> list[list[Seed]]:
    """Seeds that stand at one step, as many as fit, the least advanced first."""
    size = jax.local_device_count() if form == "devices" else len(seeds)
    groups = []
    for step in sorted({seed.step for seed in seeds}):
        equal = [seed for seed in seeds if seed.step == step]
        groups += [equal[k : k + size] for k in range(0, len(equal), size)]
    return groups


def compile_form(program: Program, form: Form, states: Any, batch: Any) -> Callable:
    """The compiled `step(states, batch)` of one form, for the number of seeds given."""
    if form == "vmap":
        step = jax.jit(jax.vmap(program.step_alone), donate_argnums=0)
    else:
        count = jax.tree.leaves(states)[0].shape[0]
        step = jax.pmap(
            program.step_alone, donate_argnums=0, devices=jax.local_devices()[:count]
        )
    return step.lower(states, batch).compile()


def stack(trees: Sequence[Any]) -> Any:
    """Equal trees as one with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _train(
    program: Program, group: Sequence[Seed], form: Form, console: Console
) -> None:
    config, start = program.config, group[0].step
    began = time.monotonic()
    active = [s for s in group if not loop.patience_over(config, s.progress)]
    if not active or start >= config.num_steps:
        _end(group, began)
        return
    console.line(f"compiling {len(active)} seeds ({form}) ...")
    states = stack([seed.state for seed in active])
    programs = [seed.job.program for seed in active]

    def draw(number: int) -> pipeline.Batch:
        return stack([one.draw(number) for one in programs])

    step = compile_form(program, form, states, draw(start))
    console.line(f"compiled in {time.monotonic() - began:.0f} s")
    clock, signals = Clock(start, config.num_steps), Signals()
    batches = pipeline.prefetch(draw, start, config.num_steps)
    try:
        with contextlib.closing(batches):
            for done, batch in enumerate(batches, start=start + 1):
                states, metrics = step(states, batch)
                if done == start + 1:
                    jax.block_until_ready(metrics)
                    clock.begin()
                asked = signals.asked(done)
                states = _settle(active, states, metrics, done, asked, clock, began)
                if asked:
                    raise loop.Interrupted(
                        f"interrupted at step {done} of {config.num_steps}, states "
                        "saved; run the same command again to continue"
                    )
                if all(_over(seed) for seed in active):
                    break
    finally:
        signals.restore()
    _end(group, began)


def _over(seed: Seed) -> bool:
    return seed.outcome is not None or loop.patience_over(
        seed.job.config, seed.progress
    )


def _settle(
    active: Sequence[Seed], states, metrics, done: int, asked: bool, clock, began
) -> TrainState:
    """What is due after a step, for every seed that has not ended."""
    config = active[0].job.config
    last = done == config.num_steps
    due = {name: last or done % every == 0 for name, every in loop.intervals(config)}
    if not (asked or any(due.values())):
        return states
    few = {"bad_step": states.bad_step, "lr_scale": states.lr_scale}
    numbers = jax.device_get((few, metrics))
    host = jax.device_get(states) if asked or due["eval"] or due["save"] else None
    scales = np.array(numbers[0]["lr_scale"])
    for k, seed in enumerate(active):
        if _over(seed):
            continue
        seen, shown = jax.tree.map(lambda x, k=k: x[k], numbers)
        try:
            loop.log_step(
                seed.job, SimpleNamespace(**seen), done, shown, clock, seed.progress
            )
        except Diverged as error:
            seed.outcome = error
            continue
        if host is not None:
            seed.state = jax.tree.map(lambda x, k=k: np.array(x[k]), host)
            with clock.paused():
                _evaluate_and_save(seed, done, due, asked, began)
            scales[k] = seed.state.lr_scale
    if (scales != numbers[0]["lr_scale"]).any():
        states = states.replace(lr_scale=_like(scales, states.lr_scale))
    return states


def _like(values: np.ndarray, old: jax.Array) -> jax.Array:
    return jax.device_put(values, old.sharding)


def _evaluate_and_save(
    seed: Seed, done: int, due: Mapping[str, bool], asked: bool, began: float
) -> None:
    best = False
    if due["eval"]:
        state, best = loop.evaluate(seed.job, seed.state, done, seed.progress)
        seed.state = state.replace(lr_scale=np.float32(state.lr_scale))
    if asked or best or due["save"] or _over(seed):
        spent = seed.progress.seconds + time.monotonic() - began
        saved = {**vars(seed.progress), "seconds": spent}
        seed.job.checkpoints.save(done, seed.state, saved, best=best)
        # Orbax mixes up two that are written at once by one process.
        seed.job.checkpoints.wait()


def _end(group: Sequence[Seed], began: float) -> None:
    """Outcomes of seeds that did not diverge; they share the time of their group."""
    spent = (time.monotonic() - began) / len(group)
    for seed in group:
        if seed.outcome is None:
            best = seed.job.checkpoints.best_step() or seed.step
            seconds = seed.progress.seconds + spent
            seed.outcome = loop.Outcome(seed.step, best, seed.progress.best, seconds)


def seconds_per_step(
    program: Program, form: Form, count: int, steps: int = 10
) -> float:
    """Time of one step of `count` seeds in a form, compilation apart."""
    several = [program.with_seed(seed) for seed in range(count)]
    size = min(count, jax.local_device_count()) if form == "devices" else count
    states = stack([jax.device_get(one.new_state()) for one in several[:size]])
    batch = stack([one.draw(0) for one in several[:size]])
    step = compile_form(program, form, states, batch)
    states, _ = jax.block_until_ready(step(states, batch))
    began = time.monotonic()
    for _ in range(steps):
        states, metrics = step(states, batch)
    jax.block_until_ready(metrics)
    return (time.monotonic() - began) / steps * -(-count // size)


def serial_seconds_per_step(program: Program, count: int, steps: int = 10) -> float:
    """Time of a step of each of `count` seeds, one after another."""
    state = parallel.replicate(program.new_state())
    batch = parallel.shard(program.draw(0))
    step, _ = program.compile_step(state, batch)
    state, _ = jax.block_until_ready(step(state, batch))
    began = time.monotonic()
    for _ in range(steps):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    return (time.monotonic() - began) / steps * count


def choose(program: Program, count: int, console: Console) -> str:
    """The fastest form for `count` seeds here, by ten steps of each; says so."""
    times = {"serial": serial_seconds_per_step(program, count)}
    forms: list[Form] = ["vmap"]
    if jax.local_device_count() > 1:
        forms.append("devices")
    for form in forms:
        try:
            times[form] = seconds_per_step(program, form, count)
        except Exception as error:  # whatever a backend says when memory is short
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            console.line(f"ensemble: {form} does not fit in memory")
    best = min(times, key=times.get)
    told = ", ".join(f"{form} {1e3 * t:.0f} ms" for form, t in times.items())
    console.line(f"ensemble: {count} seeds, a step of all: {told}; takes {best}")
    return best
