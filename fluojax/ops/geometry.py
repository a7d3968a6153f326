"""Sampling an image at given places: affine maps of pictures and label maps."""

import itertools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Mode = Literal["constant", "nearest", "reflect", "mirror", "grid-constant"]
MODES = ("constant", "nearest", "reflect", "mirror", "grid-constant")


def sample(
    image: ArrayLike, coords: ArrayLike, *, order: int = 1, mode: Mode = "reflect"
) -> jax.Array:
    """Values of one image at fractional positions.

    Args:
      image: `[*S]`, rank 2 or 3. Labels keep their dtype and values with
        `order=0`.
      coords: `[len(S), *T]` positions in pixels, rows first; pixel centres are
        whole numbers.
      order: 0 takes the nearest pixel (the higher of two equally near), 1
        interpolates linearly.
      mode: what lies outside, as in SciPy. "nearest": the edge pixel, "reflect":
        the mirror image with the edge pixel repeated, "mirror": without,
        "grid-constant": pixels of value 0, "constant": 0 everywhere beyond the
        outermost pixel centres, without a transition.

    Returns:
      `[*T]` in the dtype of the image for `order=0`, else at least float32.

    Raises:
      ValueError: `coords` do not have one row per axis of the image, or order or
        mode is unknown.
    """
    image, coords = jnp.asarray(image), jnp.asarray(coords)
    if image.ndim not in (2, 3):
        raise ValueError(
            "sample: image must be [rows, columns] or [depth, rows, columns], got "
            f"{image.shape}; use jax.vmap for channels and batches"
        )
    if coords.shape[:1] != (image.ndim,):
        raise ValueError(
            f"sample: coords must have one row per axis of image {image.shape}, "
            f"got {coords.shape}"
        )
    if order not in (0, 1) or mode not in MODES:
        raise ValueError(
            f"sample: order must be 0 or 1 and mode one of {', '.join(MODES)}, "
            f"got {order!r} and {mode!r}"
        )
    coords = floating(coords)
    values = (
        _nearest(image, coords, mode) if order == 0 else _linear(image, coords, mode)
    )
    if mode == "constant":
        values = jnp.where(_between_centres(image.shape, coords), values, 0)
    return values.astype(image.dtype) if order == 0 else values


def floating(values: ArrayLike) -> jax.Array:
    """`values` as float32, or as float64 if that is what they are."""
    values = jnp.asarray(values)
    return values if values.dtype == jnp.float64 else values.astype(jnp.float32)


def _nearest(image: jax.Array, coords: jax.Array, mode: Mode) -> jax.Array:
    # Half way up, as in SciPy; rounding to even would make stripes.
    return _pixels(image, jnp.floor(coords + 0.5).astype(jnp.int32), mode)


def _linear(image: jax.Array, coords: jax.Array, mode: Mode) -> jax.Array:
    image = floating(image)
    dtype = image.dtype
    lower = jnp.floor(coords)
    upper_share = (coords - lower).astype(dtype)
    lower = lower.astype(jnp.int32)
    total = jnp.zeros(coords.shape[1:], dtype)
    for corner in itertools.product((0, 1), repeat=image.ndim):
        shares = [u if up else 1 - u for u, up in zip(upper_share, corner, strict=True)]
        index = jnp.stack([i + up for i, up in zip(lower, corner, strict=True)])
        weight = shares[0]
        for share in shares[1:]:
            weight = weight * share
        total = total + weight * _pixels(image, index, mode)
    return total


def _pixels(image: jax.Array, index: jax.Array, mode: Mode) -> jax.Array:
    """Pixels at whole positions `[len(S), *T]`, also outside the image."""
    folded = [_fold(i, n, mode) for i, n in zip(index, image.shape, strict=True)]
    values = image[tuple(folded)]
    if mode != "grid-constant":
        return values
    inside = [(i >= 0) & (i < n) for i, n in zip(index, image.shape, strict=True)]
    return jnp.where(jnp.stack(inside).all(0), values, jnp.zeros((), image.dtype))


def _fold(index: jax.Array, length: int, mode: Mode) -> jax.Array:
    """Positions on an endless axis as positions in `[0, length)`."""
    if mode == "reflect":  # period 2n: 0 1 .. n-1 n-1 .. 1 0
        index = index % (2 * length)
        return jnp.minimum(index, 2 * length - 1 - index)
    if mode == "mirror":  # period 2n-2: 0 1 .. n-1 n-2 .. 1
        period = max(2 * length - 2, 1)
        index = index % period
        return jnp.minimum(index, period - index)
    return jnp.clip(index, 0, length - 1)


def _between_centres(shape: tuple[int, ...], coords: jax.Array) -> jax.Array:
    inside = [(c >= 0) & (c <= n - 1) for c, n in zip(coords, shape, strict=True)]
    return jnp.stack(inside).all(0)


def affine_coordinates(
    shape: tuple[int, ...], matrix: ArrayLike, places: ArrayLike | None = None
) -> jax.Array:
    """Where each pixel of the result comes from: `matrix` about the image centre.

    Args:
      shape: size of the result and of the source, rank 2 or 3.
      matrix: `[len(shape), len(shape)]`, maps an offset from the centre in the
        result to one in the source, axes in the order of `shape`.
      places: `[len(shape), *shape]` places to map, such as those of
        `elastic_coordinates`; None maps the pixels themselves.

    Returns:
      `[len(shape), *shape]` for `sample`; exact where the matrix holds only 0
      and +-1.

    Raises:
      ValueError: the matrix does not fit the shape.
    """
    matrix = jnp.asarray(matrix)
    rank = len(shape)
    if matrix.shape != (rank, rank):
        raise ValueError(
            f"affine: matrix must be {(rank, rank)} for an image {tuple(shape)}, "
            f"got {matrix.shape}"
        )
    matrix = floating(matrix)
    centres = [(n - 1) / 2 for n in shape]
    if places is None:
        axes = [
            jnp.arange(n, dtype=matrix.dtype) - c
            for n, c in zip(shape, centres, strict=True)
        ]
        offsets = jnp.meshgrid(*axes, indexing="ij")
    else:
        places = jnp.asarray(places, matrix.dtype)
        offsets = [p - c for p, c in zip(places, centres, strict=True)]
    # Written out: an accelerator's fast matrix product would move whole pixels.
    return jnp.stack(
        [
            centres[i] + sum(matrix[i, j] * offsets[j] for j in range(rank))
            for i in range(rank)
        ]
    )


def affine(
    image: ArrayLike, matrix: ArrayLike, *, order: int = 1, mode: Mode = "reflect"
) -> jax.Array:
    """One image `[*S]` under `affine_coordinates(matrix)`; see `sample`."""
    image = jnp.asarray(image)
    coords = affine_coordinates(image.shape, matrix)
    return sample(image, coords, order=order, mode=mode)
