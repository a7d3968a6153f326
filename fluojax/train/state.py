"""What a training step reads and returns."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class TrainState:
    """Arrays only, so that a state is saved, compared and replicated as it is.

    Attributes:
      step: int32, updates done.
      params: trainable parameters, float32.
      batch_stats: running statistics of the norms as sums that start at zero,
        {} without batch norm; `variables_of` gives the statistics themselves.
      opt_state: the optimiser's own.
      lr_scale: float32 factor on the learning rate (schedule "plateau").
      bad_step: int32, the first step whose loss or new state was not finite,
        -1 as long as all were.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    lr_scale: jax.Array
    bad_step: jax.Array


def create_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    image: jax.Array,
) -> TrainState:
    """A fresh state for images like `image` `[B, H, W, C]`; pure, so jit-able."""
    variables = model.init({"params": key}, image, train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.tree.map(jnp.zeros_like, variables.get("batch_stats", {})),
        opt_state=optimizer.init(params),
        lr_scale=jnp.ones((), jnp.float32),
        bad_step=jnp.full((), -1, jnp.int32),
    )


def variables_of(state: TrainState, momentum: float) -> dict[str, Any]:
    """What `model.apply` takes in evaluation mode.

    Running statistics started at zero are divided by 1 - momentum^step, as Adam
    divides its moments. Started at mean 0 and variance 1 instead, they are wrong
    for as long as 1/(1 - momentum) steps: c-ResUnet (momentum 0.99) on dark
    images of variance 0.002 still saw a variance of 0.05 after 300 steps, and
    predicted nothing.

    Args:
      state: arrays of any kind, on the host or on devices.
      momentum: `model.momentum`.
    """
    variables = {"params": state.params}
    if state.batch_stats:
        weight = _weight(int(state.step), momentum)
        variables["batch_stats"] = jax.tree.map(lambda x: x / weight, state.batch_stats)
    return variables


def stored_statistics(batch_stats: Any, step: int, momentum: float) -> Any:
    """Running statistics as the `batch_stats` of a state: undoes `variables_of`."""
    weight = _weight(step, momentum)
    return jax.tree.map(lambda x: np.asarray(x) * weight, batch_stats)


def _weight(step: int, momentum: float) -> np.float32:
    """What sums that start at zero have of a constant after so many steps."""
    return np.float32(1.0 - momentum ** max(step, 1))
