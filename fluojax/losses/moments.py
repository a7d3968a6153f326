"""Losses that compare spatial moments of prediction and labels.

`f(logits, labels, *, ...) -> [B]`: logits and labels `[B, *S, K]`, S of rank 2
or 3; float32 or better inside; one value per image. One class means p =
sigmoid(logits), several mean softmax over the last axis.

An abstract (Clissa, Macaluso and Zoccoli, in preparation) names a loss based on
spatial moments, sensitive to errors in fine structure, and gives no formula.
The local, the per-instance and the global loss here are our own design, not
theirs; the residual loss is our reading of another abstract.

`where` `[B, *S, 1 or K]` bool makes pixels empty in prediction and labels alike;
windows and coordinates stay those of the whole image, so that masking is not
cropping. An image without any pixel left costs 0.

Every function raises TypeError for logits that are not floating point and for
a `where` that is not bool, ValueError for shapes that do not fit.
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax.losses import _instances as inst
from fluojax.losses import _shared as shared
from fluojax.losses import _view
from fluojax.ops.local_moments import (
    local_moment_energy,
    local_moments,
    moment_indices,
)
from fluojax.ops.moments import project
from fluojax.ops.nearest import nearest_rows

# Least mass below a ratio of local moments, in pixels of a window.
_LEAST_MASS = 0.01
_NORMALIZATIONS = ("mass", "none", "local")


def local_moment_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    scales: Sequence[float] = (2.0, 4.0, 8.0),
    order: int = 2,
    order_weights: Sequence[float] = (1.0, 1.0, 1.0),
    normalization: str = "mass",
    basis: str = "hermite",
    truncate: float = 3.0,
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Squared differences of local moments of prediction and labels.

    With M_a the moments in a Gaussian window around every pixel x
    (`ops.local_moments`), the mean over classes and scales of

        Σ_x Σ_a λ_|a| M_a[p - y](x)² / (Σ p + Σ y + 1),   |a| <= order,

    without a gradient through the denominator. That is the difference of the
    two maps after each is replaced, around every pixel, by the polynomial
    that fits it best. Order 0 sees lost and added mass, order 1 shifts of
    borders, order 2 widths, gaps and elongation. Cells pull on a prediction
    within about 2.5 times the largest scale, also where they do not overlap.

    Detail finer than the smallest scale is invisible: add this loss, with a
    weight of 1 to 5, to cross-entropy or Dice, and choose scales near 1/16, 1/8
    and 1/4 of the diameter of a cell, 1 where gaps of one pixel matter.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      scales: standard deviations of the windows in pixels.
      order: highest total order of the moments.
      order_weights: λ, one number at least 0 per order from 0 on.
      normalization: "mass" as above; "none" divides by the number of pixels
        instead, which makes the loss convex in p; "local" divides each square
        by the mass around its pixel, ½ M_0[p + y] + 0.01, and their sum by 4
        times the sum of these masses + 0.01: errors weigh the same in sparse
        and dense places. "local" takes several times longer than the others.
      basis: "hermite" for polynomials orthonormal under the window; then "mass"
        with λ <= 1 is at most Σ (p - y)² / (Σ p + Σ y + 1). "raw" for powers.
      truncate: half the width of the windows in scales.
      include_background: also class 0 (or 1 - p).
      where: pixels marked False are empty in p and y.

    Returns:
      `[B]` losses, at least 0, and 0 for p = y. With "mass", basis "hermite"
      and λ <= 1 at most 1.

    Raises:
      ValueError: no scale, not one weight per order, an unknown normalization
        or basis, or scales that `ops.moment_taps` refuses.

    Source: our own design. With one window of one pixel and order 0 it is, for
    hard masks, the Dice loss with smoothing 1.
    """
    name = "local_moment_loss"
    if normalization not in _NORMALIZATIONS:
        raise ValueError(
            f"{name}: normalization must be one of {', '.join(_NORMALIZATIONS)}, "
            f"got {normalization!r}"
        )
    if len(order_weights) != order + 1:
        raise ValueError(
            f"{name}: order_weights must hold one number for each order 0..{order}, "
            f"got {len(order_weights)}"
        )
    if len(scales) == 0:
        raise ValueError(f"{name}: scales must hold at least one number, got none")
    view = _view.check(name, logits, labels, where, None, include_background)
    residual = shared.masked(view.probs - view.labels, view.where)
    mass = shared.masked(view.probs + view.labels, view.where)
    windows = {"basis": basis, "truncate": truncate}
    if normalization == "local":

        def relative(residual, mass):
            every = [
                _relative(residual, mass, s, order_weights, windows) for s in scales
            ]
            return jnp.mean(jnp.stack(every))

        return _view.class_mean(name, view, _per_class(relative, residual, mass))

    def energy(residual):
        return local_moment_energy(
            residual, scales, order_weights=order_weights, **windows
        )

    if normalization == "mass":
        below = lax.stop_gradient(shared.pixel_sum(mass)) + 1.0
    else:
        below = shared.pixel_count(view.where, view.probs)
    losses = shared.ratio(_per_class(energy, residual), below)
    return _view.class_mean(name, view, losses)


