"""Where the cells of a synthetic field lie and what shape they have.

Lengths are pixels of a native field of 1600 x 1200; a picture shows
`size / scale` of them. Points are (row, column), angles run from columns to rows.

Random numbers: every object has a stream of its own, named by the seed of the
image, its kind and its index, so that a change in one object shifts no other.
"""

import dataclasses
import enum
import math

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

NATIVE_PIXELS = 1600 * 1200
EMPTY_SHARE = 0.18
MAX_CELLS = 72
_ANGLES = np.linspace(0.0, 2.0 * np.pi, 257)


class Kind(enum.IntEnum):
    """What a stream of random numbers is for."""

    FIELD = 0
    CELL = 1
    CELL_LIGHT = 2
    DIM_CELL = 3
    FILAMENT = 4
    LIGHT = 5
    LABELS = 6


def stream(seed: int, kind: enum.IntEnum, index: int = 0) -> Generator:
    """The random numbers of one object of one image."""
    return Generator(PCG64(SeedSequence(seed, spawn_key=(int(kind), index))))


@dataclasses.dataclass(frozen=True)
class Outline:
    """A star-shaped cell: distances from the centre to the border, by angle."""

    diameter: float
    radii: np.ndarray  # at `_ANGLES`, the last equal to the first

    def radius(self, angle: np.ndarray | float) -> np.ndarray:
        """Native pixels from the centre to the border in the direction `angle`."""
        return np.interp(np.mod(angle, 2.0 * np.pi), _ANGLES, self.radii)


@dataclasses.dataclass(frozen=True)
class Cell:
    """An outline at its place."""

    center: np.ndarray
    outline: Outline


@dataclasses.dataclass(frozen=True)
class Tissue:
    """The half plane `normal · (p - middle) + waves <= offset`; None: everywhere."""

    middle: np.ndarray
    normal: np.ndarray
    offset: float
    lengths: np.ndarray
    heights: np.ndarray
    phases: np.ndarray

    def contains(self, row: np.ndarray | float, col: np.ndarray | float) -> np.ndarray:
        """True inside; arguments broadcast."""
        row, col = row - self.middle[0], col - self.middle[1]
        along = row * self.normal[1] - col * self.normal[0]
        edge = row * self.normal[0] + col * self.normal[1]
        for length, height, phase in zip(
            self.lengths, self.heights, self.phases, strict=True
        ):
            edge = edge + height * np.sin(2.0 * np.pi * along / length + phase)
        return edge <= self.offset


@dataclasses.dataclass(frozen=True)
class Layout:
    """A field: its pixels, its tissue, its cells and the map of their ids.

    `cells[k]` has id k + 1 in `instances`; where two overlap the earlier one is
    in front.
    """

    size: tuple[int, int]
    scale: float
    crowding: float  # area in native fields, times the density asked for
    tissue: Tissue | None
    cells: tuple[Cell, ...]
    instances: np.ndarray


def draw_layout(
    seed: int, size: tuple[int, int], scale: float, density: float, touching: float
) -> Layout:
    """The layout of image `seed`; see `blobs.sample`."""
    rng = stream(seed, Kind.FIELD)
    extent = np.array(size) / scale
    crowding = density * extent.prod() / NATIVE_PIXELS
    full = rng.random() >= EMPTY_SHARE
    drawn = round(math.exp(1.88 + 0.85 * rng.standard_normal()) * crowding)
    most = max(1, round(MAX_CELLS * crowding))
    count = min(max(drawn, 1), most) if full else 0
    tissue = _draw_tissue(rng, extent)
    hubs = [
        (_point(rng, extent, tissue), rng.uniform(0.10, 0.28) * extent[1])
        for _ in range(rng.integers(1, 4))
    ]
    placed: list[Cell] = []
    for k in range(count):
        own = stream(seed, Kind.CELL, k)
        placed.append(
            _place(own, draw_outline(own), extent, tissue, hubs, placed, touching)
        )
    cells, instances = _rasterize(placed, size, scale)
    return Layout(size, scale, crowding, tissue, cells, instances)


def draw_outline(rng: Generator) -> Outline:
    """An ellipse with a wavy border and, mostly, one to three processes."""
    diameter = min(max(rng.lognormal(3.445, 0.39), 10.0), 110.0)
    aspect = min(1.12 + math.exp(math.log(0.37) + 0.55 * rng.standard_normal()), 3.2)
    turn = rng.uniform(0.0, np.pi)
    angles = _ANGLES - turn
    radius = 0.5 * diameter
    long, short = radius * math.sqrt(aspect), radius / math.sqrt(aspect)
    ellipse = long * short / np.hypot(short * np.cos(angles), long * np.sin(angles))
    orders = np.arange(2, 8)[:, None]
    heights = 0.105 * rng.standard_normal((6, 1)) / np.sqrt(orders - 1)
    phases = rng.uniform(0.0, 2.0 * np.pi, (6, 1))
    waves = 1.0 + (heights * np.cos(orders * angles + phases)).sum(0)
    radii = ellipse * np.clip(waves, 0.35, 2.0)
    count = rng.integers(1, 4) if rng.random() < 0.8 else 0
    for _ in range(count):
        where = np.pi * rng.integers(2) + 0.45 * rng.standard_normal()
        height, width = rng.uniform(0.3, 1.0) * radius, rng.uniform(0.10, 0.20)
        apart = np.mod(angles - where + np.pi, 2.0 * np.pi) - np.pi
        radii = radii + height * np.exp(-0.5 * (apart / width) ** 2)
    return Outline(diameter, radii)


