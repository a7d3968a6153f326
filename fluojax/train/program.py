"""From the fields of an experiment to its compiled functions.

Every name and option is looked up here, before anything is drawn, compiled or
written; a wrong one is refused in one line.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fluojax.config import Experiment
from fluojax.data import contrast, pipeline
from fluojax.data.augment import augmentation
from fluojax.data.record import Dataset
from fluojax.errors import UserError, nearest
from fluojax.models import create_model, list_models
from fluojax.train import parallel
from fluojax.train.schedules import Schedule, create_optimizer, create_schedule
from fluojax.train.state import TrainState, create_state
from fluojax.train.step import (
    LossTerms,
    create_loss,
    instance_capacity,
    make_eval_step,
    make_train_step,
    pooled,
    squashed_twice,
)


@dataclass(frozen=True)
class Program:
    """An experiment as functions; nothing compiled in depends on the seed.

    Attributes:
      config: the experiment.
      model: Flax module that synchronises its norms over the devices.
      source: the training records; `draw(step)` takes batches from it.
      make_state: fresh state of a seed, jitted.
      compile_step: `f(state, batch)` -> the compiled train step over all devices
        and its bytes per device; compiles once.
      step_alone: the step of one device, not compiled, for seeds side by side.
      eval_step: over all devices, see `parallel`.
      schedule: learning rate of a step.
      instance_capacity: instances per image that the loss takes, if it takes any.
      seed: of the state, the batches and the augmentation.
    """

    config: Experiment
    model: Any
    source: pipeline.Source
    make_state: Callable[[Any], TrainState]
    compile_step: Callable[[TrainState, pipeline.Batch], tuple[Callable, int]]
    step_alone: Callable[[TrainState, pipeline.Batch], tuple[TrainState, Any]]
    eval_step: Callable
    schedule: Schedule
    instance_capacity: int | None
    seed: int

    def draw(self, number: int) -> pipeline.Batch:
        """The batch of a step, with the seed that keys its augmentation."""
        size = self.config.batch_size
        indices = parallel.local_indices(size)
        batch = pipeline.draw_batch(self.source, self.seed, number, indices, size)
        return batch | {"seed": np.full(len(indices), self.seed, np.int32)}

    def new_state(self) -> TrainState:
        """The state before the first step."""
        return self.make_state(np.int32(self.seed))

    def with_seed(self, seed: int) -> "Program":
        """The same compiled functions for another seed."""
        return dataclasses.replace(self, seed=seed)


def build(config: Experiment, dataset: Dataset) -> Program:
    """The program of an experiment; `crop`, `batch_size`, `scaling` are resolved.

    Raises:
      UserError: names, options or sizes that do not fit.
    """
    parallel.check_batch_size(config.batch_size)
    source = pipeline.make_source(
        dataset.splits["train"],
        config.scaling,
        config.crop,
        config.foreground_crops,
        config.contrast,
    )
    model = model_of(config)
    loss, capacity = _loss(config)
    schedule, optimizer = _optimizer(config)
    common = {
        "scaling_kind": contrast.left_over(config.scaling, config.contrast),
        "touching_gap": config.touching_gap,
    }
    rank = source.records[0].instances.ndim
    augment = _named("augmentation", augmentation, config.augmentation, rank)

    def stepper(axis_name: str | None) -> Callable:
        network = model_of(config, axis_name)

        def step(state: TrainState, batch: pipeline.Batch):
            # The seed comes with the batch, so that all seeds share one program.
            batch = dict(batch)
            train_step = make_train_step(
                network,
                loss,
                optimizer,
                key=jax.random.key(batch.pop("seed")[0]),
                augment=augment,
                count_instances=capacity is not None,
                axis_name=axis_name,
                **common,
            )
            return train_step(state, batch)

        return step

    channels = source.records[0].image.shape[-1]
    maker = jax.jit(_state_maker(config, model, optimizer, channels, rank))
    return Program(
        config=config,
        model=model,
        source=source,
        make_state=maker,
        compile_step=parallel.compiler(parallel.train_step(stepper(parallel.AXIS))),
        step_alone=stepper(None),
        eval_step=parallel.eval_step(make_eval_step(model, loss, **common)),
        schedule=schedule,
        instance_capacity=capacity,
        seed=config.seed,
    )


def _loss(config: Experiment) -> tuple[LossTerms, int | None]:
    """The loss as it meets the network's logits, and the instances it takes."""
    loss = _named("loss", create_loss, config.loss)
    capacity = instance_capacity(config.loss)
    if config.squash_twice:
        loss = squashed_twice(loss)
    if not config.pool_batch:
        return loss, capacity
    if capacity is not None:
        raise UserError("pool_batch: losses of instances need each image by itself")
    if jax.device_count() > 1:
        raise UserError(
            f"pool_batch: the batch is one image on one device, here are "
            f"{jax.device_count()}; show one, e.g. with CUDA_VISIBLE_DEVICES=0"
        )
    return pooled(loss), capacity


def abstract_state(config: Experiment, channels: int, rank: int = 2) -> TrainState:
    """Shapes and dtypes of the state of an experiment; computes nothing."""
    _, optimizer = _optimizer(config)
    maker = _state_maker(config, model_of(config), optimizer, channels, rank)
    return jax.eval_shape(maker, np.int32(0))


def _state_maker(
    config: Experiment,
    model: Any,
    optimizer: optax.GradientTransformation,
    channels: int,
    rank: int,
) -> Callable[[Any], TrainState]:
    def make(seed: Any) -> TrainState:
        key = jax.random.fold_in(jax.random.key(seed), 1)
        image = jnp.zeros((1, *[config.crop] * rank, channels))
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
        num_steps=config.num_steps,
    )
    return schedule, optimizer


def model_of(config: Experiment, axis_name: str | None = parallel.AXIS) -> Any:
    """The experiment's model; its norms are synchronised over the axis, if any."""
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
        axis_name=axis_name,
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
