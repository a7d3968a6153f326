"""`lesion3d_synth`: a generator of heads with lesions, in 3-D.

An ellipsoid of white matter under a folded rim of grey matter, with two
ventricles, holds one or several lesions. Where there are several, the largest is
eleven times the smallest in the median and more than fifty times in a fifth of
the heads: the imbalance between instances that instance losses are about. Needs
no download. NumPy only; one seed gives the same bytes in every process of one
NumPy build.

Before those that a head cannot hold are drawn again, total volumes have a median
of 5 cm3 (5 % below 0.2, 5 % above 125), as published for lesions of strokes; 47 %
of the heads have a single lesion.

Lengths are millimetres, points (depth, row, column). As in `blobs_layout`, every
object has a stream of random numbers of its own.
"""

import enum
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from fluojax.data.blobs_appearance import gaussian_filter
from fluojax.data.blobs_layout import stream

SPLITS = {
    "train": range(0, 200),
    "val": range(50_000, 50_040),
    "test": range(100_000, 100_060),
}
WHITE, GREY, FLUID = 0.75, 0.55, 0.15
_FILLED = 0.85  # share of each axis that the brain takes
_LARGEST = 0.20  # share of the brain above which lesions are drawn again
_SMALLEST_MM3 = 10.0
_NOISE = 0.03
_BLUR_MM = 1.0
_TRIES = 30


class Kind(enum.IntEnum):
    """What a stream of random numbers is for."""

    VOLUMES = 0
    LESION = 1
    TISSUE = 2
    NOISE = 3
    LIGHT = 4


class Sample(NamedTuple):
    """A volume and its labels.

    Attributes:
      image: uint8 `[D, H, W, 1]`; None for labels alone.
      instances: int32 `[D, H, W]`, 0 background, 1..N the lesions, large first.
      meta: `seed`, `spacing_mm`, `num_lesions`, `brain_mm3`: plain values.
    """

    image: np.ndarray | None
    instances: np.ndarray
    meta: dict[str, Any]


class Head(NamedTuple):
    """The voxels of a volume, measured against the brain's ellipsoid.

    Attributes:
      axes_mm: centres of the voxels from the middle, one array per axis, shaped
        to be broadcast.
      semi_mm: semi-axes of the brain.
      spacing_mm: side of a voxel.
      radius: distance of each voxel from the middle, 1 at the brain's border.
    """

    axes_mm: tuple[np.ndarray, ...]
    semi_mm: np.ndarray
    spacing_mm: float
    radius: np.ndarray

    @property
    def brain_mm3(self) -> float:
        return float(4 / 3 * math.pi * self.semi_mm.prod())


def sample(
    seed: int,
    *,
    size: tuple[int, int, int] = (96, 112, 96),
    spacing_mm: float = 1.0,
    labels_only: bool = False,
) -> Sample:
    """Volume number `seed`.

    Args:
      seed: at least 0; `SPLITS` has the ranges of the data set.
      size: voxels of the volume.
      spacing_mm: side of a voxel. A coarser one shows the same head in fewer
        voxels, as long as `size` shrinks with it.
      labels_only: leave out the picture, which takes most of the time. The
        labels are the same.

    Raises:
      ValueError: a negative seed, or a brain too small for any lesion.
    """
    if seed < 0 or min(size) < 1 or spacing_mm <= 0:
        raise ValueError(
            "sample: seed must be at least 0, size and spacing_mm positive, got seed "
            f"{seed}, size {size}, spacing_mm {spacing_mm}"
        )
    head = _head(size, spacing_mm)
    if _LARGEST * head.brain_mm3 < 10 * _SMALLEST_MM3:
        raise ValueError(
            f"sample: a brain of {head.brain_mm3:.0f} mm3 holds no lesion, size "
            f"{size} at {spacing_mm} mm; needs 500 mm3"
        )
    instances = _draw_lesions(seed, head)
    image = None if labels_only else _paint(seed, head, instances)
    meta = {
        "seed": seed,
        "spacing_mm": spacing_mm,
        "num_lesions": int(instances.max()),
        "brain_mm3": head.brain_mm3,
    }
    return Sample(image, instances, meta)


