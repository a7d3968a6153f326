"""Static checks of shapes and dtypes, in the wording that all errors share.

*Function: rule, got values; remedy.* The checks read shapes and dtypes only,
never values, so that they cost nothing and work the same under `jit`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def pair(
    function: str, logits: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Logits and labels `[B, *S, K]` in the dtype in which losses compute.

    That is float32 for anything narrower and float64 where the logits have it.
    Labels may be bool, integer or float and must have the shape of the logits.

    Raises:
      TypeError: logits are not floating point, or labels are complex.
      ValueError: the rank is neither 4 nor 5, or the shapes differ.
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(
            f"{function}: logits must be floating point, got {logits.dtype}; "
            "pass the network's scores before the sigmoid or softmax"
        )
    if jnp.issubdtype(labels.dtype, jnp.complexfloating):
        raise TypeError(f"{function}: labels must be real, got {labels.dtype}")
    if logits.ndim not in (4, 5):
        remedy = "; add the batch with logits[None]" if logits.ndim == 3 else ""
        raise ValueError(
            f"{function}: logits must be [batch, rows, columns, classes] or "
            f"[batch, depth, rows, columns, classes], got {logits.shape}{remedy}"
        )
    if labels.shape != logits.shape:
        remedy = (
            "; add the class axis with labels[..., None]"
            if labels.shape == logits.shape[:-1]
            else ""
        )
        raise ValueError(
            f"{function}: labels must have the shape of logits {logits.shape}, "
            f"got {labels.shape}{remedy}"
        )
    wide = jnp.finfo(logits.dtype).bits >= 32
    dtype = logits.dtype if wide else jnp.dtype(jnp.float32)
    return logits.astype(dtype), labels.astype(dtype)


def pixel_map(
    function: str, name: str, value: ArrayLike | None, like: jax.Array
) -> jax.Array | None:
    """`value` `[B, *S, 1 or K]` (B may be 1) checked against logits, or None.

    Raises:
      ValueError: it has another rank or does not broadcast to the logits.
    """
    if value is None:
        return None
    value = jnp.asarray(value)
    fits = value.ndim == like.ndim and all(
        have in (1, want) for have, want in zip(value.shape, like.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{function}: {name} must broadcast to logits {like.shape}, "
            f"got {value.shape}; add a class axis with {name}[..., None]"
        )
    return value


def image(function: str, value: ArrayLike, name: str = "image") -> jax.Array:
    """One image `[*S]`, rank 2 or 3, of any dtype, without a channel axis.

    Raises:
      ValueError: the rank is neither 2 nor 3.
    """
    value = jnp.asarray(value)
    if value.ndim not in (2, 3):
        raise ValueError(
            f"{function}: {name} must be [rows, columns] or [depth, rows, columns], "
            f"got {value.shape}; use jax.vmap for channels and batches"
        )
    return value


def label_map(function: str, value: ArrayLike, name: str = "labels") -> jax.Array:
    """One label map `[*S]` of integers, rank 2 or 3, as int32.

    Raises:
      TypeError: it is neither of integers nor bool.
      ValueError: the rank is neither 2 nor 3.
    """
    value = image(function, value, name)
    if value.dtype != bool and not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(
            f"{function}: {name} must be integers, 0 for background, got {value.dtype}"
        )
    return value.astype(jnp.int32)


def image_pair(
    function: str, true: ArrayLike, pred: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Two images `[*S]` of one shape, rank 2 or 3, without a channel axis.

    Raises:
      ValueError: the shapes differ or the rank is neither 2 nor 3.
    """
    true, pred = jnp.asarray(true), jnp.asarray(pred)
    if true.shape != pred.shape:
        raise ValueError(
            f"{function}: true and pred must have one shape, got {true.shape} and {pred.shape}"
        )
    if true.ndim not in (2, 3):
        raise ValueError(
            f"{function}: images must be [rows, columns] or [depth, rows, columns], "
            f"got {true.shape}; drop channels with x[..., 0] and use jax.vmap for a batch"
        )
    return true, pred
