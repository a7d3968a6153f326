"""Maxima that stand out from what surrounds them.

One image `[*S]`, rank 2 or 3. Neighbours share a face, as in `watershed`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.components import offsets, shifted
from fluojax.ops.morphology import least


def reconstruct(marker: ArrayLike, mask: ArrayLike) -> jax.Array:
    """The marker, dilated below the mask until nothing changes.

    Args:
      marker: `[*S]` of any real dtype; what exceeds the mask is cut off.
      mask: `[*S]`, the upper bound.

    Returns:
      `[*S]` of their common dtype.

    Raises:
      ValueError: the rank is neither 2 nor 3, or shapes differ.

    Source: Vincent, IEEE Transactions on Image Processing 2(2), 1993.
    """
    marker = checks.image("reconstruct", marker, "marker")
    mask = checks.image("reconstruct", mask, "mask")
    if marker.shape != mask.shape:
        raise ValueError(
            f"reconstruct: mask must have the shape of the marker {marker.shape}, "
            f"got {mask.shape}"
        )
    dtype = jnp.promote_types(marker.dtype, mask.dtype)
    mask = mask.astype(dtype)
    return _until_stable(
        lambda x: jnp.minimum(_highest_about(x), mask),
        jnp.minimum(marker.astype(dtype), mask),
    )


def h_maxima(
    image: ArrayLike, h: ArrayLike, *, mask: ArrayLike | None = None
) -> jax.Array:
    """Pixels of the maxima from which every way to a higher place falls by `h`.

    Lesser maxima, which noise makes, are no maxima once the image is lowered by
    `h` and reconstructed below itself; those that are left form plateaus. On an
    image that rises nowhere by more than `h` all pixels are one plateau.

    Args:
      image: `[*S]` of any real dtype.
      h: height in units of the image, at least 0; 0 takes all regional maxima.
      mask: `[*S]` of any dtype; maxima are sought among its non-zero pixels as if
        there were no others. None is all.

    Returns:
      `[*S]` bool.

    Raises:
      ValueError: the rank is neither 2 nor 3, or shapes differ.

    Source: extended maxima (Soille, Morphological Image Analysis, 2003, 6.3.4).
    scikit-image's `h_maxima` has corners for neighbours by default.
    """
    image = checks.image("h_maxima", image)
    inside = jnp.ones(image.shape, bool)
    if mask is not None:
        inside = checks.image("h_maxima", mask, "mask").astype(bool)
        if inside.shape != image.shape:
            raise ValueError(
                f"h_maxima: mask must have the shape of the image {image.shape}, "
                f"got {inside.shape}"
            )
    lowest = jnp.asarray(least(image.dtype), image.dtype)
    image = jnp.where(inside, image, lowest)
    height = jnp.asarray(h, image.dtype)
    # Integers must not wrap around below the least one.
    lowered = jnp.where(image >= lowest + height, image - height, lowest)
    return _regional_maxima(reconstruct(lowered, image), inside)


def _regional_maxima(x: jax.Array, inside: jax.Array) -> jax.Array:
    """Plateaus without a higher neighbour."""
    neighbours = list(_about(x))
    below = ~inside | _any(other > x for other in neighbours)
    level = [inside & (other == x) for other in neighbours]

    def spread(below: jax.Array) -> jax.Array:
        around = zip(level, _about(below), strict=True)
        return below | _any(same & other for same, other in around)

    return ~_until_stable(spread, below)


def _until_stable(step, x: jax.Array) -> jax.Array:
    """`step` again and again, until a turn of two changes nothing."""

    def turn(state):
        _, old = state
        new = step(step(old))
        return jnp.any(new != old), new

    return lax.while_loop(lambda state: state[0], turn, (True, x))[1]


def _highest_about(x: jax.Array) -> jax.Array:
    for other in _about(x):
        x = jnp.maximum(x, other)
    return x


def _about(x: jax.Array):
    """The image as each pixel's neighbours see it, the border repeated outside."""
    padded = jnp.pad(x, 1, mode="edge")
    for offset in offsets(x.ndim, 1):
        yield shifted(padded, offset)


def _any(conditions) -> jax.Array:
    found = False
    for condition in conditions:
        found |= condition
    return found
