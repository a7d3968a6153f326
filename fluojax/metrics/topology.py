"""Components, holes and centre lines of masks.

Shared contract: masks are one image `[*S]` without channel axis, S of rank 2 or
3, `jax.vmap` for a batch; any dtype, non-zero is foreground. Foreground is
connected across corners (8 or 26 neighbours), background across faces (4 or 6),
and what lies beyond the image is background. Counts are exact int32, scores
float32 (float64 where jax_enable_x64 is on).

Every function raises ValueError for another rank and for shapes that differ.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax import checks, ops


class ClDice(NamedTuple):
    """clDice and its parts, with the counts that pool them over images.

    `precision` is the share `hits_pred / n_pred` of the predicted skeleton
    inside the true mask, `sensitivity` that of the true skeleton inside the
    predicted mask, `hits_true / n_true`; each is NaN without a skeleton.
    """

    cldice: jax.Array
    precision: jax.Array
    sensitivity: jax.Array
    hits_pred: jax.Array
    n_pred: jax.Array
    hits_true: jax.Array
    n_true: jax.Array


def cldice(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    skeletons: tuple[ArrayLike, ArrayLike] | None = None,
) -> ClDice:
    """Centre-line Dice: harmonic mean of topology precision and sensitivity.

    0 if both parts are 0 or exactly one mask is empty, NaN for two empty masks.
    The value depends on the skeletons, typically by some hundredths.

    Args:
      true: `[*S]` mask.
      pred: `[*S]` mask.
      skeletons: those of truth and prediction, masks `[*S]`, if another
        program's are wanted; by default `ops.skeletonize` of both.

    Raises:
      ValueError: also for skeletons of another shape.

    Source: Shit et al., clDice, CVPR 2021, whose program exchanges the names of
    the two parts.
    """
    true, pred = checks.image_pair("cldice", true, pred)
    true, pred = true.astype(bool), pred.astype(bool)
    if skeletons is None:
        # One loop for both, since each turn of a loop has a price of its own.
        line_true, line_pred = jax.vmap(_skeletonize)(jnp.stack([true, pred]))
    else:
        line_true, line_pred = (jnp.asarray(line).astype(bool) for line in skeletons)
        if not line_true.shape == line_pred.shape == true.shape:
            raise ValueError(
                f"cldice: skeletons must have the shape of the masks {true.shape}, "
                f"got {line_true.shape} and {line_pred.shape}"
            )
    hits_pred, n_pred = _count(line_pred & true), _count(line_pred)
    hits_true, n_true = _count(line_true & pred), _count(line_true)
    # Harmonic mean of a/A and b/B without a quotient that may be 0/0.
    above = 2.0 * _float(hits_pred) * _float(hits_true)
    below = _float(hits_pred) * _float(n_true) + _float(hits_true) * _float(n_pred)
    value = above / jnp.maximum(below, 1.0)
    value = jnp.where(jnp.any(true) | jnp.any(pred), value, jnp.nan)
    precision, sensitivity = _ratio(hits_pred, n_pred), _ratio(hits_true, n_true)
    return ClDice(value, precision, sensitivity, hits_pred, n_pred, hits_true, n_true)


def euler_number(mask: ArrayLike, *, connectivity: int | None = None) -> jax.Array:
    """Euler number of a mask: components - holes (- tunnels + cavities), int32.

    By default with foreground connected across corners and background across
    faces; `connectivity=1` is the other way round.

    Args:
      mask: `[*S]`, rank 2 or 3, any dtype; non-zero is foreground.
      connectivity: of the foreground, 1 or the rank (None).

    Raises:
      ValueError: also for another connectivity.

    Source: cells of all dimensions of the cubical complex, with alternating
    signs (Kong and Rosenfeld, CVGIP 1989).
    """
    mask = checks.image("euler_number", mask, "mask").astype(bool)
    if connectivity not in (None, 1, mask.ndim):
        raise ValueError(
            f"euler_number: connectivity must be 1 or {mask.ndim}, got {connectivity!r}"
        )
    closed = connectivity in (None, mask.ndim)
    euler = jnp.zeros((), jnp.int32)
    for crossed in itertools.product((False, True), repeat=mask.ndim):
        # Closed pixels: a face, edge or corner is there if one pixel at it is.
        # Otherwise pixels are points, and what joins them needs all of them.
        cells = jnp.pad(mask, 1) if closed else mask
        for axis, across in enumerate(crossed):
            if across:
                ahead = jnp.moveaxis(cells, axis, 0)
                pair = (ahead[:-1], ahead[1:])
                joined = pair[0] | pair[1] if closed else pair[0] & pair[1]
                cells = jnp.moveaxis(joined, 0, axis)
        dimension = sum(crossed) + (mask.ndim if closed else 0)
        euler += (-1) ** dimension * _count(cells)
    return euler


def betti_numbers(mask: ArrayLike) -> jax.Array:
    """Betti numbers `[rank]` int32: components, holes; in 3-D tunnels, cavities.

    A hole (2-D) or cavity (3-D) is background without a way out of the image
    across faces. An empty mask has none of anything.

    Args:
      mask: `[*S]`, rank 2 or 3, any dtype; non-zero is foreground.
    """
    mask = checks.image("betti_numbers", mask, "mask").astype(bool)
    components = ops.label_components(mask)[1]
    euler = euler_number(mask)
    if mask.ndim == 2:
        return jnp.stack([components, components - euler])
    outside_and_cavities = ops.label_components(
        jnp.pad(~mask, 1, constant_values=True), 1
    )
    cavities = outside_and_cavities[1] - 1
    return jnp.stack([components, components + cavities - euler, cavities])


def betti_error(
    true: ArrayLike, pred: ArrayLike, *, patch: int | None = None
) -> jax.Array:
    """Absolute differences `[rank]` of the Betti numbers of two masks.

    int32; with `patch` the mean, float, over patches of `patch` pixels along
    every axis that do not overlap, each on its own with background around it.
    Patches at the far ends may be smaller. Not the matching error, which
    compares features rather than their numbers.

    Raises:
      ValueError: also for a patch that is not positive.

    Source: Hu et al., NeurIPS 2019, there of the first number in random patches.
    """
    true, pred = checks.image_pair("betti_error", true, pred)
    if patch is None:
        return jnp.abs(betti_numbers(true) - betti_numbers(pred))
    if patch < 1:
        raise ValueError(f"betti_error: patch must be at least 1 pixel, got {patch}")
    numbers = jax.vmap(betti_numbers)
    errors = numbers(_patches(true, patch)) - numbers(_patches(pred, patch))
    return jnp.mean(_float(jnp.abs(errors)), axis=0)


# A loop is jitted, so that calls outside `jit` do not compile it again each time.
_skeletonize = jax.jit(ops.skeletonize)


def _patches(mask: jax.Array, patch: int) -> jax.Array:
    """`[patches, patch, ...]`, the mask continued by background."""
    rank = mask.ndim
    counts = [-(-length // patch) for length in mask.shape]
    ends = [n * patch - length for n, length in zip(counts, mask.shape, strict=True)]
    whole = jnp.pad(mask.astype(bool), [(0, end) for end in ends])
    split = whole.reshape([size for n in counts for size in (n, patch)])
    order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
    return split.transpose(order).reshape(math.prod(counts), *(patch,) * rank)


def _count(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, dtype=jnp.int32)


def _float(counts: jax.Array) -> jax.Array:
    return counts.astype(jnp.result_type(float))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole of two counts, NaN where whole is 0."""
    filled = jnp.where(whole == 0, 1, whole)
    return jnp.where(whole == 0, jnp.nan, _float(part) / _float(filled))
