"""Resizing of one picture or label map `[*S]`, rank 2 or 3, by areas."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.components import relabel
from fluojax.ops.geometry import floating


def resize_area(image: ArrayLike, sizes: Sequence[int]) -> jax.Array:
    """A picture at another size, each pixel the mean of the area that it covers.

    If any axis grows, all axes are interpolated linearly between pixels in the
    way of OpenCV's `INTER_AREA`: whole pixels stay flat, and only those pixels
    mix that straddle a border of the original.

    Args:
      image: `[*S]` of any real dtype.
      sizes: the new size of every axis.

    Returns:
      `[*sizes]`: integers rounded to their dtype, else at least float32.

    Raises:
      ValueError: the rank is neither 2 nor 3, or sizes do not fit it.
    """
    image = checks.image("resize_area", image, "image")
    sizes = _check_sizes("resize_area", sizes, image.shape)
    grows = any(m > n for n, m in zip(image.shape, sizes, strict=True))
    taps = _between if grows else _covered
    result = floating(image)
    for axis, (n, m) in enumerate(zip(image.shape, sizes, strict=True)):
        if n != m:
            result = weighted_along(result, axis, *taps(n, m))
    if jnp.issubdtype(image.dtype, jnp.inexact):
        return result
    return jnp.round(result).astype(image.dtype)


def resize_instances(
    instances: ArrayLike, sizes: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """A label map at another size; labels stay what they are.

    A pixel of the result is foreground if at least half of the area that it
    covers is, and then belongs to the instance with the largest part of it, of
    equal ones to the lower id. Areas are exact whole numbers.

    Args:
      instances: `[*S]` integers, 0 for background.
      sizes: the new size of every axis.

    Returns:
      `[*sizes]` int32, and how many instances have no pixel any more (int32).

    Raises:
      TypeError: instances are neither integers nor bool.
      ValueError: the rank is neither 2 nor 3, sizes do not fit it, or areas in
        units of the common grid are beyond int32.
    """
    instances = checks.label_map("resize_instances", instances, "instances")
    sizes = _check_sizes("resize_instances", sizes, instances.shape)
    if np.prod(instances.shape, dtype=float) >= 2**30:
        raise ValueError(
            f"resize_instances: at most 2^30 pixels, got {instances.shape}; resize "
            "parts"
        )
    windows = [_window(n, m) for n, m in zip(instances.shape, sizes, strict=True)]
    labels, parts = [], []
    for offsets in itertools.product(*(range(len(pixels)) for pixels, _ in windows)):
        picked = [w[0][i] for w, i in zip(windows, offsets, strict=True)]
        shares = [w[1][i] for w, i in zip(windows, offsets, strict=True)]
        labels.append(instances[np.ix_(*picked)])
        area = shares[0]
        for share in shares[1:]:
            area = area[..., None] * share
        parts.append(jnp.asarray(area, jnp.int32))
    total = int(np.prod(instances.shape))
    resized = _largest_part(jnp.stack(labels), jnp.stack(parts), total)
    lost = relabel(instances)[1] - relabel(resized)[1]
    return resized, lost


def _largest_part(labels: jax.Array, parts: jax.Array, total: int) -> jax.Array:
    """The label with the largest part of every pixel, from candidates `[k, *S]`."""

    def compare(best, label):
        part, winner = best
        mine = jnp.sum(jnp.where(labels == label[None], parts, 0), axis=0)
        mine = jnp.where(label == 0, 0, mine)
        better = (mine > part) | ((mine == part) & (mine > 0) & (label < winner))
        return (jnp.where(better, mine, part), jnp.where(better, label, winner)), None

    nothing = jnp.zeros(labels.shape[1:], jnp.int32)
    (_, winner), _ = jax.lax.scan(compare, (nothing, nothing), labels)
    foreground = jnp.sum(jnp.where(labels != 0, parts, 0), axis=0)
    return jnp.where(2 * foreground >= total, winner, 0)


def _check_sizes(function: str, sizes, shape) -> tuple[int, ...]:
    sizes = tuple(int(m) for m in sizes)
    if len(sizes) != len(shape) or min(sizes) < 1:
        raise ValueError(
            f"{function}: sizes must be {len(shape)} positive numbers for an image "
            f"{tuple(shape)}, got {sizes}"
        )
    return sizes


def _window(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of n that each of m new ones touches, and by how much: `[k, m]`.

    In units of 1 / m of a pixel, so that a new pixel covers n.
    """
    start, stop = np.arange(m) * n, (np.arange(m) + 1) * n
    first = start // m
    count = int(np.max((stop - 1) // m - first)) + 1
    pixels = first + np.arange(count)[:, None]
    share = np.minimum(stop, (pixels + 1) * m) - np.maximum(start, pixels * m)
    return np.minimum(pixels, n - 1), np.maximum(share, 0)


def _covered(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Old pixels in the area of each new one, and their shares of it: `[k, m]`."""
    pixels, shares = _window(n, m)
    return pixels, shares / n


def _between(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The two old pixels of each new one where an axis grows: `[2, m]`."""
    scale = n / m
    new = np.arange(m)
    low = np.floor(new * scale).astype(int)
    part = (new + 1) - (low + 1) / scale
    part = np.where(part <= 0, 0.0, part - np.floor(part))
    pixels = np.minimum([low, low + 1], n - 1)
    return pixels, np.stack([1 - part, part])


def weighted_along(
    values: jax.Array, axis: int, pixels: np.ndarray, weights: np.ndarray
) -> jax.Array:
    """Sums over k of the values at `pixels` `[k, m]` along an axis, weighted."""
    shape = [1] * values.ndim
    shape[axis] = -1

    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array]):
        pixel, weight = tap
        return total + jnp.take(values, pixel, axis) * weight.reshape(shape), None

    sizes = (*values.shape[:axis], pixels.shape[1], *values.shape[axis + 1 :])
    taps = jnp.asarray(pixels, jnp.int32), jnp.asarray(weights, values.dtype)
    # Tap by tap: a CPU runs a sum over gathered values element by element.
    start = jnp.zeros(sizes, values.dtype)
    return jax.lax.scan(add, start, taps, unroll=min(len(pixels), 8))[0]