def draw_volumes(rng: Generator, largest_mm3: float) -> np.ndarray:
    """Volumes of the lesions of one head in mm3, large first; at least one.

    The total is log-normal, the number geometric, the shares a Dirichlet draw;
    a total above `largest_mm3` is drawn again, parts below 10 mm3 are dropped.
    """
    total = math.inf
    while total > largest_mm3:
        total = float(np.clip(10 ** (3.70 + 0.85 * rng.standard_normal()), 10, 5e5))
    count = min(int(rng.geometric(0.45)), 10)
    parts = np.sort(total * rng.dirichlet(np.full(count, 0.45)))[::-1]
    return parts[: max(int((parts >= _SMALLEST_MM3).sum()), 1)]


class _Shape(NamedTuple):
    """An ellipsoid with a wavy border, its size not yet fixed.

    Attributes:
      turn: `[3, 3]` rotation.
      semi_mm: semi-axes.
      waves: see `_waviness`.
    """

    turn: np.ndarray
    semi_mm: np.ndarray
    waves: tuple[np.ndarray, np.ndarray, np.ndarray]

    def depth(self, offsets: list[np.ndarray]) -> np.ndarray:
        """0 in the centre, growing outwards, equal all along a border."""
        turned = [
            sum(np.float32(t) * x for t, x in zip(row, offsets, strict=True))
            / np.float32(semi)
            for row, semi in zip(self.turn, self.semi_mm, strict=True)
        ]
        length = np.sqrt(sum(x * x for x in turned))
        apart = np.maximum(length, np.float32(1e-6))
        return length / _waviness([x / apart for x in turned], self.waves)


def _draw_lesions(seed: int, head: Head) -> np.ndarray:
    volumes = draw_volumes(stream(seed, Kind.VOLUMES), _LARGEST * head.brain_mm3)
    instances = np.zeros(head.radius.shape, np.int32)
    free = head.radius <= 1
    for k, volume in enumerate(volumes):
        voxels = max(round(volume / head.spacing_mm**3), 1)
        inside = _place(stream(seed, Kind.LESION, k), voxels, head, free)
        instances[inside] = k + 1
        free &= ~_grown(inside)  # a voxel stays between lesions
    return instances


def _place(rng: Generator, voxels: int, head: Head, free: np.ndarray) -> np.ndarray:
    """Bool `[D, H, W]`: exactly so many free voxels in one shape.

    A place at which part of the shape is not free is drawn again, thirty times;
    then the shape fills what is free around its centre.
    """
    radius = (voxels * head.spacing_mm**3 * 3 / (4 * math.pi)) ** (1 / 3)
    semi = np.exp(0.3 * rng.standard_normal(3))
    semi *= radius / semi.prod() ** (1 / 3)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    shape = _Shape(turn, semi, _draw_waves(rng, 6, height=0.18, fineness=2.0))
    reach = 1.8 * semi.max() + head.spacing_mm
    inside = np.zeros(free.shape, bool)
    for _ in range(_TRIES):
        center = _point(rng, head, margin_mm=0.9 * radius)
        view, offsets = _around(head, center, reach)
        chosen = _nearest(shape.depth(offsets), voxels)
        if chosen is not None and free[view][chosen].all():
            inside[view] = chosen
            return inside
    depth = np.where(free, shape.depth(_around(head, center, math.inf)[1]), np.inf)
    return _nearest(depth, min(voxels, int(free.sum())))


def _nearest(depth: np.ndarray, count: int) -> np.ndarray | None:
    """The `count` voxels of least depth; None where there are not so many."""
    if count > depth.size:
        return None
    chosen = np.zeros(depth.size, bool)
    chosen[np.argpartition(depth, count - 1, axis=None)[:count]] = True
    return chosen.reshape(depth.shape)


def _point(rng: Generator, head: Head, margin_mm: float) -> np.ndarray:
    """A uniform point of the brain, about `margin_mm` from its border."""
    direction = rng.standard_normal(3)
    direction /= np.sqrt((direction**2).sum())
    room = np.maximum(head.semi_mm - margin_mm, 0.05 * head.semi_mm)
    return room * direction * rng.random() ** (1 / 3)


