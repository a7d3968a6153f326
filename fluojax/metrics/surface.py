"""Distances between the outlines of two masks.

Shared contract: `true` and `pred` are one image `[*S]` without channel axis, S
of rank 2 or 3, `jax.vmap` for a batch. Masks have any dtype, non-zero is
foreground. `spacing` is the distance of neighbouring pixels, one number or one
for each axis; distances and tolerances are in its unit, in pixels without it.

The outline of a mask are its edge pixels, those with a face neighbour outside
of it; what lies beyond the image is outside. An edge pixel is as far from the
other mask as from the nearest edge pixel of that. The distances of the two
directions, from prediction to truth and back, are kept apart unless a function
says otherwise.

Two empty masks are undefined (NaN). If one is empty, distances are inf and
shares 0, the worst values. Results are float32 (float64 where jax_enable_x64 is
on), counts int32. Percentiles, tolerances and spacing are static.

Every function raises ValueError for shapes that differ, another rank, or
options outside the range that it names.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks, ops
from fluojax.ops.distance import check_spacing, squares_at

Spacing = float | Sequence[float] | None
# Percentiles are whole fractions with at most this below the line.
_FINEST_SHARE = 10_000
# Distances are compared by their squares with this much room, so that a
# tolerance of sqrt(13), whose square is a little less, reaches two pixels down
# and three across on any device.
_ROOM = 1e-6


class BoundaryScores(NamedTuple):
    """F1 of two outlines, with the counts that pool it over images.

    `precision` and `recall` are NaN without an edge pixel of their own mask.
    `near_pred` of the `n_pred` edge pixels of the prediction are within the
    tolerance of the truth, `near_true` of `n_true` the other way round.
    """

    f1: jax.Array
    precision: jax.Array
    recall: jax.Array
    near_pred: jax.Array
    n_pred: jax.Array
    near_true: jax.Array
    n_true: jax.Array


class _Outlines(NamedTuple):
    """Edge pixels of both masks and, at each of them, the squared distance to the
    edges of the other one."""

    true: jax.Array
    pred: jax.Array
    true_to_pred: jax.Array
    pred_to_true: jax.Array


def hausdorff(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    percentile: float = 100.0,
    directed: bool = False,
    spacing: Spacing = None,
) -> jax.Array:
    """Hausdorff distance, or HD95 with `percentile=95`.

    The larger one of the two directed percentiles, each over the edge pixels of
    one mask with linear interpolation between neighbouring ranks. `directed`
    takes that from prediction to truth alone.

    Args:
      true: `[*S]` mask.
      pred: `[*S]` mask.
      percentile: 0 to 100, the largest distance by default; rounded to a
        fraction with at most 10,000 below the line.
      directed: from prediction to truth only.
      spacing: distance of neighbouring pixels.

    Source: Huttenlocher et al., IEEE TPAMI 1993. Percentiles as in MONAI, which
    gives NaN for HD95 if one mask is empty; others pool both directions or
    weigh pixels, which are other numbers.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"hausdorff: percentile must be 0 to 100, got {percentile}")
    outlines, whole = _outlines("hausdorff", true, pred, spacing)
    share = Fraction(percentile / 100).limit_denominator(_FINEST_SHARE)
    value = _percentile(outlines.pred, outlines.pred_to_true, share, whole)
    if not directed:
        back = _percentile(outlines.true, outlines.true_to_pred, share, whole)
        value = jnp.maximum(value, back)
    return _defined(outlines, value, jnp.inf)


def average_surface_distance(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    kind: Literal["asd", "assd", "masd"] = "assd",
    spacing: Spacing = None,
) -> jax.Array:
    """Mean distance of the outlines.

    "asd": over the edge pixels of the prediction, to the truth. "assd": over
    the edge pixels of both, pooled. "masd": the mean of the two directed means.

    Source: Heimann et al., IEEE TMI 2009.
    """
    if kind not in ("asd", "assd", "masd"):
        raise ValueError(
            f"average_surface_distance: kind must be asd, assd or masd, got {kind!r}"
        )
    outlines, _ = _outlines("average_surface_distance", true, pred, spacing)
    forth = _total(outlines.pred, outlines.pred_to_true)
    back = _total(outlines.true, outlines.true_to_pred)
    n_pred, n_true = (_float(_count(mask)) for mask in (outlines.pred, outlines.true))
    if kind == "assd":
        value = (forth + back) / jnp.maximum(n_pred + n_true, 1.0)
    else:
        value = forth / jnp.maximum(n_pred, 1.0)
    if kind == "masd":
        value = 0.5 * (value + back / jnp.maximum(n_true, 1.0))
    return _defined(outlines, value, jnp.inf)