def _relative(residual, mass, scale, order_weights, windows) -> jax.Array:
    """The loss of one image, class and scale with normalization "local"."""
    order = len(order_weights) - 1
    fields = local_moments(residual, scale, order=order, **windows)
    around = 0.5 * local_moments(mass, scale, order=0, **windows)[0]
    weights = [order_weights[sum(a)] for a in moment_indices(residual.ndim, order)]
    weights = jnp.asarray(weights, residual.dtype)
    squares = jnp.tensordot(weights, fields**2, 1, precision="highest")
    total = jnp.sum(squares / (around + _LEAST_MASS))
    return 0.25 * total / (jnp.sum(around) + _LEAST_MASS)


def global_moment_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    order: int = 2,
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Squared differences of the moments of the whole image.

    With pixel centres x between -1 and 1 along every axis (the borders of the
    image are at ±1), the mean over classes of

        Σ_a (Σ_x xᵃ (p - y) / (½ Σ (p + y) + 1))²,   |a| <= order,

    without a gradient through the denominator: area, centre of mass and spread
    of the foreground as a whole. It pulls from any distance, but with several
    cells its minimum lies beside the truth: errors of one cell make up for
    those of another.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      order: highest total order, at least 0.
      include_background: also class 0 (or 1 - p).
      where: pixels marked False are empty in p and y.

    Returns:
      `[B]` losses, at least 0, and 0 for p = y.

    Raises:
      ValueError: order is negative.

    Source: our own design, the local loss with one window as large as the image.
    """
    name = "global_moment_loss"
    view = _view.check(name, logits, labels, where, None, include_background)
    found = _whole(name, view, view.probs - view.labels, order, -1.0)
    mass = shared.pixel_sum(shared.masked(view.probs + view.labels, view.where))
    below = lax.stop_gradient(0.5 * mass + 1.0)[..., None]
    return _view.class_mean(name, view, jnp.sum((found / below) ** 2, axis=-1))


def residual_moment_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    order: int = 2,
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Differences of prediction and labels, weighted by their coordinates.

    With pixel centres x between 0 and 1 along every axis (the borders of the
    image are at 0 and 1), the mean over classes of

        Σ_a mean over pixels of |xᵃ (p - y)|,   0 < |a| <= order.

    Errors far from the first pixel weigh more: rows and columns are not alike.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      order: highest total order, at least 1.
      include_background: also class 0 (or 1 - p).
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0, and 0 for p = y.

    Raises:
      ValueError: order is below 1.

    Source: our reading of the abstract of Wang et al., Residual Moment Loss for
    Medical Image Segmentation, arXiv 2106.14178, in which prediction and labels
    weighted by coordinates are kept alike. The paper itself was not read: norm,
    orders and weights are unverified.
    """
    name = "residual_moment_loss"
    if order < 1:
        raise ValueError(f"{name}: order must be >= 1, got {order}")
    view = _view.check(name, logits, labels, where, None, include_background)
    errors = shared.magnitude(view.probs - view.labels)
    found = jnp.sum(_whole(name, view, errors, order, 0.0)[..., 1:], axis=-1)
    pixels = shared.pixel_count(view.where, view.probs)
    return _view.class_mean(name, view, shared.ratio(found, pixels))


