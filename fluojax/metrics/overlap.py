"""From two label maps to the table of shared pixels, with fixed shapes.

Labels are integers; 0 and only 0 is background, any other value is an object,
however large, negative or scattered over the image. Objects get the rows 1, 2,
... in the order of their values. `max_instances` is static; what does not fit
shares one spare row, so that it never counts for another object while the
areas of the other map stay right, and the true numbers are returned.

Functions with a loop are jitted, so that calls outside `jit` do not compile it
again each time.

Comparisons with a threshold are done in integers: an IoU of exactly 1/2 or
11/20 is neither above nor below because a quotient was rounded.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks

# Denominators stay below 2^16, which is what `_product` can multiply by.
_LARGEST_DENOMINATOR = 2**16 - 1


class Objects(NamedTuple):
    """The objects of one label map, N = max_instances.

    Attributes:
      rows: `[P]` int32 per pixel: 0 background, 1..N, N + 1 what does not fit.
      ids: `[N]` label of each object, 0 where there is none.
      areas: `[N]` int32 pixels.
      count: number of objects, beyond N too.
    """

    rows: jax.Array
    ids: jax.Array
    areas: jax.Array
    count: jax.Array


class Overlap(NamedTuple):
    """Two label maps: their objects and `shared` `[N, N]` pixels, rows the truth."""

    true: Objects
    pred: Objects
    shared: jax.Array


def label_maps(
    function: str, true: ArrayLike, pred: ArrayLike, max_instances: int
) -> tuple[jax.Array, jax.Array]:
    """Both maps as integers of at least 32 bits.

    Raises:
      TypeError: a map is neither of integers nor bool.
      ValueError: shapes or rank are wrong, or `max_instances` is not positive.
    """
    true, pred = checks.image_pair(function, true, pred)
    if max_instances < 1:
        raise ValueError(f"{function}: max_instances must be >= 1, got {max_instances}")
    maps = []
    for name, labels in (("true", true), ("pred", pred)):
        if jnp.issubdtype(labels.dtype, jnp.inexact):
            raise TypeError(
                f"{function}: {name} must hold integer labels, got {labels.dtype}; "
                f"convert with {name}.astype('int32')"
            )
        narrow = labels.dtype.itemsize < 4
        maps.append(labels.astype(jnp.int32) if narrow else labels)
    return maps[0], maps[1]


@functools.partial(jax.jit, static_argnames="max_instances")
def find_objects(labels: jax.Array, max_instances: int) -> Objects:
    """The objects of one label map `[*S]`."""
    rows, ids, excess = _number(labels.ravel(), max_instances)
    areas = jnp.zeros(max_instances + 2, jnp.int32).at[rows].add(1)[1:-1]
    return _objects(rows, ids, areas, excess)


@functools.partial(jax.jit, static_argnames="max_instances")
def find_overlap(true: jax.Array, pred: jax.Array, max_instances: int) -> Overlap:
    """Objects and shared pixels of two label maps, by one scatter over the pixels."""
    rows_true, ids_true, excess_true = _number(true.ravel(), max_instances)
    rows_pred, ids_pred, excess_pred = _number(pred.ravel(), max_instances)
    width = max_instances + 2
    table = jnp.zeros(width * width, jnp.int32)
    table = table.at[rows_true * width + rows_pred].add(1).reshape(width, width)
    areas_true = jnp.sum(table, axis=1)[1:-1]
    areas_pred = jnp.sum(table, axis=0)[1:-1]
    return Overlap(
        true=_objects(rows_true, ids_true, areas_true, excess_true),
        pred=_objects(rows_pred, ids_pred, areas_pred, excess_pred),
        shared=table[1:-1, 1:-1],
    )


def wholes(overlap: Overlap, criterion: str) -> jax.Array:
    """What `shared` is divided by: `[N, N]` int32.

    `"iou"`: the union, `"iot"`: the true object, `"iop"`: the predicted one.

    Raises:
      ValueError: another criterion.
    """
    areas_true, areas_pred = overlap.true.areas[:, None], overlap.pred.areas[None]
    if criterion == "iou":
        return areas_true + areas_pred - overlap.shared
    if criterion == "iot":
        return jnp.broadcast_to(areas_true, overlap.shared.shape)
    if criterion == "iop":
        return jnp.broadcast_to(areas_pred, overlap.shared.shape)
    raise ValueError(f"criterion must be iou, iot or iop, got {criterion!r}")


def scores(shared: jax.Array, whole: jax.Array) -> jax.Array:
    """shared / whole as floats, 0 where there is nothing."""
    dtype = jnp.result_type(float)
    return shared.astype(dtype) / jnp.maximum(whole, 1).astype(dtype)


def reaches(
    shared: jax.Array, whole: jax.Array, thresholds: Sequence[float], strict: bool
) -> jax.Array:
    """Whether shared / whole is at (or, `strict`, above) each threshold, exactly.

    A threshold is read as the fraction nearest to it with a denominator below
    65,536: 0.55 is 11/20, 0.1 + 0.2 is 3/10, float32 0.4 is 2/5. For fractions
    of at most 2^31 pixels the answer is that of a comparison in float64. Pairs
    that share nothing never qualify.

    Returns:
      bool `[T, *shape of shared]` for T thresholds.

    Raises:
      ValueError: a threshold is outside [0, 1].
    """
    fractions = []
    for threshold in thresholds:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold must be in [0, 1], got {threshold}")
        fractions.append(Fraction(threshold).limit_denominator(_LARGEST_DENOMINATOR))
    shape = (-1,) + (1,) * shared.ndim
    tops = np.array([f.numerator for f in fractions], np.uint32).reshape(shape)
    bottoms = np.array([f.denominator for f in fractions], np.uint32).reshape(shape)
    high_left, low_left = _product(shared[None], bottoms)
    high_right, low_right = _product(whole[None], tops)
    above = low_left > low_right if strict else low_left >= low_right
    decided = (high_left > high_right) | ((high_left == high_right) & above)
    return decided & (shared > 0)[None]


def _product(count: jax.Array, factor: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """count * factor without overflow, as (high, low 16 bits); factor < 2^16."""
    count = count.astype(jnp.uint32)
    factor = jnp.asarray(factor)
    low = (count & 0xFFFF) * factor
    return (count >> 16) * factor + (low >> 16), low & 0xFFFF


def _objects(
    rows: jax.Array, ids: jax.Array, areas: jax.Array, excess: jax.Array
) -> Objects:
    found = areas > 0
    count = jnp.sum(found, dtype=jnp.int32) + excess
    return Objects(rows, jnp.where(found, ids, 0), areas, count)


def _number(
    labels: jax.Array, max_instances: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows of the pixels, labels of the rows, number of objects without a row.

    Labels between 0 and `max_instances` are their own rows. Only other maps are
    sorted, in a loop of at most one turn: under `vmap` a `cond` would always
    run both branches, the loop runs only if some image of the batch needs it.
    """
    spare = max_instances + 1
    outside = (labels < 0) | (labels > max_instances)
    rows = jnp.where(outside, spare, labels).astype(jnp.int32)
    ids = jnp.arange(1, spare, dtype=labels.dtype)

    def turn(state):
        return (jnp.zeros_like(state[0]), *_number_by_sorting(labels, max_instances))

    start = (jnp.any(outside), rows, ids, jnp.zeros((), jnp.int32))
    return lax.while_loop(lambda state: state[0], turn, start)[1:]


def _number_by_sorting(
    labels: jax.Array, max_instances: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    spare = max_instances + 1
    pixel = jnp.arange(labels.size, dtype=jnp.int32)
    values, pixel = lax.sort((labels, pixel), num_keys=1)
    first = jnp.concatenate([jnp.ones(1, bool), values[1:] != values[:-1]])
    order = jnp.cumsum(first & (values != 0), dtype=jnp.int32)
    row = jnp.where(values == 0, 0, jnp.minimum(order, spare))
    rows = jnp.zeros_like(row).at[pixel].set(row, unique_indices=True)
    ids = jnp.zeros(max_instances + 2, labels.dtype).at[row].set(values)[1:-1]
    return rows, ids, jnp.maximum(order[-1] - max_instances, 0)