def surface_dice(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    tolerance: float = 1.0,
    spacing: Spacing = None,
) -> jax.Array:
    """Normalised surface Dice (NSD): share of edge pixels within the tolerance.

    Edge pixels of either mask at most `tolerance` from the other outline, over
    the edge pixels of both.

    Source: Nikolov et al., J. Med. Internet Res. 2021, by pixels as in MONAI;
    `surface_dice_subpixel` weighs by length as they do.
    """
    counts = _near("surface_dice", true, pred, tolerance, spacing)
    near = _float(counts.near_pred + counts.near_true)
    total = _float(counts.n_pred + counts.n_true)
    return _ratio(near, total)


def boundary_f1(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    tolerance: float = 1.0,
    spacing: Spacing = None,
) -> BoundaryScores:
    """F1 of outlines: edge pixels count as hits within the tolerance.

    Precision is the share of the edge pixels of the prediction at most
    `tolerance` from the true outline, recall that of the true ones from the
    predicted outline, F1 their harmonic mean, 0 if both are 0.

    Source: Csurka et al., BMVC 2013.
    """
    return _near("boundary_f1", true, pred, tolerance, spacing)


def boundary_iou(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    distance: float = 1.0,
    spacing: Spacing = None,
) -> jax.Array:
    """Jaccard index of the bands of the two masks along their outlines.

    The band are the pixels of a mask nearer than `distance` to its edge pixels;
    with the default, in pixels, the edge pixels themselves.

    Source: Cheng et al., CVPR 2021, who take 2 % of the image diagonal; the
    strict comparison is that of MetricsReloaded.
    """
    if not distance > 0:
        raise ValueError(f"boundary_iou: distance must be positive, got {distance}")
    true, pred = (
        mask.astype(bool) for mask in checks.image_pair("boundary_iou", true, pred)
    )
    spacing = check_spacing("boundary_iou", spacing, true.ndim)
    limit = distance**2 * (1.0 - _ROOM)
    bands = [
        mask & (ops.distance_transform(~edge_pixels(mask), spacing, True) < limit)
        for mask in (true, pred)
    ]
    shared, either = _count(bands[0] & bands[1]), _count(bands[0] | bands[1])
    return _ratio(_float(shared), _float(either))


def surface_dice_subpixel(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    tolerance: float = 1.0,
    spacing: Spacing = None,
) -> jax.Array:
    """Surface Dice of outlines drawn between the pixels, by length; 2-D only.

    The outline passes through the corners shared by pixels of both kinds, with
    a length there that follows from the four pixels: half a diagonal if one
    differs from the rest, a side if they differ in pairs, two half diagonals if
    they alternate. Corners at most `tolerance` from one of the other mask count
    with their length.

    Raises:
      ValueError: also for volumes.

    Source: Nikolov et al., J. Med. Internet Res. 2021; MONAI's `use_subvoxels`.
    """
    name = "surface_dice_subpixel"
    true, pred = checks.image_pair(name, true, pred)
    if true.ndim != 2:
        raise ValueError(
            f"{name}: masks must be [rows, columns], got {true.shape}; use "
            "surface_dice for volumes or jax.vmap for their slices"
        )
    limit = _squared_tolerance(name, tolerance)
    spacing = check_spacing(name, spacing, true.ndim)
    lengths = [_corner_lengths(mask.astype(bool), spacing) for mask in (true, pred)]
    near = whole = jnp.zeros((), lengths[0].dtype)
    for one, other in (lengths, lengths[::-1]):
        squares = ops.distance_transform(other == 0, spacing, True)
        near += jnp.sum(jnp.where(squares <= limit, one, 0.0))
        whole += jnp.sum(one)
    return _ratio(near, whole)


def edge_pixels(mask: ArrayLike) -> jax.Array:
    """Pixels of the mask with a face neighbour outside of it, `[*S]` bool."""
    return _edge_pixels(checks.image("edge_pixels", mask, "mask").astype(bool))


# Functions with a loop are jitted, so that calls outside `jit` do not compile
# the loop again each time.


@jax.jit
def _edge_pixels(mask: jax.Array) -> jax.Array:
    cross = np.abs(np.indices((3,) * mask.ndim) - 1).sum(axis=0) <= 1
    return mask & ~ops.erode(mask, cross, border=0)


def _outlines(
    function: str, true: ArrayLike, pred: ArrayLike, spacing: Spacing
) -> tuple[_Outlines, bool]:
    """The outlines, and whether squared distances are whole numbers."""
    true, pred = checks.image_pair(function, true, pred)
    spacing = check_spacing(function, spacing, true.ndim)
    true, pred = edge_pixels(true), edge_pixels(pred)
    forth, back = squares_at(true, ~pred, spacing), squares_at(pred, ~true, spacing)
    return _Outlines(true, pred, forth, back), set(spacing) == {1.0}


