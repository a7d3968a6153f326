"""From the fields of an experiment to its compiled functions.

Every name and option is looked up here, before anything is drawn, compiled or
written; a wrong one is refused in one line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fluojax.config import Experiment
from fluojax.data import pipeline
from fluojax.data.augment import augmentation
from fluojax.data.record import Dataset
from fluojax.errors import UserError, nearest
from fluojax.models import create_model, list_models
from fluojax.train import parallel
from fluojax.train.schedules import Schedule, create_optimizer, create_schedule
from fluojax.train.state import TrainState, create_state
from fluojax.train.step import (
    create_loss,
    instance_capacity,
    make_eval_step,
    make_train_step,
)


@dataclass(frozen=True)
class Program:
    """An experiment as functions.

    Attributes:
      model: Flax module that synchronises its norms over the devices.
      source: the training records; `draw(step)` takes batches from it.
      new_state: fresh state, jitted.
      train_step, eval_step: over all devices, see `parallel`.
      schedule: learning rate of a step.
    """

    model: Any
    source: pipeline.Source
    draw: Callable[[int], pipeline.Batch]
    new_state: Callable[[], TrainState]
    train_step: Callable
    eval_step: Callable
    schedule: Schedule
    instance_capacity: int | None


def build(config: Experiment, dataset: Dataset) -> Program:
    """The program of an experiment; `crop`, `batch_size`, `scaling` are resolved.

    Raises:
      UserError: names, options or sizes that do not fit.
    """
    parallel.check_batch_size(config.batch_size)
    source = pipeline.make_source(
        dataset.splits["train"], config.scaling, config.crop, config.foreground_crops
    )
    model = model_of(config)
    loss = _named("loss", create_loss, config.loss)
    capacity = instance_capacity(config.loss)
    schedule, optimizer = _optimizer(config)
    common = {"scaling_kind": config.scaling, "touching_gap": config.touching_gap}
    step = make_train_step(
        model,
        loss,
        optimizer,
        key=jax.random.key(config.seed),
        augment=augmentation(config.augmentation),
        count_instances=capacity is not None,
        axis_name=parallel.AXIS,
        **common,
    )
    indices = parallel.local_indices(config.batch_size)
    channels = source.records[0].image.shape[-1]
    return Program(
        model=model,
        source=source,
        draw=lambda number: pipeline.draw_batch(
            source, config.seed, number, indices, config.batch_size
        ),
        new_state=jax.jit(_state_maker(config, model, optimizer, channels)),
        train_step=parallel.train_step(step),
        eval_step=parallel.eval_step(make_eval_step(model, loss, **common)),
        schedule=schedule,
        instance_capacity=capacity,
    )


def abstract_state(config: Experiment, channels: int) -> TrainState:
    """Shapes and dtypes of the state of an experiment; computes nothing."""
    _, optimizer = _optimizer(config)
    return jax.eval_shape(_state_maker(config, model_of(config), optimizer, channels))


def _state_maker(
    config: Experiment,
    model: Any,
    optimizer: optax.GradientTransformation,
    channels: int,
) -> Callable[[], TrainState]:
    def make() -> TrainState:
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        image = jnp.zeros((1, config.crop, config.crop, channels))
        return create_state(model, optimizer, key, image)

    return make


def _optimizer(config: Experiment) -> tuple[Schedule, optax.GradientTransformation]:
    schedule = create_schedule(config.schedule, config.learning_rate, config.num_steps)
    optimizer = _named(
        "optimizer_options",
        create_optimizer,
        config.optimizer,
        schedule,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        options=config.optimizer_options,
    )
    return schedule, optimizer


def model_of(config: Experiment) -> Any:
    """The experiment's model; its norms are synchronised over the devices."""
    known = list_models()
    if config.model not in known:
        raise UserError(
            f"model: {config.model!r} is unknown{nearest(config.model, known)}; "
            "`fluojax list models` names all"
        )
    options = dict(config.model_options)
    if config.remat:
        options["remat"] = True
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    model = _named(
        "model_options",
        create_model,
        config.model,
        dtype=dtype,
        axis_name=parallel.AXIS,
        **options,
    )
    if config.crop < model.min_size:
        raise UserError(
            f"crop {config.crop} is below the {model.min_size} px that "
            f"{config.model} needs; --set crop={model.min_size}"
        )
    return model


def _named(field: str, make: Callable, *args: Any, **options: Any) -> Any:
    """Errors of a look-up as one line that names the field."""
    try:
        return make(*args, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{field}: {error}") from error
