"""The light of a synthetic field: cells, clutter, background, noise, colour.

All draws here come after the layout and from other streams, so the labels of an
image are the same whether or not it is painted. Brightness is in grey values of
the red channel, lengths in native pixels (`blobs_layout`).
"""

import math

import numpy as np
from numpy.random import Generator

from fluojax.data.blobs_layout import (
    Cell,
    Kind,
    Layout,
    draw_outline,
    stream,
    window,
)

_BLUR = 2.2
_GLOW = 5.0


def paint(seed: int, layout: Layout) -> np.ndarray:
    """The picture uint8 `[H, W, 3]` of a layout."""
    rng = stream(seed, Kind.LIGHT)
    rows, cols = _grid(layout)
    tissue = _tissue(layout, rows, cols)
    light = _background(rng, layout, rows, cols) * tissue
    light += _stripe(rng, layout, rows, cols)
    clutter = _filaments(seed, rng, layout) + _specks(rng, layout)
    light += clutter * tissue
    light += _cells(seed, rng, layout)
    light = gaussian_filter(light, _BLUR * layout.scale)
    return _expose(rng, light * _vignette(rows, cols))


def gaussian_filter(image: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of `sigma` pixels along all axes, three sigma wide, mirrored."""
    weights = _kernel(sigma)
    reach = len(weights) // 2
    for axis, length in enumerate(image.shape):
        widths = [(reach, reach) if i == axis else (0, 0) for i in range(image.ndim)]
        padded = np.pad(image, widths, mode="symmetric")
        before = (slice(None),) * axis
        image = sum(
            weight * padded[(*before, slice(i, i + length))]
            for i, weight in enumerate(weights)
        )
    return image


def smooth_noise(rng: Generator, size: tuple[int, int], sigma: float) -> np.ndarray:
    """White noise filtered by a Gaussian of `sigma` pixels, of variance one.

    Beyond four pixels it is drawn on a coarser grid, two nodes to a sigma, and
    interpolated linearly.
    """
    pitch = max(1.0, sigma / 2.0)
    nodes = tuple(math.ceil(n / pitch) + 1 for n in size) if sigma > 4 else size
    reached = sigma / pitch if sigma > 4 else sigma
    noise = rng.standard_normal(nodes, dtype=np.float32)
    noise = gaussian_filter(noise, reached) / np.float32((_kernel(reached) ** 2).sum())
    if sigma <= 4:
        return noise
    down, across = (
        _interpolation(n, k, pitch) for n, k in zip(size, nodes, strict=True)
    )
    return down @ noise @ across.T


def _kernel(sigma: float) -> np.ndarray:
    reach = max(1, math.ceil(3.0 * sigma))
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / max(sigma, 1e-3)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _interpolation(length: int, nodes: int, pitch: float) -> np.ndarray:
    """The matrix `[length, nodes]` that reads a grid of `pitch` at every pixel."""
    position = np.arange(length) / pitch
    hats = 1.0 - np.abs(position[:, None] - np.arange(nodes))
    return np.maximum(hats, 0.0).astype(np.float32)


def _grid(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the rows `[H, 1]` and columns `[1, W]` in native pixels."""
    rows, cols = ((np.arange(n) + 0.5) / layout.scale for n in layout.size)
    return rows[:, None].astype(np.float32), cols[None, :].astype(np.float32)


def _tissue(layout: Layout, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """1 in the tissue, little light outside."""
    if layout.tissue is None:
        return np.float32(1.0)
    inside = layout.tissue.contains(rows, cols)
    return np.where(inside, np.float32(1.0), np.float32(0.1))


def _vignette(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """1 - 0.45 r² with r = 1 in the corners, over its mean 0.85."""
    center = np.array([rows.mean(), cols.mean()])
    corner = center @ center
    squared = (rows - center[0]) ** 2 + (cols - center[1]) ** 2
    return ((1.0 - 0.45 * squared / corner) / 0.85).astype(np.float32)


def _background(
    rng: Generator, layout: Layout, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """Clouds, a tilt, a fine texture and dark vessels around one level."""
    level = np.clip(rng.lognormal(math.log(4.5), 0.65), 0.8, 25.0)
    tilt = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    light = 1.0 + 0.35 * smooth_noise(rng, layout.size, 140.0 * layout.scale)
    light += tilt[0] * (rows / rows.mean() - 1) + tilt[1] * (cols / cols.mean() - 1)
    light *= 1.0 + 0.04 * smooth_noise(rng, layout.size, 3.0 * layout.scale)
    for _ in range(rng.poisson(layout.crowding)):
        light *= 1.0 - rng.uniform(0.3, 0.8) * _spot(rng, rows, cols, (12.0, 60.0))
    return np.float32(level) * np.maximum(light, 0.1)


def _spot(
    rng: Generator,
    rows: np.ndarray,
    cols: np.ndarray,
    widths: tuple[float, float],
) -> np.ndarray:
    """An elongated spot with a flat middle and soft ends, at most 1."""
    row, col = rng.uniform(0, 2 * rows.mean()), rng.uniform(0, 2 * cols.mean())
    short = rng.uniform(*widths)
    long = short * rng.uniform(1.0, 6.0)
    angle = rng.uniform(0.0, np.pi)
    sin, cos = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    y, x = rows - np.float32(row), cols - np.float32(col)
    squared = ((x * cos + y * sin) / long) ** 2 + ((y * cos - x * sin) / short) ** 2
    return np.exp(-(squared**2))


def _stripe(
    rng: Generator, layout: Layout, rows: np.ndarray, cols: np.ndarray
) -> np.ndarray:
    """In one image of twenty a bright, grainy band along a border."""
    if rng.random() >= 0.05:
        return np.float32(0.0)
    height, width = (n / layout.scale for n in layout.size)
    side = rng.integers(4)
    slope = rng.uniform(-0.25, 0.25)
    apart = (rows, height - rows, cols, width - cols)[side]
    along = (cols - width / 2, rows - height / 2)[side // 2]
    spread = rng.uniform(0.03, 0.08) * width
    band = np.exp(-0.5 * ((apart + slope * along) / spread) ** 2)
    grain = 1.0 + 0.25 * smooth_noise(rng, layout.size, 6.0 * layout.scale)
    return (rng.uniform(50.0, 190.0) * band * grain).astype(np.float32)


def _filaments(seed: int, rng: Generator, layout: Layout) -> np.ndarray:
    """Thin curved fibres, a quarter of the images full of them."""
    rate = 40 if rng.random() < 0.25 else 5
    fibres = [
        _filament(stream(seed, Kind.FILAMENT, k), layout)
        for k in range(rng.poisson(rate * layout.crowding))
    ]
    if not fibres:
        return np.zeros(layout.size, np.float32)
    points, light = (np.concatenate(part) for part in zip(*fibres, strict=True))
    return _splat(points, light, layout.size)


def _filament(rng: Generator, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Points `[N, 2]` in pixels of the picture, and the light of each.

    The path turns at nodes eight native pixels apart and is read every half
    pixel; the light of a stretch is its length times a width of three.
    """
    length = rng.uniform(40.0, 380.0)
    brightness = rng.lognormal(math.log(40.0), 0.5)
    nodes = math.ceil(length / 8.0) + 1
    bend = 0.03 * rng.standard_normal() + 0.10 * rng.standard_normal(nodes)
    angle = rng.uniform(0.0, 2.0 * np.pi) + np.cumsum(bend)
    steps = 8.0 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    start = rng.random(2) * np.array(layout.size)
    path = start + np.cumsum(steps, axis=0) * layout.scale
    beads = brightness * np.clip(1.0 + 0.5 * rng.standard_normal(nodes), 0.1, 3.0)
    beads *= np.sin(np.pi * (np.arange(nodes) + 0.5) / nodes)
    at = np.arange(0.0, nodes - 1, 0.5 / (8.0 * layout.scale))
    read = [np.interp(at, np.arange(nodes), part) for part in (*path.T, beads)]
    return np.stack(read[:2], axis=1), 0.5 * 3.0 * layout.scale * read[2]


def _splat(points: np.ndarray, light: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The light of points shared between the four pixels around each."""
    corner = np.floor(points - 0.5).astype(int)
    part = points - 0.5 - corner
    canvas = np.zeros(size[0] * size[1])
    for dy in (0, 1):
        for dx in (0, 1):
            row, col = corner[:, 0] + dy, corner[:, 1] + dx
            share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            seen = (row >= 0) & (row < size[0]) & (col >= 0) & (col < size[1])
            index = (row * size[1] + col)[seen]
            canvas += np.bincount(index, (share * light)[seen], canvas.size)
    return canvas.reshape(size).astype(np.float32)


def _specks(rng: Generator, layout: Layout) -> np.ndarray:
    """Bright dots of about four native pixels."""
    count = rng.poisson(4 * layout.crowding)
    points = rng.random((count, 2)) * np.array(layout.size)
    light = rng.lognormal(math.log(120.0), 0.5, count) * (4.0 * layout.scale) ** 2
    return _splat(points, light, layout.size)


def _cells(seed: int, rng: Generator, layout: Layout) -> np.ndarray:
    """Labelled cells with their glow, and dim ones out of focus, unlabelled."""
    light = np.zeros(layout.size, np.float32)
    for k in range(rng.poisson(6 * layout.crowding)):
        own = stream(seed, Kind.DIM_CELL, k)
        center = own.random(2) * np.array(layout.size) / layout.scale
        if layout.tissue is None or layout.tissue.contains(*center):
            _lay(light, layout, *_dim(own, Cell(center, draw_outline(own)), layout))
    for k, cell in enumerate(layout.cells):
        own = stream(seed, Kind.CELL_LIGHT, k)
        _lay(light, layout, *_bright(own, cell, layout))
    return light


def _lay(
    light: np.ndarray, layout: Layout, where: tuple[slice, slice], part: np.ndarray
) -> None:
    """The brighter of two cells is seen where they overlap."""
    light[where] = np.maximum(light[where], part)


def _bright(
    rng: Generator, cell: Cell, layout: Layout
) -> tuple[tuple[slice, slice], np.ndarray]:
    brightness = np.clip(rng.lognormal(math.log(95.0), 0.33), 32.0, 215.0)
    where, distance, border = window(cell, layout.size, layout.scale, 4 * _GLOW)
    inside = 0.45 + 0.75 * (1.0 - (distance / border) ** 2)
    if rng.random() < 0.35:
        grain = smooth_noise(rng, distance.shape, 4.0 * layout.scale)
        inside = inside * np.maximum(1.0 + 0.35 * grain, 0.1)
    outside = 0.45 * np.exp(-np.maximum(distance - border, 0.0) / _GLOW)
    return where, brightness * np.where(distance <= border, inside, outside)


def _dim(
    rng: Generator, cell: Cell, layout: Layout
) -> tuple[tuple[slice, slice], np.ndarray]:
    brightness = rng.lognormal(math.log(18.0), 0.45)
    margin = float(cell.outline.radii.max())
    where, distance, border = window(cell, layout.size, layout.scale, margin)
    return where, brightness * np.exp(-1.5 * (distance / border) ** 2)


def _expose(rng: Generator, red: np.ndarray) -> np.ndarray:
    """Colour by brightness, then photons and read-out noise, then 8 bits."""
    gain = rng.uniform(0.02, 0.06)  # grey values per electron
    hue = np.clip(0.62 + 0.14 * rng.standard_normal(), 0.2, 1.0)
    rise = np.sqrt(np.maximum(red, 0.0) / 90.0)
    green = red * np.minimum(0.15 + (hue - 0.15) * rise, 1.0)
    blue = red * np.minimum(0.01 + 0.06 * rise, 0.2)
    clean = np.maximum(np.stack([red, green, blue], axis=-1), 0.0)
    noisy = gain * rng.poisson(clean / gain)
    noisy += 0.25 * rng.standard_normal(clean.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
