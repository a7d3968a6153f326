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
    spacing = check_spacing("distance_transform", spacing, mask.ndim)
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
    spacing = check_spacing("signed_distance", spacing, mask.ndim)
    inside = mask.astype(bool)
    outer, inner = _squares(~inside, spacing), _squares(inside, spacing)
    return jnp.where(inside, -jnp.sqrt(inner), jnp.sqrt(outer))


def check_spacing(
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


def squares_at(
    places: jax.Array, mask: jax.Array, spacing: tuple[float, ...]
) -> jax.Array:
    """Squared distances to the nearest False pixel, exact where `places` is True.

    Other pixels have some value beyond theirs. Along the last axis the search
    ends with the farthest of the places, which are often near while most of the
    background is far.
    """
    return _squares(mask, spacing, places=places)


@functools.partial(jax.jit, static_argnames=("spacing", "up_to"))
def _squares(
    mask: jax.Array,
    spacing: tuple[float, ...],
    up_to: float = math.inf,
    places: jax.Array | None = None,
) -> jax.Array:
    """Squared distances to the nearest False pixel."""
    if mask.size == 0:
        return jnp.zeros(mask.shape, jnp.result_type(float))
    far = jnp.full(mask.shape[1:], jnp.inf, jnp.result_type(float))

    def next_row(distance, row):
        return jnp.where(row, distance + 1.0, 0.0)

    down, up = both_ways(next_row, far, mask)
    squares = jnp.square(jnp.minimum(down, up) * spacing[0])
    bounded = ~jnp.all(mask)

    def largest(field: Field) -> jax.Array:
        most = jnp.minimum(jnp.max(field[0][0]), up_to * up_to)
        return jnp.where(bounded, most, -1.0)

    field = ((squares,), ())
    for axis in range(1, mask.ndim):
        last = axis == mask.ndim - 1
        counts = places if last else None
        field = along_axis(field, axis, spacing[axis], least, largest, places=counts)
    return field[0][0]


def both_ways(next_row: Callable, start, rows: jax.Array) -> tuple:
    """What `next_row(before, row)` makes of rows from the first and from the last.

    Returns:
      Two trees like `start`, with a leading axis in the order of the rows.
    """

    def step(before, pair):
        after = tuple(map(next_row, before, pair))
        return after, after

    _, (down, up) = lax.scan(step, (start, start), (rows, rows[::-1]))
    return down, jax.tree.map(lambda x: x[::-1], up)


def least(one: Field, other: Field) -> Field:
    """The smaller square, where no ids are wanted."""
    return (jnp.minimum(one[0][0], other[0][0]),), ()


def along_axis(
    field: Field,
    axis: int,
    spacing: float,
    merge: Merge,
    largest: Callable[[Field], jax.Array],
    scale: int = 1,
    nothing: float = math.inf,
    places: jax.Array | None = None,
) -> Field:
    """Lets every pixel offer its places to all pixels of its line along `axis`.

    Squares may be given times `scale`; `largest` says how far to search, as a
    squared distance; `nothing` is the square where there is no place.

    After k steps every pixel has been compared with those up to k away. One
    step more compares only direct neighbours, at the price 2k + 1, the
    difference of the squares; d steps at once those up to d away, at
    (k + d)² - k² = d (2k + d).

    With `places` the search ends as soon as the nearest of these pixels are
    exact; this needs `scale` 1 and a single square each.
    """
    length = field[0][0].shape[axis]
    unit = spacing * spacing * scale
    # A border to read from, so that neighbours are plain slices.
    border = [(0, 0)] * field[0][0].ndim
    border[axis] = (_REACH, _REACH)

    def bordered(field: Field) -> Field:
        squares, ids = field
        return (
            tuple(jnp.pad(s, border, constant_values=nothing) for s in squares),
            tuple(jnp.pad(i, border) for i in ids),
        )

    def neighbour(padded: Field, offset: int, price: jax.Array) -> Field:
        start = _REACH + offset
        squares, ids = jax.tree.map(
            lambda x: lax.slice_in_dim(x, start, start + length, axis=axis), padded
        )
        return tuple(s + price for s in squares), ids

    def unfinished(state) -> jax.Array:
        steps, padded, limit = state
        if places is not None:
            # Here and not in the body, where XLA would compute the comparisons
            # again, pixel by pixel, for this maximum.
            near = neighbour(padded, 0, jnp.zeros_like(limit))[0][0]
            limit = jnp.minimum(limit, jnp.max(jnp.where(places, near, 0.0)))
        reached = steps.astype(limit.dtype) * spacing
        return (steps < length - 1) & (reached * reached < limit)

    def compare(state):
        steps, padded, _ = state
        done = steps.astype(field[0][0].dtype)
        nearest = neighbour(padded, 0, jnp.zeros_like(done))
        for distance in range(1, _REACH + 1):
            price = (2 * done + distance) * (distance * unit)
            for offset in (-distance, distance):
                nearest = merge(nearest, neighbour(padded, offset, price))
        return steps + _REACH, bordered(nearest), largest(nearest)

    start = (jnp.int32(0), bordered(field), largest(field))
    _, padded, _ = lax.while_loop(unfinished, compare, start)
    return neighbour(padded, 0, jnp.zeros((), field[0][0].dtype))
