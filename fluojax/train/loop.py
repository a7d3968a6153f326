"""The training loop: restore, then step, log, evaluate, save.

The loop owns files below the run folder; what it computes is the pure step of
`step.py`, wrapped by `parallel.py`. With several processes all compute and the
first one writes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.data import pipeline
from fluojax.data.record import Dataset
from fluojax.errors import Diverged, UserError, some
from fluojax.train import parallel
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.journal import Journal
from fluojax.train.pace import Clock, Signals
from fluojax.train.program import Program, build
from fluojax.train.state import TrainState, variables_of

Validate = Callable[[Any, Callable, int], Mapping[str, float]]
BLIND_EVALUATIONS = 3  # in a row without foreground, then a warning


class Interrupted(UserError):
    """A signal came; the state is saved, the same command continues."""

    exit_code = 75


@dataclass
class Progress:
    """What the loop must remember besides the state; saved with it as JSON."""

    best: float | None = None
    best_step: int | None = None
    since_best: int = 0  # evaluations
    plateau_wait: int = 0  # evaluations
    blind: int = 0  # evaluations
    overflow: bool = False  # more instances than the loss takes were seen
    seconds: float = 0.0  # in all processes that worked on the run
    scores: dict[str, float] = field(default_factory=dict)

    def note(
        self, step: int, scores: Mapping[str, float], min_delta: float = 0.0
    ) -> bool:
        """Takes an evaluation in; True if it is the best so far, by `min_delta`."""
        self.scores = dict(scores)
        self.blind = self.blind + 1 if scores["foreground"] == 0 else 0
        better = self.best is None or scores["score"] > self.best + min_delta
        if better:
            self.best, self.best_step = scores["score"], step
            self.since_best = self.plateau_wait = 0
        else:
            self.since_best += 1
            self.plateau_wait += 1
        return better


@dataclass(frozen=True)
class Job:
    """What all parts of the loop need."""

    config: Experiment
    program: Program
    workdir: Path
    checkpoints: Checkpoints
    journal: Journal
    validate: Validate
    console: Console


@dataclass(frozen=True)
class Outcome:
    """Where training ended.

    Attributes:
      step: steps done.
      best_step: step of the best checkpoint.
      best: its validation score.
      seconds: of all processes that worked on the run.
    """

    step: int
    best_step: int
    best: float
    seconds: float


def run(
    config: Experiment,
    dataset: Dataset,
    workdir: Path,
    *,
    validate: Validate,
    console: Console,
    program: Program | None = None,
) -> Outcome:
    """Trains, or continues, until `num_steps` or `patience`.

    Args:
      config: with `crop`, `batch_size` and `scaling` resolved.
      dataset: its "train" split is drawn from.
      workdir: run folder, locked by the caller.
      program: of this experiment, built by the caller; None builds it here.
      validate: `f(variables, eval_step, step)` -> scores of the validation
        split; "score" decides what is best, higher is better, "foreground" is
        the predicted share.
      console: for people.

    Raises:
      Interrupted: after SIGTERM, SIGUSR1 or Ctrl-C; the state is saved.
      Diverged: a loss or state was not finite; no such state is on disk.
    """
    began = time.monotonic()
    program = program or build(config, dataset)
    checkpoints = Checkpoints(workdir / "checkpoints", say=console.line)
    state, progress = _restore_or_new(program, checkpoints, console)
    journal = Journal(workdir, start=int(state.step), say=console.line)
    job = Job(config, program, workdir, checkpoints, journal, validate, console)
    signals = Signals()
    try:
        state = _train(job, state, progress, signals)
    finally:
        journal.close()
        checkpoints.close()
        signals.restore()
    parallel.wait_for_all("trained")
    step = int(state.step)
    best_step = checkpoints.best_step() or step
    seconds = progress.seconds + time.monotonic() - began
    return Outcome(step, best_step, progress.best, seconds)


def _restore_or_new(program: Program, checkpoints: Checkpoints, console: Console):
    """The newest checkpoint that verifies, the same in every process, or none."""
    like = jax.eval_shape(program.new_state)
    restored = checkpoints.restore_latest(like) if parallel.is_first() else None
    step = parallel.from_first(restored[0] if restored else -1)
    if step < 0:
        return parallel.replicate(program.new_state()), Progress()
    _, arrays, progress = restored or (step, *checkpoints.restore(step, like))
    console.line(f"resuming from step {step}")
    return parallel.replicate(arrays), Progress(**progress)


def _train(
    job: Job, state: TrainState, progress: Progress, signals: Signals
) -> TrainState:
    config, console = job.config, job.console
    began = time.monotonic()
    start = int(state.step)
    if start >= config.num_steps or patience_over(config, progress):
        return state
    step = compile_first(config, job.program, state, console)
    clock = Clock(start, config.num_steps)
    for done, batch in _numbered_batches(job, start):
        if patience_over(config, progress):
            break
        state, metrics = step(state, parallel.shard(batch))
        if done == start + 1:
            jax.block_until_ready(metrics)
            clock.begin()
        last = done == config.num_steps
        asked = signals.asked(done)  # once: a signal may come at any line below
        due = {name: last or done % every == 0 for name, every in intervals(config)}
        if asked or any(due.values()):
            log_step(job, state, done, metrics, clock, progress)
        best = False
        if due["eval"]:
            with clock.paused():
                state, best = evaluate(job, state, done, progress)
        if asked or best or due["save"] or patience_over(config, progress):
            with clock.paused():
                spent = progress.seconds + time.monotonic() - began
                saved = {**vars(progress), "seconds": spent}
                job.checkpoints.save(done, parallel.fetch(state), saved, best=best)
        if asked:
            job.checkpoints.wait()
            raise Interrupted(
                f"interrupted at step {done} of {config.num_steps}, state saved; "
                "run the same command again to continue"
            )
    job.checkpoints.wait()
    return state


def compile_first(
    config: Experiment, program: Program, state: TrainState, console: Console
) -> Callable:
    """The compiled train step, timed, its memory told and held against the device.

    Raises:
      UserError: it needs more memory than the device has.
    """
    console.line("compiling the first step ...")
    began = time.monotonic()
    batch = parallel.shard(program.draw(int(state.step)))
    step, need = program.compile_step(state, batch)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    console.line(
        f"model  {config.model} {count / 1e6:.1f} M parameters · memory per device "
        f"{need / 1e9:.2f} GB · compiled in {time.monotonic() - began:.0f} s"
    )
    parallel.check_memory(need, config.batch_size)
    return step


def intervals(config: Experiment) -> tuple[tuple[str, int], ...]:
    """What is due every so many steps."""
    return (
        ("log", config.log_every),
        ("eval", config.eval_every),
        ("save", config.save_every),
    )


def _numbered_batches(job: Job, start: int) -> Iterator[tuple[int, pipeline.Batch]]:
    """(steps done after it, batch) from the step after `start` to the last."""
    batches = pipeline.prefetch(job.program.draw, start, job.config.num_steps)
    with contextlib.closing(batches):
        yield from enumerate(batches, start=start + 1)


def patience_over(config: Experiment, progress: Progress) -> bool:
    """Whether too many evaluations went by without improvement."""
    return config.patience is not None and progress.since_best >= config.patience


def log_step(job, state, done, metrics, clock, progress) -> None:
    """Fetches the numbers of a step, refuses those that are not finite."""
    config = job.config
    # One transfer for all that is read.
    host, bad, scale = jax.device_get((metrics, state.bad_step, state.lr_scale))
    numbers = {name: float(x) for name, x in host.items()}
    numbers["lr"] = float(job.program.schedule(done - 1)) * float(scale)
    if bad >= 0:
        _stop(job, int(bad), done, numbers)
    _tell_overflow(job, numbers, progress)
    if done % config.log_every == 0:
        job.journal.write(done, "train", numbers)
    rate, left = clock.rate_and_left(done)
    line = {
        "step": f"{done}/{config.num_steps}",
        "loss": f"{numbers['loss']:.4f}",
        "lr": f"{numbers['lr']:.2e}",
        "images/s": f"{rate * config.batch_size:.0f}",
        "left": left,
    }
    if progress.best is not None:
        line["val"] = f"{progress.scores['score']:.3f}"
        line["best"] = f"{progress.best:.3f}@{progress.best_step}"
    job.console.progress(done, line, last=done == config.num_steps)


def _tell_overflow(job: Job, numbers: Mapping[str, float], progress: Progress) -> None:
    """Says once that images hold more cells than an instance loss takes."""
    capacity = job.program.instance_capacity
    most = numbers.get("most_instances", 0)
    if capacity is None or most <= capacity or progress.overflow:
        return
    progress.overflow = True
    job.console.line(
        f"a crop holds {most:.0f} cells, the loss takes {capacity}: those beyond (by "
        "id) count as foreground only; set max_instances in the options of the loss"
    )


def evaluate(job, state, done, progress) -> tuple[TrainState, bool]:
    """Validation, the plateau schedule, and a word about a blind network."""
    config, program = job.config, job.program
    variables = variables_of(state, program.model.momentum)
    scores = job.validate(variables, program.eval_step, done)
    job.journal.write(done, "val", scores)
    best = progress.note(done, scores, config.min_delta)
    waited = progress.plateau_wait >= config.plateau_patience
    if config.schedule == "plateau" and waited:
        progress.plateau_wait = 0
        scale = np.float32(float(state.lr_scale) * config.plateau_factor)
        state = state.replace(lr_scale=parallel.replicate(scale))
    if progress.blind == BLIND_EVALUATIONS:
        job.console.line(
            "the network says background everywhere: foreground predicted 0.000 %, "
            f"true {scores['foreground_true']:.3%}; try --set foreground_crops=0.9, "
            "--loss focal_tversky or a weighted loss, or a lower --lr"
        )
    return state, best


def _stop(job: Job, bad: int, done: int, numbers: Mapping[str, float]) -> NoReturn:
    """Ends a run that is no longer finite and keeps the batch that did it."""
    program = job.program
    batch = program.draw(bad - 1)
    names = [program.source.records[i].id for i in batch["record"]]
    path = job.workdir / f"diverged_{bad}.npz"
    with open(path, "wb") as file:
        np.savez_compressed(file, **batch)
    good = job.checkpoints.steps()
    terms = ", ".join(f"{k} {v:g}" for k, v in numbers.items() if k.startswith("loss"))
    raise Diverged(
        f"not finite since step {bad} (seen at step {done}): {terms}, learning rate "
        f"{float(program.schedule(bad - 1)):.2g}, images {some(names)}; batch saved as "
        f"{path.name}, last good checkpoint {good[0] if good else 'none'}; try a lower "
        "--lr, --set precision=float32, or fluojax check on the data"
    )
