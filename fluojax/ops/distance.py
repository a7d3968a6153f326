"""Exact Euclidean distances on one image `[*S]`, rank 2 or 3.

Distances are between pixel centres, in pixels or, with `spacing`, in its unit.
They are float32, or float64 where 64-bit types are enabled. Where there is
nothing to measure to, the distance is infinite.

One axis at a time: along the first by a scan over rows that carries the
distance in both directions; along each further axis every pixel offers its
squared distance plus a parabola to its neighbours, eight of them at a time,
and this ends as soon as no parabola can reach below the largest value. The
number of passes is the largest distance / 8 + 1 or, at most, the length of the
axis / 8 + 1. Squared distances without spacing are whole numbers, exact in
float32 up to 2^24 (a diagonal of 4096 pixels).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks

# Neighbours on either side that one pass compares.
_REACH = 8

# Squared distances to the nearest places, nearest first, and their ids (none
# where only the distance is wanted).
Field = tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]
Merge = Callable[[Field, Field], Field]


class NearestInstances(NamedTuple):
    """The two nearest different instances of every pixel.

    Attributes:
      distances: `[2, *S]`, the nearest first; 0 inside it, inf where missing.
      ids: `[2, *S]` int32 ids, 0 where missing. `ids[0]` are the regions of
        influence (Voronoi regions) of the instances.
    """

    distances: jax.Array
    ids: jax.Array


def distance_transform(
    mask: ArrayLike,
    spacing: float | Sequence[float] | None = None,
    squared: bool = False,
) -> jax.Array:
    """Distance of every non-zero pixel to the nearest zero pixel.

    Zero pixels have 0. Without any zero pixel all distances are inf, where
    SciPy measures to a point outside the image.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      spacing: distance of neighbouring pixels, for all axes or one per axis.
      squared: squared distances; whole numbers without spacing.

    Returns:
      `[*S]` distances.

    Raises:
      ValueError: the rank is neither 2 nor 3, or spacing does not fit.

    Source: exact separable transform (Saito and Toriwaki, Pattern Recognition
    1994) with the parabola taken apart into steps (van den Boomgaard, 1992).
    """
    mask = checks.image("distance_transform", mask, "mask")
    spacing = _check_spacing("distance_transform", spacing, mask.ndim)
    squares = _squares(mask.astype(bool), spacing)
    return squares if squared else jnp.sqrt(squares)


def signed_distance(
    mask: ArrayLike, *, spacing: float | Sequence[float] | None = None
) -> jax.Array:
    """Distance to the mask outside of it, minus that to its complement inside.

    Positive outside, negative inside, never 0: both sides measure to the first
    pixel of the other. An empty mask gives +inf, a full one -inf.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      spacing: distance of neighbouring pixels, for all axes or one per axis.

    Returns:
      `[*S]` distances.

    Raises:
      ValueError: the rank is neither 2 nor 3, or spacing does not fit.
    """
    mask = checks.image("signed_distance", mask, "mask")
    spacing = _check_spacing("signed_distance", spacing, mask.ndim)
    inside = mask.astype(bool)
    outer, inner = _squares(~inside, spacing), _squares(inside, spacing)
    return jnp.where(inside, -jnp.sqrt(inner), jnp.sqrt(outer))


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
    spacing = _check_spacing("nearest_instance", spacing, instances.ndim)
    squares, ids = _nearest_two(instances, spacing)
    return NearestInstances(jnp.sqrt(jnp.stack(squares)), jnp.stack(ids))


def _check_spacing(
    function: str, spacing: float | Sequence[float] | None, rank: int
) -> tuple[float, ...]:
    if spacing is None:
        return (1.0,) * rank
    values = (spacing,) * rank if np.ndim(spacing) == 0 else tuple(spacing)
    values = tuple(float(value) for value in values)
    if len(values) != rank or not all(value > 0 for value in values):
        raise ValueError(
            f"{function}: spacing must be one positive number, or one for each of "
            f"{rank} axes, got {spacing!r}"
        )
    return values


def squares_up_to(mask: jax.Array, distance: float) -> jax.Array:
    """Squared distances to the nearest False pixel, exact up to `distance`.

    Farther pixels have some value beyond it; this saves the passes to them.
    """
    return _squares(mask, (1.0,) * mask.ndim, distance)


@functools.partial(jax.jit, static_argnames=("spacing", "up_to"))
def _squares(
    mask: jax.Array, spacing: tuple[float, ...], up_to: float = math.inf
) -> jax.Array:
    """Squared distances to the nearest False pixel."""
    if mask.size == 0:
        return jnp.zeros(mask.shape, jnp.result_type(float))
    far = jnp.full(mask.shape[1:], jnp.inf, jnp.result_type(float))

    def step(before, rows):
        after = tuple(
            jnp.where(row, distance + 1.0, 0.0)
            for distance, row in zip(before, rows, strict=True)
        )
        return after, after

    _, (down, up) = lax.scan(step, (far, far), (mask, mask[::-1]))
    squares = jnp.square(jnp.minimum(down, up[::-1]) * spacing[0])
    bounded = ~jnp.all(mask)

    def nearer(one: Field, other: Field) -> Field:
        return (jnp.minimum(one[0][0], other[0][0]),), ()

    def largest(field: Field) -> jax.Array:
        most = jnp.minimum(jnp.max(field[0][0]), up_to**2)
        return jnp.where(bounded, most, -1.0)

    field = ((squares,), ())
    for axis in range(1, mask.ndim):
        field = _along_axis(field, axis, spacing[axis], nearer, largest)
    return field[0][0]


@functools.partial(jax.jit, static_argnames="spacing")
def _nearest_two(instances: jax.Array, spacing: tuple[float, ...]) -> Field:
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
        first, second = (jnp.max(square) for square in field[0])
        return jnp.where(any_two, second, jnp.where(any_one, first, -1.0))

    for axis in range(1, instances.ndim):
        field = _along_axis(field, axis, spacing[axis], _merge, largest)
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

    def step(before, rows):
        after = tuple(map(next_row, before, rows))
        return after, after

    _, (down, up) = lax.scan(step, (start, start), (instances, instances[::-1]))
    squares, ids = _merge(down, jax.tree.map(lambda x: x[::-1], up))
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


def _before(one, other) -> jax.Array:
    return (one[0] < other[0]) | ((one[0] == other[0]) & (one[1] < other[1]))


def _choose(condition: jax.Array, one, other):
    return tuple(jnp.where(condition, a, b) for a, b in zip(one, other, strict=True))


def _along_axis(
    field: Field,
    axis: int,
    spacing: float,
    merge: Merge,
    largest: Callable[[Field], jax.Array],
) -> Field:
    """Lets every pixel offer its places to all pixels of its line along `axis`.

    After k steps every pixel has been compared with those up to k away. One
    step more compares only direct neighbours, at the price 2k + 1, the
    difference of the squares; d steps at once those up to d away, at
    (k + d)² - k² = d (2k + d).
    """
    length = field[0][0].shape[axis]
    unit = spacing * spacing
    # A border to read from, so that neighbours are plain slices.
    border = [(0, 0)] * field[0][0].ndim
    border[axis] = (_REACH, _REACH)

    def bordered(field: Field) -> Field:
        squares, ids = field
        return (
            tuple(jnp.pad(s, border, constant_values=jnp.inf) for s in squares),
            tuple(jnp.pad(i, border) for i in ids),
        )

    def neighbour(padded: Field, offset: int, price: jax.Array) -> Field:
        start = _REACH + offset
        squares, ids = jax.tree.map(
            lambda x: lax.slice_in_dim(x, start, start + length, axis=axis), padded
        )
        return tuple(s + price for s in squares), ids

    def unfinished(state) -> jax.Array:
        steps, _, limit = state
        reached = steps.astype(limit.dtype) * spacing
        return (steps < length - 1) & (reached * reached < limit)

    def compare(state):
        steps, padded, _ = state
        done = steps.astype(field[0][0].dtype)
        nearest = neighbour(padded, 0, jnp.zeros_like(done))
        for distance in range(1, _REACH + 1):
            price = (2.0 * done + distance) * (distance * unit)
            for offset in (-distance, distance):
                nearest = merge(nearest, neighbour(padded, offset, price))
        return steps + _REACH, bordered(nearest), largest(nearest)

    start = (jnp.int32(0), bordered(field), largest(field))
    _, padded, _ = lax.while_loop(unfinished, compare, start)
    return neighbour(padded, 0, jnp.zeros((), field[0][0].dtype))
