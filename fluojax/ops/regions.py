"""Holes and small objects of one image `[*S]`, rank 2 or 3.

Areas are numbers of pixels (voxels). Connectivity is 1 (faces) by default for
objects and for holes; `components.label_components` says what it means.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.components import check_connectivity, label_components, relabel


def fill_holes(mask: ArrayLike, *, connectivity: int = 1) -> jax.Array:
    """The mask with its holes: background that is cut off from the image border.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      connectivity: of the background, 1 (faces) to the rank.

    Returns:
      `[*S]` bool.

    Raises:
      ValueError: the rank is neither 2 nor 3, or connectivity is not in it.
    """
    mask = checks.image("fill_holes", mask, "mask").astype(bool)
    connectivity = check_connectivity("fill_holes", connectivity, mask.ndim)
    # Outside the image everything is background, and in one piece.
    outside = jnp.pad(~mask, 1, constant_values=True)
    labels, _ = label_components(outside, connectivity)
    inside = (slice(1, -1),) * mask.ndim
    return labels[inside] != labels.ravel()[0]


def remove_small_holes(
    mask: ArrayLike, area: int, *, connectivity: int = 1
) -> jax.Array:
    """The mask with background components below `area` pixels filled.

    Also those at the image border, which `fill_holes` leaves.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      area: holes of this many pixels stay.
      connectivity: of the background, 1 (faces) to the rank.

    Returns:
      `[*S]` bool.

    Raises:
      ValueError: the rank is neither 2 nor 3, or connectivity is not in it.
    """
    mask = checks.image("remove_small_holes", mask, "mask").astype(bool)
    connectivity = check_connectivity("remove_small_holes", connectivity, mask.ndim)
    labels, _ = label_components(~mask, connectivity)
    return ~reaching(labels, area)


def remove_small_objects(
    mask: ArrayLike, area: int, *, connectivity: int = 1
) -> jax.Array:
    """The mask or label map without the objects below `area` pixels.

    Args:
      mask: `[*S]`. Of bool or float dtype it is a mask, non-zero is foreground
        and objects are its components; of integers it is a label map, and an
        object is all pixels of one value.
      area: objects of this many pixels stay.
      connectivity: of the components of a mask, 1 (faces) to the rank.

    Returns:
      `[*S]`: bool for a mask, the labels that stay (unchanged, int32) for a
      label map.

    Raises:
      ValueError: the rank is neither 2 nor 3, or connectivity is not in it.
    """
    mask = checks.image("remove_small_objects", mask, "mask")
    connectivity = check_connectivity("remove_small_objects", connectivity, mask.ndim)
    if jnp.issubdtype(mask.dtype, jnp.integer):
        labels = mask.astype(jnp.int32)
        return jnp.where(reaching(relabel(labels)[0], area), labels, 0)
    return reaching(label_components(mask, connectivity)[0], area)


def reaching(labels: jax.Array, area: int) -> jax.Array:
    """Pixels of the labels 1, 2, ... that have at least `area` pixels, `[*S]` bool."""
    areas = jnp.zeros(labels.size + 1, jnp.int32).at[labels].add(1)
    return (labels != 0) & (areas >= area)[labels]
