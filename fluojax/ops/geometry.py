"""Sampling an image at given places: affine maps of pictures and label maps."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

Mode = Literal["constant", "nearest", "reflect", "mirror"]


def sample(
    image: ArrayLike, coords: ArrayLike, *, order: int = 1, mode: Mode = "reflect"
) -> jax.Array:
    """Values of one image at fractional positions.

    Args:
      image: `[*S]`, rank 2 or 3. Labels keep their dtype with `order=0`.
      coords: `[len(S), *T]` positions in pixels, rows first; pixel centres are
        whole numbers.
      order: 0 takes the nearest pixel, 1 interpolates linearly.
      mode: outside the image: "constant" 0, "nearest" edge pixel, "reflect"
        with the edge pixel repeated, "mirror" without, as in SciPy.

    Returns:
      `[*T]` in the dtype of the image for `order=0`, else floating point.

    Raises:
      ValueError: `coords` do not have one row per axis of the image.
    """
    image, coords = jnp.asarray(image), jnp.asarray(coords)
    if coords.shape[0] != image.ndim:
        raise ValueError(
            f"sample: coords must have one row per axis of image {image.shape}, "
            f"got {coords.shape}"
        )
    if order == 0:
        # Ties go up, as in SciPy; map_coordinates rounds them to even.
        coords = jnp.floor(coords + 0.5)
    return map_coordinates(image, list(coords), order=order, mode=mode)


def affine_coordinates(shape: tuple[int, int], matrix: ArrayLike) -> jax.Array:
    """Where each pixel of the result comes from: `matrix` about the image centre.

    Args:
      shape: rows and columns of the result and of the source.
      matrix: `[2, 2]`, maps an offset from the centre in the result to one in
        the source, rows first.

    Returns:
      `[2, rows, columns]` for `sample`.
    """
    matrix = jnp.asarray(matrix)
    centre = (jnp.array(shape, matrix.dtype) - 1) / 2
    rows, columns = (jnp.arange(n, dtype=matrix.dtype) for n in shape)
    dy, dx = jnp.meshgrid(rows - centre[0], columns - centre[1], indexing="ij")
    y = centre[0] + matrix[0, 0] * dy + matrix[0, 1] * dx
    x = centre[1] + matrix[1, 0] * dy + matrix[1, 1] * dx
    return jnp.stack([y, x])


def affine(
    image: ArrayLike, matrix: ArrayLike, *, order: int = 1, mode: Mode = "reflect"
) -> jax.Array:
    """One `[rows, columns]` image under `affine_coordinates(matrix)`."""
    image = jnp.asarray(image)
    coords = affine_coordinates(image.shape, matrix)
    return sample(image, coords, order=order, mode=mode)
