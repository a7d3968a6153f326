"""Errors of cell counts over a set of images.

Shared contract: `n_true` and `n_pred` are counts `[images]` of one shape and
any real dtype; every function returns one number, NaN without images. Means
over images, in float32 (float64 where jax_enable_x64 is on).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def mae(n_true: ArrayLike, n_pred: ArrayLike) -> jax.Array:
    """Mean absolute error, in cells."""
    true, pred = _counts("mae", n_true, n_pred)
    return jnp.mean(jnp.abs(true - pred))


def medae(n_true: ArrayLike, n_pred: ArrayLike) -> jax.Array:
    """Median absolute error, the mean of the middle two for an even number."""
    true, pred = _counts("medae", n_true, n_pred)
    return jnp.median(jnp.abs(true - pred))


def mpe(n_true: ArrayLike, n_pred: ArrayLike) -> jax.Array:
    """Mean of (n_true - n_pred) / max(n_true, 1) * 100: positive if under-counted.

    Source: the published definition of the loss study. Its program computes
    `mpe_fluocells`.
    """
    true, pred = _counts("mpe", n_true, n_pred)
    return 100.0 * jnp.mean((true - pred) / jnp.maximum(true, 1.0))


def mpe_fluocells(n_true: ArrayLike, n_pred: ArrayLike) -> jax.Array:
    """Mean of (n_pred - n_true) / (n_true or 1): a fraction, of the other sign.

    Source: the formula in the program of the loss study (clissa/fluocells).
    """
    true, pred = _counts("mpe_fluocells", n_true, n_pred)
    return jnp.mean((pred - true) / jnp.where(true == 0, 1.0, true))


def mape(n_true: ArrayLike, n_pred: ArrayLike) -> jax.Array:
    """Mean of |n_true - n_pred| / max(n_true, 1) * 100."""
    true, pred = _counts("mape", n_true, n_pred)
    return 100.0 * jnp.mean(jnp.abs(true - pred) / jnp.maximum(true, 1.0))


def rmse(n_true: ArrayLike, n_pred: ArrayLike) -> jax.Array:
    """Root of the mean squared error, in cells."""
    true, pred = _counts("rmse", n_true, n_pred)
    return jnp.sqrt(jnp.mean((true - pred) ** 2))


def _counts(
    function: str, n_true: ArrayLike, n_pred: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Counts as floats.

    Raises:
      ValueError: they are not two vectors of one length.
    """
    true, pred = jnp.asarray(n_true), jnp.asarray(n_pred)
    if true.ndim != 1 or true.shape != pred.shape:
        raise ValueError(
            f"{function}: counts must be two arrays [images] of one length, "
            f"got {true.shape} and {pred.shape}"
        )
    dtype = jnp.result_type(float)
    return true.astype(dtype), pred.astype(dtype)
