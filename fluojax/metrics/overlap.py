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
from collections.abc import Callable, Sequence
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
# Labels below this are numbered with a table of that size.
_TABLE = 2**16
# Coordinates of large images are summed in two parts of this many values.
_COARSE = 256

# Per map: row of each pixel `[P]` (0 background, 1..N, N + 1 what does not fit),
# label of each row `[N]`, number of objects without a row.
Numbering = tuple[jax.Array, jax.Array, jax.Array]
Rows = tuple[Numbering, ...]


class Objects(NamedTuple):
    """The objects of one label map, N = max_instances.

    Attributes:
      ids: `[N]` label of each object, 0 where there is none.
      areas: `[N]` int32 pixels.
      count: number of objects, beyond N too.
    """

    ids: jax.Array
    areas: jax.Array
    count: jax.Array


class Centroids(NamedTuple):
    """Mean positions `[rank, N]` in pixels: whole (int32), and the fraction beyond.

    Apart, so that an object and its moved copy differ by whole pixels exactly.
    """

    whole: jax.Array
    part: jax.Array


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
def find_overlap(true: jax.Array, pred: jax.Array, max_instances: int) -> Overlap:
    """Objects and shared pixels of two label maps, by one scatter over the pixels."""
    width = max_instances + 2

    def summed(rows: Rows) -> tuple[jax.Array, ...]:
        (rows_true, ids_true, excess_true), (rows_pred, ids_pred, excess_pred) = rows
        table = jnp.zeros(width * width, jnp.int32)
        table = table.at[rows_true * width + rows_pred].add(1)
        return table, ids_true, ids_pred, excess_true, excess_pred

    maps = (true.ravel(), pred.ravel())
    table, *ids, excess_true, excess_pred = _numbered(maps, max_instances, summed)
    table = table.reshape(width, width)
    areas_true = jnp.sum(table, axis=1, dtype=jnp.int32)[1:-1]
    areas_pred = jnp.sum(table, axis=0, dtype=jnp.int32)[1:-1]
    return Overlap(
        true=_objects(ids[0], areas_true, excess_true),
        pred=_objects(ids[1], areas_pred, excess_pred),
        shared=table[1:-1, 1:-1],
    )


@functools.partial(jax.jit, static_argnames="max_instances")
def find_centroids(labels: jax.Array, max_instances: int) -> tuple[Objects, Centroids]:
    """The objects of one label map and their centroids, by integer scatters.

    Right for objects of up to 2^23 pixels.
    """

    def summed(rows: Rows) -> tuple[jax.Array, ...]:
        ((row, ids, excess),) = rows

        def total(values: jax.Array) -> jax.Array:
            spare = jnp.zeros(max_instances + 2, jnp.uint32)
            return spare.at[row].add(values)[1:-1]

        areas = total(jnp.uint32(1))
        whole, rest = zip(
            *(
                _mean_position(total, labels.shape, axis, areas)
                for axis in range(labels.ndim)
            ),
            strict=True,
        )
        return areas, ids, excess, jnp.stack(whole), jnp.stack(rest)

    areas, ids, excess, whole, rest = _numbered(
        (labels.ravel(),), max_instances, summed
    )
    dtype = jnp.result_type(float)
    part = rest.astype(dtype) / jnp.maximum(areas, 1).astype(dtype)[None]
    objects = _objects(ids, areas.astype(jnp.int32), excess)
    return objects, Centroids(whole.astype(jnp.int32), part)


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


def _objects(ids: jax.Array, areas: jax.Array, excess: jax.Array) -> Objects:
    found = areas > 0
    count = jnp.sum(found, dtype=jnp.int32) + excess
    return Objects(jnp.where(found, ids, 0), areas, count)