def _around(head: Head, center: np.ndarray, reach_mm: float):
    """The voxels within `reach_mm` of a point along each axis, and their offsets."""
    view, offsets = [], []
    for axis, (places, middle) in enumerate(zip(head.axes_mm, center, strict=True)):
        near = np.flatnonzero(np.abs(places.ravel() - middle) <= reach_mm)
        part = slice(int(near[0]), int(near[-1]) + 1) if near.size else slice(0, 0)
        view.append(part)
        shape = [-1 if i == axis else 1 for i in range(3)]
        offsets.append((places.ravel()[part] - np.float32(middle)).reshape(shape))
    return tuple(view), offsets


def _grown(inside: np.ndarray) -> np.ndarray:
    """The voxels and their 26 neighbours."""
    for axis in range(3):
        grown = inside.copy()
        low, high = ([slice(None)] * 3 for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        grown[tuple(low)] |= inside[tuple(high)]
        grown[tuple(high)] |= inside[tuple(low)]
        inside = grown
    return inside


def _draw_waves(rng: Generator, count: int, height: float, fineness: float):
    """Amplitudes, frequencies and phases of waves over a sphere."""
    return (
        height * math.sqrt(2 / count) * rng.standard_normal(count),
        fineness * rng.standard_normal((count, 3)),
        rng.uniform(0.0, 2.0 * math.pi, count),
    )


def _waviness(direction: list[np.ndarray], waves) -> np.ndarray:
    """1 plus waves over the directions, within [0.5, 1.8]."""
    total = np.float32(1.0)
    for height, frequency, phase in zip(*waves, strict=True):
        angle = sum(
            np.float32(f) * x for f, x in zip(frequency, direction, strict=True)
        )
        total = total + np.float32(height) * np.cos(angle + np.float32(phase))
    return np.clip(total, np.float32(0.5), np.float32(1.8))


def _head(size: tuple[int, int, int], spacing_mm: float) -> Head:
    extent = np.array(size) * spacing_mm
    semi = 0.5 * _FILLED * extent
    axes = tuple(
        (((np.arange(n) + 0.5) * spacing_mm - length / 2).astype(np.float32)).reshape(
            [-1 if i == axis else 1 for i in range(3)]
        )
        for axis, (n, length) in enumerate(zip(size, extent, strict=True))
    )
    radius = np.sqrt(
        sum((x / np.float32(s)) ** 2 for x, s in zip(axes, semi, strict=True))
    )
    return Head(axes, semi, spacing_mm, radius)


# --- light ------------------------------------------------------------------------


def _paint(seed: int, head: Head, instances: np.ndarray) -> np.ndarray:
    """uint8 `[D, H, W, 1]`: tissue, lesions, blur, noise."""
    light = _tissue(stream(seed, Kind.TISSUE), head)
    for k in range(1, instances.max() + 1):
        # Of the lesion's own stream, so that no lesion changes another.
        light[instances == k] = stream(seed, Kind.LIGHT, k).uniform(0.25, 0.6)
    light = gaussian_filter(light, _BLUR_MM / head.spacing_mm)
    noise = stream(seed, Kind.NOISE).standard_normal(light.shape, np.float32)
    light = np.clip(light + np.float32(_NOISE) * noise, 0, 1)
    return np.round(255 * light).astype(np.uint8)[..., None]


def _tissue(rng: Generator, head: Head) -> np.ndarray:
    """Grey values of a head without lesions, float32; 0 outside."""
    radius = np.maximum(head.radius, np.float32(1e-6))
    direction = [
        x / np.float32(s) / radius
        for x, s in zip(head.axes_mm, head.semi_mm, strict=True)
    ]
    folds = _waviness(direction, _draw_waves(rng, 12, height=0.06, fineness=9.0))
    rim = head.radius * folds
    light = np.full(head.radius.shape, WHITE, np.float32)
    light[rim > 0.86] = GREY
    light[rim > 1.05] = FLUID
    for side in (-1, 1):
        center = head.semi_mm * np.array([0.2 * side, rng.uniform(-0.1, 0.1), 0.1])
        semi = head.semi_mm * np.array([0.09, 0.38, 0.18]) * rng.uniform(0.7, 1.3)
        apart = sum(
            ((x - np.float32(c)) / np.float32(s)) ** 2
            for x, c, s in zip(head.axes_mm, center, semi, strict=True)
        )
        light[apart <= 1] = FLUID
    light[head.radius > 1] = 0
    return light
