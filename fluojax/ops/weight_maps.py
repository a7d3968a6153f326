"""Maps of pixel weights for losses, of one image `[*S]`, rank 2 or 3.

They depend on the labels alone: compute them once per image, not per step. Maps
are float32, or float64 where 64-bit types are enabled.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops import distance, morphology, regions
from fluojax.ops.components import label_components
from fluojax.ops.nearest import nearest_distances

# The largest value of the overcrowding map in the data set of its authors.
_OVERCROWDING_LARGEST = 3.8177538
# Sigmas from which on a Gaussian is 0, and is nothing beside 1.
_UNDERFLOW = {"float64": 38.7, "float32": 14.5}
_REACH = {"float64": 8.5, "float32": 6.5}
# Room for a component between the two reaches of a window, in pixels.
_ROOM = 64


def unet_border_weights(
    instances: ArrayLike,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    everywhere: bool = False,
    spacing: float | Sequence[float] | None = None,
) -> jax.Array:
    """Weight of narrow gaps between instances.

        w0 exp(-(d1 + d2)² / (2 sigma²))

    with the distances d1 and d2 to the nearest and second nearest instance. Add
    it to `class_balance_weights` or to 1. Fewer than two instances give 0.

    Args:
      instances: `[*S]` integers, 0 for background.
      w0: weight where two instances meet.
      sigma: width, in pixels or the unit of `spacing`.
      everywhere: also inside instances, where d1 is 0; otherwise they have 0.
      spacing: distance of neighbouring pixels, for all axes or one per axis.

    Returns:
      `[*S]` weights from 0 to w0.

    Raises:
      TypeError: instances are neither integers nor bool.
      ValueError: the rank is neither 2 nor 3, or spacing does not fit.

    Source: Ronneberger et al., U-Net, MICCAI 2015, equation 2 without the class
    term. The paper does not say whether the term holds inside cells; the
    default is that of most programs.
    """
    instances = checks.label_map("unet_border_weights", instances, "instances")
    spacing = distance.check_spacing("unet_border_weights", spacing, instances.ndim)
    reach = _UNDERFLOW[jnp.result_type(float).name] * float(sigma)
    distances = nearest_distances(instances, spacing, reach)
    weights = w0 * jnp.exp(jnp.square(distances[0] + distances[1]) / (-2 * sigma**2))
    return weights if everywhere else jnp.where(instances == 0, weights, 0.0)


def class_balance_weights(mask: ArrayLike) -> jax.Array:
    """Weights under which foreground and background sum to the same.

    Pixels of the rarer class have 1, those of the other the number of pixels of
    the rarer over their own. Where one class is missing all weights are 1.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.

    Returns:
      `[*S]` weights in (0, 1].

    Raises:
      ValueError: the rank is neither 2 nor 3.
    """
    mask = checks.image("class_balance_weights", mask, "mask").astype(bool)
    dtype = jnp.result_type(float)
    inside = jnp.sum(mask, dtype=jnp.int32)
    outside = mask.size - inside
    rarer = jnp.minimum(inside, outside)
    rarer = jnp.where(rarer == 0, mask.size, rarer).astype(dtype)
    own = jnp.where(mask, inside, outside).astype(dtype)
    return jnp.minimum(rarer / jnp.maximum(own, 1.0), 1.0)


def overcrowding_weights(
    mask: ArrayLike,
    *,
    sigma: float = 25.0,
    dilation: int = 100,
    min_object: int = 100,
    max_hole: int = 200,
    cell_factor: float = 1.5,
    normalizer: float = _OVERCROWDING_LARGEST,
) -> jax.Array:
    """Weight of places with many cells around.

        max(Σ exp(-d² / (2 sigma²)), 1), times `cell_factor` inside cells,

    over the face-connected components of the mask, d the distance to each, all
    divided by `normalizer`. Farther from the mask than `dilation` the sum is
    not taken and the weight is that of 1.

    The time grows with the number of components, the memory does not: each
    takes one distance transform of the window that its Gaussian reaches.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground; ids of a label map do
        not matter.
      sigma: width in pixels.
      dilation: side in pixels of the square (cube) about every pixel of the
        mask inside which the sum is taken.
      min_object: components of fewer pixels do not count, nor as cells.
      max_hole: holes of fewer pixels are cells.
      cell_factor: factor inside cells.
      normalizer: what weights are divided by; the default is the largest weight
        in the data set of the authors.

    Returns:
      `[*S]` weights, at least 1 / normalizer.

    Raises:
      ValueError: the rank is neither 2 nor 3, or `dilation` is below 1.

    Source: the weight maps of Morelli et al., Automating cell counting in
    fluorescent microscopy through deep learning with c-ResUnet, Scientific
    Reports 2021, from the logic of their program.
    """
    name = "overcrowding_weights"
    mask = checks.image(name, mask, "mask").astype(bool)
    if dilation < 1:
        raise ValueError(f"{name}: dilation must be >= 1 pixel, got {dilation}")
    mask = regions.remove_small_objects(mask, min_object)
    mask = regions.remove_small_holes(mask, max_hole)
    near = morphology.maximum_filter(mask, dilation)
    crowd = jnp.maximum(_gaussian_sum(mask, float(sigma), int(min_object)), 1.0)
    weights = jnp.where(near, crowd, 1.0) * jnp.where(mask, cell_factor, 1.0)
    return weights / normalizer


@functools.partial(jax.jit, static_argnames=("sigma", "least"))
def _gaussian_sum(mask: jax.Array, sigma: float, least: int) -> jax.Array:
    """Sum over face-connected components of exp(-d² / (2 sigma²)).

    No component has fewer than `least` pixels.
    """
    labels, count = label_components(mask, 1)
    reach = math.ceil(_REACH[jnp.result_type(float).name] * sigma)
    window = tuple(min(n, 2 * reach + _ROOM) for n in mask.shape)
    low, high = _extents(labels, mask.size // max(least, 1) + 1)
    whole = np.equal(window, mask.shape)

    def add(sizes: tuple[int, ...], label: jax.Array, total: jax.Array) -> jax.Array:
        last = jnp.asarray(mask.shape) - jnp.asarray(sizes)
        start = jnp.clip(low[label] - reach, 0, last)
        other = lax.dynamic_slice(labels, start, sizes) != label
        squares = distance.squares_up_to(other, reach)
        near = lax.dynamic_slice(total, start, sizes)
        near = near + jnp.exp(squares / (-2.0 * sigma**2))
        return lax.dynamic_update_slice(total, near, start)

    def add_one(label: jax.Array, total: jax.Array) -> jax.Array:
        in_window = functools.partial(add, window)
        in_image = functools.partial(add, mask.shape)
        room = jnp.asarray(window) - 2 * reach
        fits = jnp.all((high[label] - low[label] < room) | whole)
        return lax.cond(fits, in_window, in_image, label, total)

    start = jnp.zeros(mask.shape, jnp.result_type(float))
    return lax.fori_loop(1, count + 1, add_one, start)


def _extents(labels: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """First and last index of every label up to `most` along each axis: `[n, rank]`."""
    flat = labels.ravel()
    places = [x.ravel() for x in jnp.indices(labels.shape, jnp.int32)]
    low = [jax.ops.segment_min(x, flat, most + 1) for x in places]
    high = [jax.ops.segment_max(x, flat, most + 1) for x in places]
    return jnp.stack(low, axis=-1), jnp.stack(high, axis=-1)