def _near(
    function: str,
    true: ArrayLike,
    pred: ArrayLike,
    tolerance: float,
    spacing: Spacing,
) -> BoundaryScores:
    limit = _squared_tolerance(function, tolerance)
    outlines, _ = _outlines(function, true, pred, spacing)
    near_pred = _count(outlines.pred & (outlines.pred_to_true <= limit))
    near_true = _count(outlines.true & (outlines.true_to_pred <= limit))
    n_pred, n_true = _count(outlines.pred), _count(outlines.true)
    precision = _ratio(_float(near_pred), _float(n_pred))
    recall = _ratio(_float(near_true), _float(n_true))
    # Harmonic mean of a/A and b/B without a quotient that may be 0/0.
    above = 2.0 * _float(near_pred) * _float(near_true)
    below = _float(near_pred) * _float(n_true) + _float(near_true) * _float(n_pred)
    f1 = above / jnp.maximum(below, 1.0)
    f1 = jnp.where(n_pred + n_true == 0, jnp.nan, f1)
    return BoundaryScores(f1, precision, recall, near_pred, n_pred, near_true, n_true)


def _squared_tolerance(function: str, tolerance: float) -> float:
    if not tolerance >= 0:
        raise ValueError(f"{function}: tolerance must be 0 or more, got {tolerance}")
    return tolerance**2 * (1.0 + _ROOM)


@functools.partial(jax.jit, static_argnames=("share", "whole"))
def _percentile(
    edge: jax.Array, squares: jax.Array, share: Fraction, whole: bool
) -> jax.Array:
    """The distance below which a share of the edge pixels lies.

    Ranks are found by halving an interval of squared distances, as integers: by
    their values where these are whole, else by their bits, whose order is that
    of the values. This takes some ten passes over the image, or at most as many
    as there are bits, and no sort.
    """
    largest = jnp.max(jnp.where(edge, squares, 0.0))
    if share == 1:
        return jnp.sqrt(largest)
    integer = jnp.int64 if squares.dtype == jnp.float64 else jnp.int32

    def key(squares: jax.Array) -> jax.Array:
        if whole:
            return squares.astype(jnp.int32)
        return lax.bitcast_convert_type(squares, integer)

    def distance(key: jax.Array) -> jax.Array:
        if whole:
            return jnp.sqrt(key.astype(squares.dtype))
        return jnp.sqrt(lax.bitcast_convert_type(key, squares.dtype))

    keys, highest = key(squares), key(largest)
    keys = jnp.where(edge, keys, jnp.iinfo(keys.dtype).max)

    def halve(bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = _count(keys <= middle) > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # (n - 1) share = rank + part, in integers that cannot overflow.
    last = jnp.maximum(_count(edge) - 1, 0)
    wholes, rest = jnp.divmod(last, share.denominator)
    steps, rest = jnp.divmod(rest * share.numerator, share.denominator)
    rank = wholes * share.numerator + steps
    start = (jnp.zeros_like(highest), highest)
    lower, _ = lax.while_loop(lambda b: b[0] < b[1], halve, start)
    above = jnp.min(jnp.where(keys > lower, keys, highest))
    upper = jnp.where(_count(keys <= lower) > rank + 1, lower, above)
    part = rest.astype(squares.dtype) / share.denominator
    value = distance(lower) + part * (distance(upper) - distance(lower))
    return jnp.where(jnp.isinf(largest), jnp.inf, value)


def _corner_lengths(mask: jax.Array, spacing: tuple[float, ...]) -> jax.Array:
    """Length of the outline at each corner of pixels, `[rows + 1, columns + 1]`."""
    rows, columns = spacing
    half = 0.5 * float(np.hypot(rows, columns))
    padded = jnp.pad(mask, 1)
    first, second = padded[:-1, :-1], padded[:-1, 1:]
    third, fourth = padded[1:, :-1], padded[1:, 1:]
    odd = first ^ second ^ third ^ fourth
    # Of an even number of pixels: none or all, or two in one of three ways.
    across, down, diagonal = first ^ second, first ^ third, first ^ fourth
    even = jnp.where(across & down, 2 * half, jnp.where(across, rows, columns))
    even = jnp.where(across | down | diagonal, even, 0.0)
    return jnp.where(odd, half, even).astype(jnp.result_type(float))


def _total(edge: jax.Array, squares: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(edge, jnp.sqrt(squares), 0.0))


def _count(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, dtype=jnp.int32)


def _defined(outlines: _Outlines, value: jax.Array, worst: float) -> jax.Array:
    """`value`, `worst` if one mask is empty and NaN if both are."""
    in_true, in_pred = jnp.any(outlines.true), jnp.any(outlines.pred)
    value = jnp.where(in_true & in_pred, value, worst)
    return jnp.where(in_true | in_pred, value, jnp.nan)


def _float(counts: jax.Array) -> jax.Array:
    return counts.astype(jnp.result_type(float))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, NaN where whole is 0."""
    return jnp.where(whole == 0, jnp.nan, part / jnp.where(whole == 0, 1.0, whole))
