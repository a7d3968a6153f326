"""The nearest instances of every pixel of one label map `[*S]`, rank 2 or 3.

Distances are between pixel centres, in pixels or, with `spacing`, in its unit.
Found exactly, as `distance_transform` finds its distances, one axis at a time;
of equally near instances the one of the lower id comes first.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.distance import (
    Field,
    along_axis,
    both_ways,
    check_spacing,
    least,
)


class NearestInstances(NamedTuple):
    """The two nearest different instances of every pixel.

    Attributes:
      distances: `[2, *S]`, the nearest first; 0 inside it, inf where missing.
      ids: `[2, *S]` int32 ids, 0 where missing. `ids[0]` are the regions of
        influence (Voronoi regions) of the instances.
    """

    distances: jax.Array
    ids: jax.Array


def nearest_instance(
    instances: ArrayLike, *, spacing: float | Sequence[float] | None = None
) -> NearestInstances:
    """Distances and ids of the two nearest different instances of every pixel.

    Of equally near instances the lower id comes first. The cost does not depend
    on the number of instances: the two nearest of a line are all that the next
    axis needs to know.

    Args:
      instances: `[*S]` integers, 0 for background, any other value an instance,
        in one piece or several.
      spacing: distance of neighbouring pixels, for all axes or one per axis.

    Returns:
      `NearestInstances`; with fewer than two instances the rest is missing.

    Raises:
      TypeError: instances are neither integers nor bool.
      ValueError: the rank is neither 2 nor 3, or spacing does not fit.
    """
    instances = checks.label_map("nearest_instance", instances, "instances")
    spacing = check_spacing("nearest_instance", spacing, instances.ndim)
    squares, ids = _nearest_two(instances, spacing)
    return NearestInstances(jnp.sqrt(jnp.stack(squares)), jnp.stack(ids))


def expand_labels(
    label_image: ArrayLike,
    distance: float = math.inf,
    *,
    spacing: float | Sequence[float] | None = None,
) -> jax.Array:
    """Labels grown by up to `distance` without running into each other.

    Every background pixel takes the label of the nearest labelled pixel, of
    equally near ones the lower label. Without a limit these are the regions of
    influence (Voronoi regions) of the instances.

    Args:
      label_image: `[*S]` integers, 0 for background, any other value a label.
      distance: how far labels grow, in pixels or in the unit of spacing.
      spacing: distance of neighbouring pixels, for all axes or one per axis.

    Returns:
      `[*S]` int32; 0 where no label is near enough.

    Raises:
      TypeError: label_image is neither integers nor bool.
      ValueError: the rank is neither 2 nor 3, spacing does not fit, or distance
        is negative.
    """
    labels = checks.label_map("expand_labels", label_image, "label_image")
    spacing = check_spacing("expand_labels", spacing, labels.ndim)
    if not distance >= 0:
        raise ValueError(f"expand_labels: distance must be at least 0, got {distance}")
    return _nearest_ids(labels, spacing, float(distance))


def nearest_rows(rows: jax.Array, count: int, up_to: float = math.inf) -> jax.Array:
    """Row of the nearest place, for a map `[*S]` of rows below `count`.

    Any other row is no place. The answer is `count` where there is no place
    within `up_to`. What `expand_labels` does to numbers known to be small, at a
    fraction of its time: distance and row share one whole number.
    """
    width = count + 1
    farthest = sum(n * n for n in rows.shape) + 1  # no distance squared is as large
    if 2 * farthest * width > jnp.iinfo(jnp.int32).max:
        labels = jnp.where((rows >= 0) & (rows < count), rows + 1, 0)
        found = _nearest_ids(labels, (1.0,) * rows.ndim, up_to)
        return jnp.where(found > 0, found - 1, count)
    limit = min(farthest, math.floor(min(up_to * up_to, farthest)))
    keys = _nearest_keys(rows, count, limit)
    return jnp.where(keys // width <= limit, keys % width, count)


@functools.partial(jax.jit, static_argnames=("count", "limit"))
def _nearest_keys(rows: jax.Array, count: int, limit: int) -> jax.Array:
    """The least squared distance times (count + 1) plus row, of every pixel."""
    width = count + 1
    far = rows.shape[0]  # farther than any place along axis 0
    nothing = (sum(n * n for n in rows.shape) + 1) * width + count
    if rows.size == 0:
        return rows

    def next_row(before, row):
        known = (row >= 0) & (row < count)
        distance = jnp.where(known, 0, jnp.minimum(before[0] + 1, far))
        return distance, jnp.where(known, row, before[1])

    start = jnp.full(rows.shape[1:], far), jnp.full(rows.shape[1:], count)
    down, up = both_ways(next_row, start, rows)

    def key(distance, row):
        return jnp.where(distance < far, distance * distance * width + row, nothing)

    keys = jnp.minimum(key(*down), key(*up))
    any_place = jnp.any(keys < nothing)

    def largest(field: Field) -> jax.Array:
        most = jnp.minimum(jnp.max(field[0][0]) // width, limit)
        return jnp.where(any_place, most, -1)

    field: Field = ((keys,), ())
    for axis in range(1, rows.ndim):
        field = along_axis(field, axis, 1, least, largest, width, nothing)
    return field[0][0]


@functools.partial(jax.jit, static_argnames=("spacing", "up_to"))
def _nearest_ids(
    labels: jax.Array, spacing: tuple[float, ...], up_to: float
) -> jax.Array:
    """The nearest label of every pixel, 0 if it is farther than `up_to`."""
    if labels.size == 0:
        return labels
    dtype, row = jnp.result_type(float), labels.shape[1:]
    start = jnp.full(row, jnp.inf, dtype), jnp.zeros(row, jnp.int32)

    def next_row(before, ids):
        known = ids != 0
        return jnp.where(known, 0.0, before[0] + 1.0), jnp.where(known, ids, before[1])

    nearest = _nearer(*both_ways(next_row, start, labels))
    field: Field = ((jnp.square(nearest[0] * spacing[0]),), (nearest[1],))

    def nearer(one: Field, other: Field) -> Field:
        square, label = _nearer((one[0][0], one[1][0]), (other[0][0], other[1][0]))
        return (square,), (label,)

    any_label = jnp.any(labels != 0)

    def largest(field: Field) -> jax.Array:
        most = jnp.minimum(jnp.max(field[0][0]), up_to * up_to)
        return jnp.where(any_label, most, -1.0)

    for axis in range(1, labels.ndim):
        field = along_axis(field, axis, spacing[axis], nearer, largest)
    return jnp.where(field[0][0] <= up_to * up_to, field[1][0], 0)


def nearest_distances(
    instances: jax.Array, spacing: tuple[float, ...], up_to: float
) -> tuple[jax.Array, jax.Array]:
    """The distances of `nearest_instance`, exact up to `up_to`.

    Farther ones have some value beyond it; this saves the search for them.
    """
    first, second = _nearest_two(instances, spacing, up_to)[0]
    return jnp.sqrt(first), jnp.sqrt(second)


@functools.partial(jax.jit, static_argnames=("spacing", "up_to"))
def _nearest_two(
    instances: jax.Array, spacing: tuple[float, ...], up_to: float = math.inf
) -> Field:
    dtype = jnp.result_type(float)
    if instances.size == 0:
        empty, none = jnp.zeros(instances.shape, dtype), jnp.zeros_like(instances)
        return (empty, empty), (none, none)
    field = _nearest_two_of_columns(instances, spacing[0], dtype)

    # Without a second instance the second distances stay infinite for good.
    one = jnp.max(jnp.where(instances != 0, instances, jnp.iinfo(jnp.int32).min))
    any_one = jnp.any(instances != 0)
    any_two = jnp.any((instances != 0) & (instances != one))

    def largest(field: Field) -> jax.Array:
        first, second = (
            jnp.minimum(jnp.max(square), up_to * up_to) for square in field[0]
        )
        return jnp.where(any_two, second, jnp.where(any_one, first, -1.0))

    for axis in range(1, instances.ndim):
        field = along_axis(field, axis, spacing[axis], _merge, largest)
    return field


def _nearest_two_of_columns(instances: jax.Array, spacing: float, dtype) -> Field:
    """The two nearest instances of every pixel within its line along axis 0."""
    row = instances.shape[1:]
    far, none = jnp.full(row, jnp.inf, dtype), jnp.zeros(row, jnp.int32)
    start = ((far, far), (none, none))

    def next_row(before: Field, ids: jax.Array) -> Field:
        (first, second), (id_first, id_second) = before
        known, same = ids != 0, ids == id_first
        pushed = known & ~same
        return (
            (
                jnp.where(known, 0.0, first + 1.0),
                jnp.where(pushed, first, second) + 1.0,
            ),
            (jnp.where(known, ids, id_first), jnp.where(pushed, id_first, id_second)),
        )

    squares, ids = _merge(*both_ways(next_row, start, instances))
    return tuple(jnp.square(square * spacing) for square in squares), ids


def _merge(one: Field, other: Field) -> Field:
    """The two nearest different instances of two such pairs."""
    (one_first, one_second), (other_first, other_second) = (
        tuple(zip(*field, strict=True)) for field in (one, other)
    )
    swap = _before(other_first, one_first)
    first = _choose(swap, other_first, one_first)
    beaten = _choose(swap, one_first, other_first)
    after_first = _choose(swap, other_second, one_second)
    after_beaten = _choose(swap, one_second, other_second)
    rival = _choose(beaten[1] == first[1], after_beaten, beaten)
    second = _choose(_before(rival, after_first), rival, after_first)
    return tuple(zip(first, second, strict=True))


def _nearer(one, other):
    """The nearer of two places (squared distance, id), the lower id if equal.

    Selects in this order take a CPU a third of the time of `_before`.
    """
    (square, label), (other_square, other_label) = one, other
    lower = jnp.minimum(label, other_label)
    label = jnp.where(other_square <= square, lower, label)
    label = jnp.where(other_square < square, other_label, label)
    return jnp.minimum(square, other_square), label


def _before(one, other) -> jax.Array:
    return (one[0] < other[0]) | ((one[0] == other[0]) & (one[1] < other[1]))


def _choose(condition: jax.Array, one, other):
    return tuple(jnp.where(condition, a, b) for a, b in zip(one, other, strict=True))
