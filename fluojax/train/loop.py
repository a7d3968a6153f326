"""The training loop, top to bottom.

Devices and batch arithmetic, data, model and state, restore, then: step, log,
evaluate, save. The loop owns files below `workdir`; what it computes is the
pure step of `step.py`, wrapped by `parallel.py`.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluojax.config import Experiment
from fluojax.console import Console, duration
from fluojax.data import pipeline
from fluojax.data.augment import augmentation
from fluojax.data.record import Dataset
from fluojax.errors import Diverged, UserError, nearest, some
from fluojax.models import create_model, list_models
from fluojax.train import parallel
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.journal import Journal
from fluojax.train.schedules import create_optimizer, create_schedule
from fluojax.train.state import TrainState, create_state, variables_of
from fluojax.train.step import create_loss, make_eval_step, make_train_step

Validate = Callable[[Any, Callable, int], Mapping[str, float]]


class Interrupted(UserError):
    """A signal came; the state is saved, the same command continues."""

    exit_code = 75


@dataclass(frozen=True)
class Program:
    """The compiled functions of an experiment and what they need."""

    model: Any
    train_step: Callable
    eval_step: Callable
    new_state: Callable[[], TrainState]
    schedule: Callable
    source: pipeline.Source


@dataclass
class Progress:
    """What the loop must remember besides the state; saved with it as JSON."""

    best: float | None = None
    best_step: int | None = None
    since_best: int = 0  # evaluations
    plateau_wait: int = 0
    no_foreground: int = 0
    scores: dict[str, float] = field(default_factory=dict)

    def note(self, step: int, score: float, scores: Mapping[str, float]) -> bool:
        """Takes an evaluation in; True if it is the best so far."""
        self.scores = dict(scores)
        better = self.best is None or score > self.best
        if better:
            self.best, self.best_step = score, step
            self.since_best = self.plateau_wait = 0
        else:
            self.since_best += 1
            self.plateau_wait += 1
        return better


@dataclass(frozen=True)
class Outcome:
    """Where training ended: the best checkpoint's variables, on the host."""

    variables: dict[str, Any]
    step: int
    best_step: int
    best: float
    seconds: float


def build(config: Experiment, dataset: Dataset) -> Program:
    """Looks up names, draws nothing yet, compiles nothing yet.

    `config.crop`, `batch_size` and `scaling` must be resolved.

    Raises:
      UserError: names, options or sizes that do not fit.
    """
    parallel.check_batch_size(config.batch_size)
    source = pipeline.make_source(
        dataset.splits["train"], config.scaling, config.crop, config.foreground_crops
    )
    model = _model(config)
    loss = _named(lambda: create_loss(config.loss), "loss")
    schedule, optimizer = _optimizer(config)
    step = make_train_step(
        model,
        loss,
        optimizer,
        key=jax.random.key(config.seed),
        scaling_kind=config.scaling,
        augment=augmentation(config.augmentation),
        touching_gap=config.touching_gap,
        axis_name=parallel.AXIS,
    )
    channels = source.records[0].image.shape[-1]
    new_state = _state_maker(config, model, optimizer, channels)
    return Program(
        model=model,
        train_step=parallel.train_step(step),
        eval_step=parallel.eval_step(
            make_eval_step(
                model,
                loss,
                scaling_kind=config.scaling,
                touching_gap=config.touching_gap,
            )
        ),
        new_state=jax.jit(new_state),
        schedule=schedule,
        source=source,
    )


def abstract_state(config: Experiment, channels: int) -> TrainState:
    """Shapes and dtypes of the state of an experiment; computes nothing."""
    make = _state_maker(config, _model(config), _optimizer(config)[1], channels)
    return jax.eval_shape(make)


def _state_maker(config, model, optimizer, channels: int) -> Callable[[], TrainState]:
    image = jnp.zeros((1, config.crop, config.crop, channels))
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    return lambda: create_state(model, optimizer, key, image)


def _optimizer(config: Experiment):
    schedule = create_schedule(config.schedule, config.learning_rate, config.num_steps)
    optimizer = _named(
        lambda: create_optimizer(
            config.optimizer,
            schedule,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            options=config.optimizer_options,
        ),
        "optimizer_options",
    )
    return schedule, optimizer