def _mean_position(
    total: Callable, shape: tuple[int, ...], axis: int, areas: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of a coordinate divided by the area: quotient and remainder."""
    position = lax.broadcasted_iota(jnp.uint32, shape, axis).ravel()
    area = jnp.maximum(areas, 1)
    if position.size * (shape[axis] - 1) // 2 < 2**32:
        whole_sum = total(position)
        return whole_sum // area, whole_sum % area
    coarse, fine = total(position // _COARSE), total(position % _COARSE)
    rest = coarse % area * _COARSE + fine
    return coarse // area * _COARSE + rest // area, rest % area


def _numbered(
    maps: tuple[jax.Array, ...], max_instances: int, summed: Callable[[Rows], tuple]
) -> tuple:
    """`summed` of the numbered maps `[P]`, by the cheapest numbering that fits all.

    Labels between 0 and `max_instances` are their own rows. Labels below 2^16
    need a table, any others are sorted.
    """

    def by(number: Callable) -> tuple:
        return summed(tuple(number(labels, max_instances) for labels in maps))

    fits = small = True
    for labels in maps:
        lowest, highest = jnp.min(labels), jnp.max(labels)
        fits &= (lowest >= 0) & (highest <= max_instances)
        small &= (lowest >= 0) & (highest < _TABLE)
    result = _if_needed(~fits & small, lambda: by(_by_table), by(_as_they_are))
    return _if_needed(~fits & ~small, lambda: by(_by_sorting), result)


def _if_needed(needed: jax.Array, compute: Callable, otherwise: tuple) -> tuple:
    """`compute()` if needed, in a loop of at most one turn.

    Under `vmap` a `lax.cond` always runs both branches; the loop runs only if
    some image of the batch needs it.
    """
    start = (needed, otherwise)
    done = jnp.zeros_like(needed)
    return lax.while_loop(lambda state: state[0], lambda _: (done, compute()), start)[1]


def _as_they_are(labels: jax.Array, max_instances: int) -> Numbering:
    """Numbering of labels from 0 to `max_instances`."""
    spare = max_instances + 1
    outside = (labels < 0) | (labels > max_instances)
    rows = jnp.where(outside, spare, labels).astype(jnp.int32)
    ids = jnp.arange(1, spare, dtype=labels.dtype)
    return rows, ids, jnp.zeros((), jnp.int32)


def _by_table(labels: jax.Array, max_instances: int) -> Numbering:
    """Numbering of labels from 0 to `_TABLE` - 1."""
    present = jnp.zeros(_TABLE, bool).at[labels].set(True).at[0].set(False)
    order = jnp.cumsum(present, dtype=jnp.int32)
    row_of = jnp.where(present, jnp.minimum(order, max_instances + 1), 0)
    values = jnp.arange(_TABLE, dtype=labels.dtype)
    ids = jnp.zeros(max_instances + 2, labels.dtype).at[row_of].set(values)[1:-1]
    return row_of[labels], ids, jnp.maximum(order[-1] - max_instances, 0)


def _by_sorting(labels: jax.Array, max_instances: int) -> Numbering:
    """Numbering of any labels."""
    values = jnp.sort(labels)
    first = jnp.concatenate([jnp.ones(1, bool), values[1:] != values[:-1]])
    order = jnp.cumsum(first & (values != 0), dtype=jnp.int32)
    row = jnp.where(values == 0, 0, jnp.minimum(order, max_instances + 1))
    ids = jnp.zeros(max_instances + 2, labels.dtype).at[row].set(values)[1:-1]
    # Unused ids go to the end, so that the search sees them in order.
    unused = jnp.arange(max_instances, dtype=jnp.int32) >= order[-1]
    keys = jnp.where(unused, jnp.iinfo(labels.dtype).max, ids)
    row = jnp.searchsorted(keys, labels, method="scan_unrolled").astype(jnp.int32)
    known = keys.at[row].get(mode="clip") == labels
    rows = jnp.where(known, row + 1, max_instances + 1)
    rows = jnp.where(labels == 0, 0, rows)
    return rows, ids, jnp.maximum(order[-1] - max_instances, 0)
