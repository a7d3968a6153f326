"""Spatial moments of one image `[*S]`, rank 2 or 3, or of its labelled regions.

Coordinates are pixel indices, rows first (depth first in volumes): index
`[i, j]` of an array of moments is the power of the row, then of the column, as
in scikit-image; OpenCV names them the other way round. Images may hold any real
values. Arithmetic is float32, float64 for float64 images. What is divided by a
mass of 0 is NaN, with zero gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.components import relabel


def moments(image: ArrayLike, *, order: int = 3) -> jax.Array:
    """Raw moments Σ r^i c^j x (and z^h r^i c^j x of a volume).

    Args:
      image: `[*S]`, rank 2 or 3.
      order: highest power of each axis.

    Returns:
      `[order + 1, ...]`, one axis per axis of the image. All powers up to
      `order` along every axis are there, also those of a higher total order.

    Raises:
      ValueError: the rank is neither 2 nor 3, or order is negative.
    """
    image = _checked("moments", image, order)
    # About the origin all terms have one sign and nothing cancels.
    powers = [
        jnp.asarray(np.arange(n) ** np.arange(order + 1.0)[:, None], image.dtype)
        for n in image.shape
    ]
    return project(image, powers)


def central_moments(image: ArrayLike, *, order: int = 3) -> jax.Array:
    """Moments about the centroid, μ = Σ (r - r̄)^i (c - c̄)^j x.

    Args:
      image: `[*S]`, rank 2 or 3.
      order: highest power of each axis.

    Returns:
      `[order + 1, ...]` as `moments`; NaN for an image of mass 0.

    Raises:
      ValueError: the rank is neither 2 nor 3, or order is negative.
    """
    image = _checked("central_moments", image, order)
    centre, known = _centre(image)
    powers = []
    for length, middle in zip(image.shape, centre, strict=True):
        offset = _offsets(length, image.dtype) - middle
        # In units of the image, so that cubes stay of the order of 1.
        powers.append(_powers(offset / length, order))
    found = project(image, powers)
    for axis, length in enumerate(image.shape):
        units = float(length) ** np.arange(order + 1.0)
        shape = [-1 if i == axis else 1 for i in range(image.ndim)]
        found = found * jnp.asarray(units, image.dtype).reshape(shape)
    return jnp.where(known, found, jnp.nan)


def normalized_moments(image: ArrayLike, *, order: int = 3) -> jax.Array:
    """Central moments that do not change with size, ν = μ / μ₀₀^((i + j) / rank + 1).

    Args:
      image: `[*S]`, rank 2 or 3.
      order: highest power of each axis, at least 2.

    Returns:
      `[order + 1, ...]` as `moments`; NaN where the total order is below 2, and
      everywhere for an image of mass 0.

    Raises:
      ValueError: the rank is neither 2 nor 3, or order is below 2.
    """
    if order < 2:
        raise ValueError(f"normalized_moments: order must be >= 2, got {order}")
    central = central_moments(image, order=order)
    total = np.indices(central.shape).sum(axis=0)
    mass = central[(0,) * central.ndim]
    known = mass != 0  # also where it is NaN, as are the moments
    safe = jnp.where(known, mass, 1.0)
    exponents = jnp.asarray(total / central.ndim + 1.0, central.dtype)
    found = central / safe**exponents
    return jnp.where(jnp.asarray(total >= 2) & known, found, jnp.nan)


def hu_moments(image: ArrayLike) -> jax.Array:
    """The seven numbers of Hu, which do not change as a picture is moved or turned.

    Args:
      image: `[H, W]`.

    Returns:
      `[7]`; NaN for an image of mass 0. The seventh changes its sign as the
      picture is mirrored; with rows first it is minus that of programs that
      name columns first, such as OpenCV.

    Raises:
      ValueError: the image is not of rank 2.

    Source: Hu, Visual pattern recognition by moment invariants, IRE
    Transactions on Information Theory 1962.
    """
    if jnp.ndim(image) != 2:
        raise ValueError(
            f"hu_moments: image must be [rows, columns], got {jnp.shape(image)}"
        )
    nu = normalized_moments(image, order=3)
    total, apart, mixed = nu[2, 0] + nu[0, 2], nu[2, 0] - nu[0, 2], 2.0 * nu[1, 1]
    p, q = nu[3, 0] - 3.0 * nu[1, 2], 3.0 * nu[2, 1] - nu[0, 3]
    r, s = nu[3, 0] + nu[1, 2], nu[2, 1] + nu[0, 3]
    cube, edge = r * (r**2 - 3.0 * s**2), s * (3.0 * r**2 - s**2)
    return jnp.stack(
        [
            total,
            apart**2 + mixed**2,
            p**2 + q**2,
            r**2 + s**2,
            p * cube + q * edge,
            apart * (r**2 - s**2) + 2.0 * mixed * r * s,
            q * cube - p * edge,
        ]
    )


def centroids(image: ArrayLike) -> jax.Array:
    """Centre of mass of one image along each axis.

    `region_moments` has the centroids of labelled regions.

    Args:
      image: `[*S]`, rank 2 or 3; a mask gives the centre of its pixels.

    Returns:
      `[rank]` in pixels, rows first; NaN for an image of mass 0.

    Raises:
      ValueError: the rank is neither 2 nor 3.
    """
    image = _checked("centroids", image, 0)
    centre, known = _centre(image)
    middles = jnp.asarray([(n - 1) / 2 for n in image.shape], image.dtype)
    return jnp.where(known, centre + middles, jnp.nan)


class RegionMoments(NamedTuple):
    """Mass, centre and spread of every region, N = max_instances.

    Attributes:
      ids: `[N]` int32 labels in their own order, 0 in rows without a region.
      areas: `[N]` int32 numbers of pixels.
      masses: `[N]` sums of the image over the region; areas without an image.
      centroids: `[N, rank]` centre of mass in pixels; NaN for a mass of 0.
      second: `[N, rank, rank]` central second moments Σ x (y - ȳ)(y - ȳ)ᵀ; divided
        by the mass they are the covariance. NaN for a mass of 0.
      count: number of regions, beyond N too.
    """

    ids: jax.Array
    areas: jax.Array
    masses: jax.Array
    centroids: jax.Array
    second: jax.Array
    count: jax.Array


def region_moments(
    labels: ArrayLike, image: ArrayLike | None = None, max_instances: int = 256
) -> RegionMoments:
    """Area, mass, centroid and central second moments of every labelled region.

    By sums over segments, at a cost that does not depend on the number of
    regions. Regions beyond `max_instances`, in the order of their labels, have
    no row; the count is the true one.

    Args:
      labels: `[*S]` integers, 0 for background, any other value a region.
      image: `[*S]` weights of the pixels, or None for 1.
      max_instances: rows of the result.

    Returns:
      `RegionMoments`.

    Raises:
      TypeError: labels are neither of integers nor bool.
      ValueError: the rank is neither 2 nor 3, the shapes differ, or
        `max_instances` is below 1.
    """
    labels = checks.label_map("region_moments", labels)
    if image is None:
        image = jnp.ones(labels.shape, jnp.result_type(float))
    image = _checked("region_moments", image, 0)
    if image.shape != labels.shape:
        raise ValueError(
            f"region_moments: image must have the shape of labels {labels.shape}, "
            f"got {image.shape}"
        )
    rows, count = relabel(labels, max_instances=max_instances)
    # Background and what does not fit get an index that scatters drop.
    rows = jnp.where(rows == 0, max_instances + 1, rows).ravel() - 1
    weights = image.ravel()

    def total(values: jax.Array) -> jax.Array:
        start = jnp.zeros(max_instances, values.dtype)
        return start.at[rows].add(values, mode="drop")

    ids = jnp.zeros(max_instances, jnp.int32)
    ids = ids.at[rows].set(labels.ravel(), mode="drop")
    areas, masses = total(jnp.ones_like(rows)), total(weights)
    known = masses != 0
    safe = jnp.where(known, masses, 1.0)
    centres, apart = [], []
    for axis, length in enumerate(labels.shape):
        offset = _offsets(length, image.dtype)
        offset = lax.broadcast_in_dim(offset, labels.shape, (axis,)).ravel()
        centre = total(weights * offset) / safe
        apart.append(offset - centre.at[rows].get(mode="fill", fill_value=0))
        centres.append(centre + (length - 1) / 2)
    second = [[total(weights * one * other) for one in apart] for other in apart]
    second = jnp.moveaxis(jnp.stack([jnp.stack(row) for row in second]), -1, 0)
    return RegionMoments(
        ids=ids,
        areas=areas,
        masses=masses,
        centroids=jnp.where(known[:, None], jnp.stack(centres, axis=-1), jnp.nan),
        second=jnp.where(known[:, None, None], second, jnp.nan),
        count=count,
    )


def _checked(function: str, image: ArrayLike, order: int) -> jax.Array:
    image = checks.image(function, image)
    if order < 0:
        raise ValueError(f"{function}: order must be >= 0, got {order}")
    return image.astype(jnp.float64 if image.dtype == jnp.float64 else jnp.float32)


def _powers(x: jax.Array, order: int) -> jax.Array:
    """`[order + 1, len(x)]`; by products, whose slopes are finite at 0 too."""
    rows = [jnp.ones_like(x)]
    for _ in range(order):
        rows.append(rows[-1] * x)
    return jnp.stack(rows)


def _offsets(length: int, dtype) -> jax.Array:
    """Positions along an axis from its middle, which keeps digits in float32."""
    return jnp.asarray(np.arange(length) - (length - 1) / 2, dtype)


def project(image: jax.Array, powers: list[jax.Array]) -> jax.Array:
    """Sums of the image times a product of one row of `powers` per axis."""
    for power in powers:  # each takes the first axis and appends its own
        image = jnp.tensordot(image, power, ((0,), (1,)), precision="highest")
    return image


def _centre(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre of mass from the middle of the image, `[rank]`, and whether it exists."""
    pairs = [
        jnp.stack([jnp.ones(n, image.dtype), _offsets(n, image.dtype)])
        for n in image.shape
    ]
    found = project(image, pairs)
    mass = found[(0,) * image.ndim]
    known = mass != 0
    first = jnp.stack([found[tuple(row)] for row in np.eye(image.ndim, dtype=int)])
    return jnp.where(known, first, 0.0) / jnp.where(known, mass, 1.0), known
