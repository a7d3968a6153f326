"""Contrast-limited adaptive histogram equalisation of one picture."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def clahe(
    image: ArrayLike,
    clip_limit: float = 40.0,
    tiles: tuple[int, int] = (8, 8),
    *,
    tile_size: tuple[int, int] | None = None,
    bins: int | None = None,
) -> jax.Array:
    """The picture with its histogram flattened locally, noise kept in check.

    Every tile gets a table of new grey levels from its histogram, in which no
    level counts more than `clip_limit` times the mean; a pixel takes the mean of
    the four nearest tables, weighted by distance. Equals OpenCV's to one level.

    Args:
      image: `[H, W]` uint8, uint16, or floating point in [0, 1], which is rounded
        to `bins` levels.
      clip_limit: 1 and above; larger allows more contrast, 0 means no limit.
      tiles: number of tiles down and across. If one does not divide its side
        the picture is mirrored beyond its ends to a multiple, at both ends even
        where the other side would divide (one more tile's worth of rows, as in
        OpenCV).
      tile_size: pixels of a tile down and across, instead of `tiles`; there are
        as many tiles as fit, rounded up.
      bins: grey levels; None is 256, and 65536 for uint16.

    Returns:
      `[H, W]`: integers in the dtype of the image, else at least float32.

    Raises:
      TypeError: the image has another dtype.
      ValueError: it is not of rank 2, clip_limit is negative, a tile or bins is
        not positive, or integers have more levels than bins.

    Source: Zuiderveld, Graphics Gems IV, 1994, in the form of OpenCV.
    """
    image = jnp.asarray(image)
    levels, bins = _levels(image, bins)
    if not clip_limit >= 0:
        raise ValueError(f"clahe: clip_limit must be at least 0, got {clip_limit}")
    if tile_size is not None:
        tiles = tuple(
            -(-n // size) if size > 0 else 0
            for n, size in zip(image.shape, tile_size, strict=True)
        )
    if len(tiles) != 2 or min(tiles) < 1:
        raise ValueError(f"clahe: tiles must be two positive numbers, got {tiles}")
    padded = _padded(levels, tiles)
    size = tuple(n // t for n, t in zip(padded.shape, tiles, strict=True))
    tables = _tables(padded, tiles, size, clip_limit, bins)
    equalized = _mix(levels, tables, size, bins)
    if jnp.issubdtype(image.dtype, jnp.floating):
        dtype = jnp.float64 if image.dtype == jnp.float64 else jnp.float32
        return equalized.astype(dtype) / (bins - 1)
    return equalized.astype(image.dtype)


def _levels(image: jax.Array, bins: int | None) -> tuple[jax.Array, int]:
    """Grey levels from 0 to bins - 1 as int32."""
    if image.ndim != 2:
        raise ValueError(
            f"clahe: image must be [rows, columns], got {image.shape}; use jax.vmap "
            "for channels and batches"
        )
    if bins is None:
        bins = 65536 if image.dtype == jnp.uint16 else 256
    if bins < 2:
        raise ValueError(f"clahe: bins must be at least 2, got {bins}")
    if jnp.issubdtype(image.dtype, jnp.floating):
        image = jnp.clip(image.astype(jnp.float32), 0, 1)
        return jnp.round(image * (bins - 1)).astype(jnp.int32), bins
    if image.dtype not in (jnp.uint8, jnp.uint16):
        raise TypeError(
            "clahe: image must be uint8, uint16 or floating point in [0, 1], got "
            f"{image.dtype}"
        )
    if bins <= jnp.iinfo(image.dtype).max:
        raise ValueError(
            f"clahe: {image.dtype} has {jnp.iinfo(image.dtype).max + 1} levels, bins "
            f"must be at least as many, got {bins}"
        )
    return image.astype(jnp.int32), bins


def _padded(levels: jax.Array, tiles: tuple[int, int]) -> jax.Array:
    if all(n % t == 0 for n, t in zip(levels.shape, tiles, strict=True)):
        return levels
    widths = [(0, t - n % t) for n, t in zip(levels.shape, tiles, strict=True)]
    return jnp.pad(levels, widths, mode="reflect")


def _tables(levels, tiles, size, clip_limit: float, bins: int) -> jax.Array:
    """New level of every level in every tile, `[*tiles, bins]` int32."""
    area = math.prod(size)
    down, across = (np.arange(t * s) // s for t, s in zip(tiles, size, strict=True))
    tile = jnp.asarray(down[:, None] * tiles[1] + across, jnp.int32)
    counts = jnp.zeros(math.prod(tiles) * bins, jnp.int32)
    counts = counts.at[(tile * bins + levels).ravel()].add(1).reshape(-1, bins)
    if clip_limit > 0:
        counts = _clipped(counts, max(int(clip_limit * area / bins), 1), bins)
    # One float32 product, as in OpenCV: ties would round otherwise elsewhere.
    share = jnp.float32((bins - 1) / area)
    sums = jnp.cumsum(counts, axis=1, dtype=jnp.int32).astype(jnp.float32)
    table = jnp.clip(jnp.round(sums * share), 0, bins - 1)
    return table.astype(jnp.int32).reshape(*tiles, bins)


def _clipped(counts: jax.Array, limit: int, bins: int) -> jax.Array:
    """What exceeds the limit is dealt out evenly, the remainder at equal steps."""
    excess = jnp.sum(jnp.maximum(counts - limit, 0), axis=1, keepdims=True)
    rest = excess % bins
    step = jnp.maximum(bins // jnp.maximum(rest, 1), 1)
    index = jnp.arange(bins, dtype=jnp.int32)[None]
    extra = (index % step == 0) & (index // step < rest)
    return jnp.minimum(counts, limit) + excess // bins + extra.astype(jnp.int32)


def _mix(levels, tables, size, bins: int) -> jax.Array:
    """Tables of the four tiles around every pixel, mixed, as int32.

    The four levels share one or two words, so that a pixel looks up once. Their
    mean is taken in whole numbers where these are large enough, so that ties
    round the same however the program is compiled.
    """
    edges = jnp.pad(tables, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(jnp.uint32)
    corners = [
        edges[i : i + tables.shape[0] + 1, j : j + tables.shape[1] + 1]
        for i in (0, 1)
        for j in (0, 1)
    ]
    (down, y), (across, x) = (
        _places(n, s) for n, s in zip(levels.shape, size, strict=True)
    )
    cell = down[:, None] * (tables.shape[1] + 1) + across
    index = jnp.asarray(cell, jnp.int32) * bins + levels
    unit = 4 * math.prod(size)
    exact = (bins - 1) * unit <= jnp.iinfo(jnp.int32).max
    dtype = jnp.int32 if exact else jnp.float32
    shares = [
        jnp.asarray(a[:, None] * b, dtype)
        for a in (2 * size[0] - y, y)
        for b in (2 * size[1] - x, x)
    ]
    values = _look_up(corners, index, 8 if bins <= 256 else 16)
    mixed = sum(v.astype(dtype) * s for v, s in zip(values, shares, strict=True))
    if not exact:
        return jnp.round(mixed / unit).astype(jnp.int32)
    whole, rest = mixed // unit, mixed % unit
    up = (2 * rest > unit) | ((2 * rest == unit) & (whole % 2 == 1))
    return jnp.where(up, whole + 1, whole)


def _look_up(tables: list[jax.Array], index: jax.Array, bits: int) -> list[jax.Array]:
    """The entries of several tables of `bits` each at the same places."""
    values = []
    for first in range(0, len(tables), 32 // bits):
        group = tables[first : first + 32 // bits]
        word = sum(t << np.uint32(bits * i) for i, t in enumerate(group))
        found = word.ravel().at[index].get(mode="promise_in_bounds")
        for i in range(len(group)):
            values.append((found >> np.uint32(bits * i)) & np.uint32(2**bits - 1))
    return values


def _places(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tile before each pixel, counted from one before the first, and the share
    of the next one, in units of half a pixel of `size`."""
    halves = 2 * np.arange(length) - size
    return halves // (2 * size) + 1, halves % (2 * size)