def _model(config: Experiment) -> Any:
    if config.model not in list_models():
        raise UserError(
            f"model: {config.model!r} is unknown{nearest(config.model, list_models())}; "
            "`fluojax list models` names all"
        )
    options = dict(config.model_options)
    if config.remat:
        options["remat"] = True
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    model = _named(
        lambda: create_model(
            config.model, dtype=dtype, axis_name=parallel.AXIS, **options
        ),
        "model_options",
    )
    if config.crop < model.min_size:
        raise UserError(
            f"crop {config.crop} is below the {model.min_size} px that "
            f"{config.model} needs; --set crop={model.min_size}"
        )
    return model


def _named(make: Callable, what: str) -> Any:
    """Errors of a look-up as one line that names the field."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {error}") from error


def run(
    config: Experiment,
    dataset: Dataset,
    workdir: Path,
    *,
    validate: Validate,
    console: Console,
) -> Outcome:
    """Trains, or continues, until `num_steps` or `patience`.

    Args:
      config: with `crop`, `batch_size` and `scaling` resolved.
      dataset: its "train" split is drawn from.
      workdir: run folder, locked by the caller.
      validate: `f(variables, eval_step, step)` -> scores of the validation
        split; "score" decides what is best, higher is better.
      console: for people.

    Raises:
      Interrupted: after SIGTERM, SIGUSR1 or Ctrl-C; the state is saved.
      Diverged: a loss or state was not finite; no such state is on disk.
    """
    program = build(config, dataset)
    checkpoints = Checkpoints(workdir / "checkpoints", say=console.line)
    state, progress = _restore_or_new(program, checkpoints, console)
    start = int(state.step)
    journal = Journal(workdir, start=start, say=console.line)
    stop = _Signals()
    began = time.monotonic()
    try:
        state = _train(
            config, program, state, progress, checkpoints, journal, validate, console,
            stop, workdir,
        )  # fmt: skip
    finally:
        stop.restore()
        journal.close()
        checkpoints.close()
    step = int(state.step)
    best_step = checkpoints.best_step() or step
    like = parallel.fetch(state)
    best_state, _ = checkpoints.restore(best_step, like)
    seconds = time.monotonic() - began
    variables = variables_of(best_state, program.model.momentum)
    return Outcome(variables, step, best_step, progress.best, seconds)


def _restore_or_new(program: Program, checkpoints: Checkpoints, console: Console):
    like = jax.eval_shape(program.new_state)
    restored = checkpoints.restore_latest(like)
    if restored is None:
        state = parallel.replicate(program.new_state())
        return state, Progress()
    step, arrays, progress = restored
    console.line(f"resuming from step {step}")
    return parallel.replicate(arrays), Progress(**progress)


def _train(
    config, program, state, progress, checkpoints, journal, validate, console, stop,
    workdir,
):  # fmt: skip
    start = int(state.step)
    indices = parallel.local_indices(config.batch_size)

    def draw(step: int):
        return pipeline.draw_batch(
            program.source, config.seed, step, indices, config.batch_size
        )

    clock = _Clock(start, config)
    if start < config.num_steps and not _patience_over(config, progress):
        console.line("compiling the first step ...")
    for done, batch in _numbered_batches(draw, start, config):
        if _patience_over(config, progress):
            break
        state, metrics = program.train_step(state, parallel.shard(batch))
        asked = stop.asked  # read once: a signal may come at any line below
        if done == start + 1:
            jax.block_until_ready(metrics)
            console.line(f"compiling the first step ... {clock.compiled():.0f} s")
        evaluate = done % config.eval_every == 0 or done == config.num_steps
        save = done % config.save_every == 0 or done == config.num_steps
        if done % config.log_every == 0 or evaluate or save or asked:
            host = {name: float(value) for name, value in metrics.items()}
            _check_finite(
                state, done, config, host, draw, program, workdir, checkpoints
            )
            host["lr"] = float(program.schedule(done - 1)) * float(state.lr_scale)
            if done % config.log_every == 0:
                journal.write(done, "train", host)
            console.progress(
                done, clock.line(done, host, progress), last=done == config.num_steps
            )
        best = False
        if evaluate:
            with clock.paused():
                scores = validate(
                    variables_of(state, program.model.momentum), program.eval_step, done
                )
            journal.write(done, "val", scores)
            best = progress.note(done, scores["score"], scores)
            state = _after_evaluation(config, state, progress, host, console)
        if save or best or asked or _patience_over(config, progress):
            with clock.paused():
                checkpoints.save(
                    done, parallel.fetch(state), vars(progress).copy(), best=best
                )
        if asked:
            checkpoints.wait()
            raise Interrupted(
                f"interrupted at step {done} of {config.num_steps}, state saved; "
                "run the same command again to continue"
            )
    checkpoints.wait()
    return state


def _numbered_batches(draw, start: int, config: Experiment):
    """(steps done after it, batch) from the step after `start` to the last."""
    batches = pipeline.prefetch(draw, start, config.num_steps)
    with contextlib.closing(batches):
        yield from enumerate(batches, start=start + 1)


def _patience_over(config: Experiment, progress: Progress) -> bool:
    return config.patience is not None and progress.since_best >= config.patience


def _after_evaluation(config, state, progress, metrics, console) -> TrainState:
    """Plateau schedule and the warning of a network that sees no cells."""
    if (
        config.schedule == "plateau"
        and progress.plateau_wait >= config.plateau_patience
    ):
        progress.plateau_wait = 0
        scale = np.float32(float(state.lr_scale) * config.plateau_factor)
        state = state.replace(lr_scale=parallel.replicate(scale))
    seen = progress.scores.get("foreground", 1.0)
    progress.no_foreground = progress.no_foreground + 1 if seen == 0 else 0
    if progress.no_foreground == 3:
        console.line(
            "the network says background everywhere: foreground predicted "
            f"{metrics['foreground']:.3%}, true {metrics['foreground_true']:.3%}; try "
            "--set foreground_crops=0.9, --loss focal_tversky or a weighted loss, or a "
            "lower --lr"
        )
    return state


def _check_finite(
    state, done, config, metrics, draw, program, workdir, checkpoints
) -> None:
    """Stops a run that is no longer finite and keeps the batch that did it."""
    bad = int(state.bad_step)
    if bad < 0:
        return
    batch = draw(bad - 1)
    names = [program.source.records[i].id for i in batch["record"]]
    buffer = workdir / f"diverged_{bad}.npz"
    with open(buffer, "wb") as file:
        np.savez_compressed(file, **batch)
    good = checkpoints.steps()
    terms = ", ".join(f"{k} {v:g}" for k, v in metrics.items() if k.startswith("loss"))
    raise Diverged(
        f"not finite since step {bad} (seen at step {done}): {terms}, learning rate "
        f"{float(program.schedule(bad - 1)):.2g}, images {some(names)}; batch saved as "
        f"{buffer.name}, last good checkpoint {good[0] if good else 'none'}; try a lower "
        "--lr, --set precision=float32, or fluojax check on the data"
    )


class _Clock:
    """Throughput and time left, without compilation, evaluation and saving."""

    def __init__(self, start: int, config: Experiment):
        self._start = start + 1
        self._config = config
        self._began = time.monotonic()
        self._first = self._began
        self._away = 0.0

    def compiled(self) -> float:
        """Seconds of the first step; the clock starts after it."""
        self._first = time.monotonic()
        return self._first - self._began

    def paused(self):
        return _Pause(self)

    def line(self, done: int, metrics: Mapping[str, float], progress: Progress):
        steps = done - self._start
        seconds = max(time.monotonic() - self._first - self._away, 1e-9)
        rate = steps / seconds
        left = (self._config.num_steps - done) / rate if steps else 0.0
        line = {
            "step": f"{done}/{self._config.num_steps}",
            "loss": f"{metrics['loss']:.4f}",
            "lr": f"{metrics['lr']:.2e}",
            "images/s": f"{rate * self._config.batch_size:.0f}",
            "left": duration(left) if steps else "?",
        }
        if progress.best is not None:
            line["val"] = f"{progress.scores['score']:.3f}"
            line["best"] = f"{progress.best:.3f}@{progress.best_step}"
        return line


class _Pause:
    def __init__(self, clock: _Clock):
        self._clock = clock

    def __enter__(self):
        self._began = time.monotonic()

    def __exit__(self, *_):
        self._clock._away += time.monotonic() - self._began


class _Signals:
    """SIGTERM, SIGUSR1 and the first Ctrl-C ask to stop after the step."""

    def __init__(self):
        self.asked = False
        self._old = {}
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not in the main thread: a notebook's business
                return

    def _ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def restore(self):
        for number, handler in self._old.items():
            signal.signal(number, handler)
