"""How far predicted probabilities can be believed.

Shared contract: one image without channel axis, `jax.vmap` for a batch. For a
single class `true` is a mask `[*S]`, non-zero is foreground, and `pred` `[*S]`
its probability; for K classes `true` is a map `[*S]` of the classes 0 to K - 1
and `pred` `[*S, K]` their probabilities. S has rank 2 or 3. Probabilities in
[0, 1] are computed in float32, or in float64 where they have it.

Every function raises ValueError if the shapes do not fit in one of these ways
and TypeError if `pred` is not floating point.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks


def expected_calibration_error(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    norm: Literal["l1", "l2", "max"] = "l1",
    bins: int = 15,
) -> jax.Array:
    """Distance of predicted confidence and observed frequency, in [0, 1].

    Pixels are sorted into bins of equal width by their confidence. With n_b of
    the N pixels in bin b and the gap between their mean confidence and the
    share of them that is right,

        l1: Σ n_b/N gap_b    l2: sqrt(Σ n_b/N gap_b²)    max: max gap_b.

    A single class: the confidence is the probability, and right is foreground.
    Several: the confidence is the largest probability, and right is a pixel of
    that class (of the first one of equals).

    Args:
      true: `[*S]` mask or map of classes.
      pred: `[*S]` or `[*S, K]` probabilities.
      norm: "l1" (ECE), "l2" (root mean square) or "max" (maximum).
      bins: number of bins [low, high); a confidence of 1 has one of its own.

    Source: Guo et al., ICML 2017, with the bins of torchmetrics. With bins
    (low, high], as others have them, a confidence of 0 is in no bin.
    """
    name = "expected_calibration_error"
    if norm not in ("l1", "l2", "max"):
        raise ValueError(f"{name}: norm must be l1, l2 or max, got {norm!r}")
    if bins < 1:
        raise ValueError(f"{name}: bins must be at least 1, got {bins}")
    true, pred = _checked(name, true, pred)
    if pred.ndim == true.ndim:
        confidence, right = pred, true.astype(bool)
    else:
        best = lax.argmax(pred, pred.ndim - 1, jnp.int32)
        confidence, right = jnp.max(pred, axis=-1), best == true.astype(jnp.int32)
    pixels, rights, total = _bin_sums(confidence, right, bins)
    share = pixels.astype(total.dtype) / confidence.size
    filled = jnp.maximum(pixels, 1).astype(total.dtype)
    gap = jnp.abs(rights.astype(total.dtype) - total) / filled
    if norm == "max":
        return jnp.max(gap)
    if norm == "l2":
        return jnp.sqrt(jnp.sum(share * jnp.square(gap)))
    return jnp.sum(share * gap)


def brier_score(true: ArrayLike, pred: ArrayLike) -> jax.Array:
    """Mean squared error of the probabilities, in [0, 1].

    Over the pixels and, with several classes, over the classes too, so that
    (1 - p, p) has the score of p. Others sum over the classes.

    Source: Brier, Monthly Weather Review 1950, who sums over the classes.
    """
    true, pred = _checked("brier_score", true, pred)
    if pred.ndim == true.ndim:
        right = true.astype(bool)
    else:
        classes = jnp.arange(pred.shape[-1], dtype=jnp.int32)
        classes = classes.reshape((1,) * true.ndim + (-1,))
        right = true.astype(jnp.int32)[..., None] == classes
    return jnp.mean(jnp.square(pred - right.astype(pred.dtype)))


def _checked(
    function: str, true: ArrayLike, pred: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """The truth, and the probabilities in the dtype to compute in."""
    true, pred = checks.image(function, true, "true"), jnp.asarray(pred)
    if not jnp.issubdtype(pred.dtype, jnp.floating):
        raise TypeError(
            f"{function}: pred must be probabilities (floating point), got {pred.dtype}"
        )
    if pred.shape[: true.ndim] != true.shape or pred.ndim > true.ndim + 1:
        raise ValueError(
            f"{function}: pred must have the shape of true {true.shape}, or that and "
            f"a last axis of classes, got {pred.shape}"
        )
    wide = jnp.finfo(pred.dtype).bits >= 32
    return true, pred if wide else pred.astype(jnp.float32)


def _bin_sums(
    confidence: jax.Array, right: jax.Array, bins: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pixels, right pixels and the sum of the confidence of each bin `[bins + 1]`.

    Line by line first: one float32 sum over an image loses what small
    probabilities add to it.
    """
    # Edges are float32 numbers, as they are in the program followed.
    edges = jnp.asarray(np.linspace(0.0, 1.0, bins + 1, dtype=np.float32))
    lines = confidence.reshape(-1, confidence.shape[-1])
    # Comparing with all edges is a single pass; a search takes 50 times as long.
    places = jnp.searchsorted(
        edges.astype(lines.dtype), lines, side="right", method="compare_all"
    )
    places = jnp.clip(places.astype(jnp.int32) - 1, 0, bins)
    rows = jnp.arange(lines.shape[0], dtype=jnp.int32)[:, None]
    slots = (rows * (bins + 1) + places).ravel()

    def table(values: jax.Array) -> jax.Array:
        sums = jnp.zeros(lines.shape[0] * (bins + 1), values.dtype)
        sums = sums.at[slots].add(values.ravel(), mode="promise_in_bounds")
        return jnp.sum(sums.reshape(-1, bins + 1), axis=0, dtype=values.dtype)

    ones = jnp.ones(lines.shape, jnp.int32)
    return table(ones), table(right.astype(jnp.int32)), table(lines)