def _whole(name, view, values, order, first) -> jax.Array:
    """Moments `[B, C, F]`, order 0 first; image borders are at `first` and 1."""
    if order < 0:
        raise ValueError(f"{name}: order must be >= 0, got {order}")
    values = shared.masked(values, view.where)
    powers = []
    for length in values.shape[1:-1]:
        places = first + (1.0 - first) * (np.arange(length) + 0.5) / length
        table = places ** np.arange(order + 1.0)[:, None]
        powers.append(jnp.asarray(table, values.dtype))
    indices = moment_indices(len(powers), order)

    def of_image(image):
        every = project(image, powers)
        return jnp.stack([every[index] for index in indices])

    return _per_class(of_image, values)


def _per_class(function: Callable, *arrays: jax.Array) -> jax.Array:
    """`function` of every image and class of arrays `[B, *S, C]`: `[B, C, ...]`."""
    arrays = [jnp.moveaxis(array, -1, 1) for array in arrays]
    return jax.vmap(jax.vmap(function))(*arrays)


def instance_moment_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    instances: ArrayLike | None = None,
    order_weights: Sequence[float] = (1.0, 1.0, 0.1),
    margin: float = 4.0,
    regions: ArrayLike | None = None,
    max_instances: int = 256,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Errors of area, centre and shape of every cell, averaged over the cells.

    Instance k has area a, centroid c, radius r = √max(mean of |x - c|² per axis,
    ¼) and a region R of the pixels that are nearer to it than to any other, at
    most `margin` pixels away. With u = (x - c) / r and the residual e = p - [x in
    k] on R, its loss is

        λ₀ (Σ e / a)² + λ₁ Σᵢ (Σ e uᵢ / a)²
        + λ₂ (½ Σᵢ (Σ e (uᵢ² - 1) / a)² + Σᵢ<ⱼ (Σ e uᵢ uⱼ / a)²),

    the mean over instances that of the image. Order 0 is the error of the area,
    1 the shift of the centroid, 2 the shape. It does not depend on the size of
    cells, is convex in p, and can tell cells that touch, unlike losses of
    masks. Order 2 is ruled by soft borders, thus its small weight.

    Args:
      logits: `[B, *S, K]` scores; several classes count together as cells.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1]; only used where
        instances are not given.
      instances: `[B, *S]` integers, 0 for background, any other value a cell.
        None takes the connected components of labels > 0.5.
      order_weights: λ₀, λ₁, λ₂.
      margin: distance in pixels up to which background belongs to a cell.
      regions: `[B, *S]` integers, the id of the cell that a pixel belongs to, 0
        for none, to save computing R; `margin` does not apply to it. Pixels of
        a cell must carry its id.
      max_instances: cells that count, in the order of their ids. Others leave
        the mean, and their regions belong to nobody.
      where: pixels marked False are empty, also in the instances.

    Returns:
      `[B]` losses, at least 0; 0 without a cell.

    Raises:
      TypeError: instances or regions are not integers.
      ValueError: `order_weights` are not three, margin is negative, or
        `max_instances` is below 1.

    Source: our own design.
    """
    name = "instance_moment_loss"
    if len(order_weights) != 3:
        raise ValueError(
            f"{name}: order_weights must hold three numbers, for area, centre and "
            f"shape, got {len(order_weights)}"
        )
    if margin < 0:
        raise ValueError(f"{name}: margin must be >= 0, got {margin}")
    scene = inst.scene(name, logits, labels, where, max_instances)
    probs = shared.masked(shared.sigmoid(scene.logits), scene.where)
    cells = inst.instances(name, scene, instances, None, max_instances)
    given = () if regions is None else (_given(name, scene, instances, regions),)

    def of_image(probs, rows, *given):
        if given:
            both, _ = inst.numbered(given[0].ravel(), max_instances)
            rows, region = jnp.split(inst.rows_of(both, max_instances), 2)
        else:
            places = rows.reshape(scene.shape)
            region = nearest_rows(places, max_instances + 1, margin).ravel()
        return _cells(probs, rows, region, scene.shape, order_weights, max_instances)

    return jax.vmap(of_image)(probs, cells.rows, *given)


def _given(name, scene, instances, regions) -> jax.Array:
    """Ids of instances and of regions `[B, 2, P]`, to be numbered together."""
    like = scene.logits.reshape(-1, *scene.shape, 1)
    if instances is None:
        raise ValueError(
            f"{name}: regions need the instances whose ids they carry, got None; "
            "pass instances"
        )
    maps = {"instances": instances, "regions": regions}
    maps = [shared.instance_map(name, key, value, like) for key, value in maps.items()]
    both = jnp.stack([m.reshape(scene.logits.shape) for m in maps], axis=1)
    return both if scene.where is None else jnp.where(scene.where[:, None], both, 0)


def _cells(probs, rows, region, shape, order_weights, max_instances) -> jax.Array:
    """Mean over the instances of one image; pixels are flat."""
    areas, centres, radii = _geometry(rows, shape, max_instances, probs.dtype)
    known = areas > 0
    safe = jnp.where(known, areas, 1.0)

    def total(values):
        return inst.segment_sum(region, max_instances, values) / safe

    error = probs - (rows == region).astype(probs.dtype)
    radius = _of_pixel(radii, region, 1.0)
    places = _places(shape, probs.dtype)
    u = [
        (place - _of_pixel(centre, region)) / radius
        for place, centre in zip(places, centres, strict=True)
    ]
    area, centre = total(error) ** 2, sum(total(error * v) ** 2 for v in u)
    form = sum(0.5 * total(error * (v**2 - 1.0)) ** 2 for v in u)
    pairs = itertools.combinations(u, 2)
    form = form + sum(total(error * v * w) ** 2 for v, w in pairs)
    parts = zip(order_weights, (area, centre, form), strict=True)
    losses = sum(weight * part for weight, part in parts)
    return inst.row_mean(losses[None], known[None])[0]


def _geometry(rows, shape, max_instances, dtype):
    """Area, centroid (from the middle of the image) and radius of every row."""

    def total(values):
        return inst.segment_sum(rows, max_instances, values)

    areas = total(jnp.ones(rows.shape, dtype))
    safe = jnp.maximum(areas, 1.0)
    places = _places(shape, dtype)
    centres = [total(place) / safe for place in places]
    squares = [
        total((place - _of_pixel(centre, rows)) ** 2)
        for place, centre in zip(places, centres, strict=True)
    ]
    spread = sum(squares) / (len(shape) * safe)
    return areas, centres, jnp.sqrt(jnp.maximum(spread, 0.25))


def _places(shape, dtype) -> list[jax.Array]:
    """Coordinates of the pixels `[P]` from the middle of the image, per axis."""
    indices = [lax.broadcasted_iota(dtype, shape, axis) for axis in range(len(shape))]
    return [
        (index - (length - 1) / 2).ravel()
        for index, length in zip(indices, shape, strict=True)
    ]


def _of_pixel(values, rows, otherwise=0.0) -> jax.Array:
    """The value of the row that each pixel belongs to."""
    return values.at[rows].get(mode="fill", fill_value=otherwise)
