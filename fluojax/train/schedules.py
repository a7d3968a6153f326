"""Learning rates over steps, and the optimisers that use them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[Any], jax.Array]


def create_schedule(name: str, peak: float, num_steps: int) -> Schedule:
    """The learning rate at a step, as a function that compiles into the update.

    * constant, plateau: `peak`; "plateau" is multiplied by the state's
      `lr_scale`, which the loop lowers after validation.
    * cosine: linear from 0 over the first 5 % of the steps, then a cosine to
      `peak` / 100.
    * one_cycle: cosine from `peak` / 25 up over 25 %, cosine down to
      `peak` / 1e5 (fastai's default, which the loss study ran).
    * cyclical: triangles between `peak` / 10 and `peak` (Smith 2017), four over
      the run.

    Raises:
      ValueError: unknown name.
    """
    if name in ("constant", "plateau"):
        return lambda step: jnp.full((), peak, jnp.float32)
    if name == "cosine":
        warmup = max(1, num_steps // 20)
        return optax.warmup_cosine_decay_schedule(
            0.0, peak, warmup, max(num_steps, warmup + 1), end_value=peak / 100
        )
    if name == "one_cycle":
        return _cycle(peak / 25, peak, peak / 1e5, num_steps)
    if name == "cyclical":
        return _triangles(peak / 10, peak, max(2, num_steps // 4))
    raise ValueError(
        f"create_schedule: {name!r} is unknown; known are constant, cosine, "
        "one_cycle, cyclical, plateau"
    )


def momentum_cycle(high: float, low: float, num_steps: int) -> Schedule:
    """Adam's b1 beside a learning rate of one_cycle: down while that rises, and back.

    fastai's default goes from 0.95 to 0.85 and back.
    """
    return _cycle(high, low, high, num_steps)


def _cycle(start: float, top: float, end: float, num_steps: int) -> Schedule:
    """Cosines from start to top over 25 % of the steps, then to the end."""
    rise = max(1, round(num_steps * 0.25))
    fall = max(1, num_steps - rise)
    return optax.join_schedules(
        [_cosine(start, top, rise), _cosine(top, end, fall)], [rise]
    )


def _cosine(start: float, end: float, steps: int) -> Schedule:
    def value(step):
        done = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0, 1)
        return end + (start - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))

    return value


def _triangles(low: float, high: float, period: int) -> Schedule:
    def value(step):
        phase = jnp.mod(jnp.asarray(step, jnp.float32), period) / period
        return low + (high - low) * (1 - jnp.abs(2 * phase - 1))

    return value


def create_optimizer(
    name: str,
    schedule: Schedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    options: Mapping[str, Any] | None = None,
    num_steps: int | None = None,
) -> optax.GradientTransformation:
    """Adam, AdamW (decay on kernels only) or SGD behind a clip of the global norm.

    Args:
      name: "adam", "adamw" or "sgd".
      schedule: learning rate at a step.
      weight_decay: of "adamw".
      clip_norm: greatest global norm of the gradients, None for any.
      options: b1, b2 and eps of Adam, momentum of SGD. A pair `b1=(0.95, 0.85)` is
        a `momentum_cycle` over `num_steps`.
      num_steps: needed for that pair only.

    Raises:
      ValueError: unknown name, or a b1 that is neither a number nor a pair.
      TypeError: an option that this optimiser does not have.
    """
    options = dict(options or {})
    if name == "sgd":
        core = optax.trace(options.pop("momentum", 0.0))
        _refuse(name, options)
    elif name in ("adam", "adamw"):
        known = {k: options.pop(k) for k in ("b1", "b2", "eps") if k in options}
        _refuse(name, options)
        core = _adam(known, num_steps)
    else:
        raise ValueError(
            f"create_optimizer: {name!r} is unknown; known are adam, adamw, sgd"
        )
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    parts.append(core)
    if name == "adamw":
        parts.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _adam(
    options: Mapping[str, Any], num_steps: int | None
) -> optax.GradientTransformation:
    b1 = options.get("b1")
    if not isinstance(b1, (tuple, list)):
        return optax.scale_by_adam(**options)
    if len(b1) != 2 or num_steps is None:
        raise ValueError(
            "create_optimizer: b1 must be a number, or a pair (high, low) with "
            f"num_steps, got {b1} and {num_steps}"
        )
    cycle = momentum_cycle(*b1, num_steps)
    return optax.inject_hyperparams(optax.scale_by_adam)(**{**options, "b1": cycle})


def _refuse(name: str, options: Mapping[str, Any]) -> None:
    if options:
        raise TypeError(f"create_optimizer: {name} has no option {sorted(options)}")


def _kernels(params: Any) -> Any:
    """True for weights of convolutions and products, False for biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