def window(
    cell: Cell, size: tuple[int, int], scale: float, margin: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The pixels within `margin` native pixels of a cell.

    Returns:
      Slices into the picture; the distance of each pixel there from the centre;
      the distance of the border in its direction (both native pixels).
    """
    reach = cell.outline.radii.max() + margin
    low = np.floor((cell.center - reach) * scale).astype(int)
    high = np.ceil((cell.center + reach) * scale).astype(int)
    rows, cols = (
        np.arange(max(a, 0), min(b, n)) for a, b, n in zip(low, high, size, strict=True)
    )
    y = ((rows + 0.5) / scale - cell.center[0])[:, None]
    x = ((cols + 0.5) / scale - cell.center[1])[None, :]
    where = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
    return where, np.hypot(y, x), cell.outline.radius(np.arctan2(y, x))


def noisy_labels(seed: int, layout: Layout) -> np.ndarray:
    """The labels of a careless annotator, ids as in `layout.instances`.

    One cell in twenty is missing, borders wander by a smooth error of standard
    deviation `0.6` native pixels (rarely over 1.5), and a picture has on average
    a quarter of a stray pixel, each an instance of its own.
    """
    rng = stream(seed, Kind.LABELS)
    labels = np.zeros_like(layout.instances)
    for identity, cell in enumerate(layout.cells, start=1):
        missing = rng.random() < 0.05
        orders = np.arange(8)[:, None]
        heights = 0.6 * rng.standard_normal((8, 1)) * math.sqrt(2 / 8)
        phases = rng.uniform(0.0, 2.0 * np.pi, (8, 1))
        error = (heights * np.cos(orders * _ANGLES + phases)).sum(0)
        outline = dataclasses.replace(cell.outline, radii=cell.outline.radii + error)
        if not missing:
            _fill(labels, Cell(cell.center, outline), identity, layout.scale)
    for speck in range(rng.poisson(0.25 * layout.crowding)):
        row, col = (rng.integers(n) for n in layout.size)
        if labels[row, col] == 0:
            labels[row, col] = len(layout.cells) + 1 + speck
    return labels


def _draw_tissue(rng: Generator, extent: np.ndarray) -> Tissue | None:
    angle = rng.uniform(0.0, 2.0 * np.pi)
    normal = np.array([math.sin(angle), math.cos(angle)])
    half = 0.5 * np.abs(normal) @ extent
    lengths = rng.uniform(60.0, 600.0, 5)
    heights = 0.05 * lengths * rng.standard_normal(5)
    tissue = Tissue(
        middle=0.5 * extent,
        normal=normal,
        offset=rng.uniform(0.1, 0.85) * half,
        lengths=lengths,
        heights=heights,
        phases=rng.uniform(0.0, 2.0 * np.pi, 5),
    )
    return tissue if rng.random() < 0.3 else None


def _point(rng: Generator, extent: np.ndarray, tissue: Tissue | None) -> np.ndarray:
    """A uniform point of the tissue; after fifty misses the middle of the field."""
    for _ in range(50):
        point = rng.random(2) * extent
        if tissue is None or tissue.contains(*point):
            return point
    return 0.5 * extent


def _place(
    rng: Generator,
    outline: Outline,
    extent: np.ndarray,
    tissue: Tissue | None,
    hubs: list[tuple[np.ndarray, float]],
    placed: list[Cell],
    touching_share: float,
) -> Cell:
    """A place that touches an earlier cell, lies near a hub, or is anywhere.

    A proposal outside the tissue or too close to an earlier cell is drawn again,
    thirty times; then any point of the tissue will do.
    """
    touching = rng.random() < touching_share
    gathered = rng.random() < 0.75
    for _ in range(30):
        if touching and placed:
            center = _beside(rng, outline, placed[rng.integers(len(placed))])
        elif gathered:
            middle, spread = hubs[rng.integers(len(hubs))]
            center = middle + spread * rng.standard_normal(2)
        else:
            center = rng.random(2) * extent
        inside = np.all((center >= 0) & (center < extent))
        if not inside or (tissue is not None and not tissue.contains(*center)):
            continue
        if (touching and placed) or _clear(center, outline, placed):
            return Cell(center, outline)
    return Cell(_point(rng, extent, tissue), outline)


def _beside(rng: Generator, outline: Outline, other: Cell) -> np.ndarray:
    angle = rng.uniform(0.0, 2.0 * np.pi)
    reach = other.outline.radius(angle) + outline.radius(angle + np.pi)
    direction = np.array([math.sin(angle), math.cos(angle)])
    return other.center + rng.uniform(0.86, 1.02) * reach * direction


def _clear(center: np.ndarray, outline: Outline, placed: list[Cell]) -> bool:
    return all(
        math.dist(center, cell.center)
        >= 0.62 * 0.5 * (outline.diameter + cell.outline.diameter)
        for cell in placed
    )


def _rasterize(
    placed: list[Cell], size: tuple[int, int], scale: float
) -> tuple[tuple[Cell, ...], np.ndarray]:
    """The cells of which at least a pixel is seen, and the map of their ids."""
    instances = np.zeros(size, np.int32)
    seen: list[Cell] = []
    for cell in placed:
        if _fill(instances, cell, len(seen) + 1, scale):
            seen.append(cell)
    return tuple(seen), instances


def _fill(labels: np.ndarray, cell: Cell, identity: int, scale: float) -> bool:
    """Writes `identity` on the free pixels of the cell; whether there were any."""
    where, distance, border = window(cell, labels.shape, scale, 1.0 / scale)
    free = (distance <= border) & (labels[where] == 0)
    labels[where][free] = identity
    return bool(free.any())
