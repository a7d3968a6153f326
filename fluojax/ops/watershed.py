"""Seeded watershed, local maxima and the splitting of touching cells.

One image `[*S]`, rank 2 or 3. Labels are int32 and 0 is background.

A watershed here is a fixed point of local comparisons instead of a queue, since
a queue cannot be worked on in parallel. Water reaches a pixel p through the
neighbour q at the level

    level(p) = min over q of max(level(q), height(p) + compactness |p - seed(q)|),

seed(q) the marker pixel that q was reached from, and p belongs to the marker of
the neighbour through which it was reached first. Pixels reached at the same
time may go to another marker than in a queue: on cells about one in a hundred.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops import distance, morphology, regions
from fluojax.ops.components import label_components, offsets, shifted
from fluojax.ops.maxima import h_maxima
from fluojax.ops.picture import gaussian_blur

# Peaks of fewer pixels are no markers in the post-processing of the loss study.
_SMALLEST_PEAK = 25


class FluocellsStages(NamedTuple):
    """What `fluocells_postprocess` computes, in order.

    Attributes:
      smooth: `[*S]` bool, mask after opening and closing.
      processed: `[*S]` bool, without small holes and objects.
      distance: `[*S]` distance to the background.
      filtered: `[*S]` greatest distance in a box.
      peaks: `[*S]` bool, local maxima of it.
      markers: `[*S]` int32 labels of the peaks that are large enough.
      watershed: `[*S]` int32 labels, 0 also on the lines between objects.
      labels: `[*S]` int32, the objects: large enough, every piece a number.
      count: int32 number of objects.
    """

    smooth: jax.Array
    processed: jax.Array
    distance: jax.Array
    filtered: jax.Array
    peaks: jax.Array
    markers: jax.Array
    watershed: jax.Array
    labels: jax.Array
    count: jax.Array


def peak_local_max(
    image: ArrayLike,
    size: int | Sequence[int],
    *,
    labels: ArrayLike | None = None,
    threshold: float | None = None,
) -> jax.Array:
    """Pixels that are the greatest in a box about them.

    All pixels of a plateau are peaks. The box reaches as that of
    `maximum_filter`.

    Args:
      image: `[*S]` of any real dtype.
      size: pixels along every axis, or one number for each.
      labels: `[*S]` bool or integers. Peaks are inside (non-zero) only, and a
        pixel competes with those of its own label only. With integers the time
        grows with the number of pixels of the box.
      threshold: peaks are strictly above it; None is the least value of the
        image.

    Returns:
      `[*S]` bool.

    Raises:
      TypeError: labels are neither integers nor bool.
      ValueError: ranks are neither 2 nor 3 or differ, or size does not fit.
    """
    name = "peak_local_max"
    image = checks.image(name, image)
    sizes = _check_sizes(name, size, image.ndim)
    above = image > (jnp.min(image) if threshold is None else threshold)
    if labels is None:
        return above & (image == morphology.maximum_filter(image, sizes))
    if jnp.asarray(labels).dtype == bool:
        inside = checks.image(name, labels, "labels")
        image = jnp.where(inside, image, jnp.min(image))
        return above & inside & (image == morphology.maximum_filter(image, sizes))
    labels = checks.label_map(name, labels)
    _check_shape(name, "labels", labels, image)
    return above & (labels != 0) & ~_has_greater(image, labels, sizes)


def watershed(
    height: ArrayLike,
    markers: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    compactness: float = 0.0,
    line: bool = False,
) -> jax.Array:
    """Regions that water from the markers floods, rising over the height map.

    Every marker keeps its pixels, a region is connected through faces, and
    every pixel of the mask that faces connect to a marker is flooded.

    Args:
      height: `[*S]` of any real dtype.
      markers: `[*S]` integers, 0 for none.
      mask: `[*S]` of any dtype; only non-zero pixels are flooded. None is all.
      compactness: height per pixel of distance from the marker pixel; larger
        values give rounder regions.
      line: of two regions that touch, the pixels of the smaller label along the
        boundary become 0; markers keep theirs, so that beside one it is the
        other label.

    Returns:
      `[*S]` int32 labels, 0 where no water comes.

    Raises:
      TypeError: markers are neither integers nor bool.
      ValueError: ranks are neither 2 nor 3, or shapes differ.

    Source: flooding with a queue (Meyer 1991; compact: Neubert and Protzel,
    ICPR 2014) as in scikit-image with its default connectivity 1, from which
    ties and the place of lines may differ.
    """
    name = "watershed"
    height = checks.image(name, height, "height")
    markers = checks.label_map(name, markers, "markers")
    _check_shape(name, "markers", markers, height)
    inside = jnp.ones(height.shape, bool)
    if mask is not None:
        inside = checks.image(name, mask, "mask").astype(bool)
        _check_shape(name, "mask", inside, height)
    if height.size == 0:
        return markers
    dtype = jnp.float64 if height.dtype == jnp.float64 else jnp.float32
    compactness = jnp.asarray(compactness, dtype)
    labels = _flood(height.astype(dtype), markers, inside, compactness)
    return _without_lines(labels, markers != 0) if line else labels


def fluocells_postprocess(
    mask: ArrayLike,
    *,
    smooth_disk: int = 0,
    max_hole_size: int = 50,
    min_object_size: int = 200,
    max_filter_size: int = 30,
    footprint: int = 40,
    keep_unmarked: bool = False,
) -> FluocellsStages:
    """Touching cells apart, as in the loss study; every stage of it.

    Opening and closing with a disk; small holes and objects removed; distance
    to the background; greatest distance in a box; its local maxima in another
    box, without those of fewer than 25 pixels; watershed of the negative
    distance from them, compactness 1, with lines; small objects removed; what
    remains labelled anew with corners.

    A component whose maxima lie below a higher one within the box, or are
    smaller than 25 pixels, gets no marker and is lost, whatever its size.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      smooth_disk: radius of the disk (ball) in pixels, 0 for none.
      max_hole_size: holes below this area are filled.
      min_object_size: objects below this area are removed, twice.
      max_filter_size: side of the box of the maximum filter.
      footprint: side of the box in which peaks compete.
      keep_unmarked: a component without a marker becomes its own, so that none
        is lost.

    Returns:
      `FluocellsStages`.

    Raises:
      ValueError: the rank is neither 2 nor 3, or a size is out of range.

    Source: post-processing of Clissa, Macaluso and Zoccoli, ICIAP Workshops
    2023. Their program measures distances in an image without background to a
    point outside it; here they are infinite and there is one object.
    `keep_unmarked` is our addition.
    """
    name = "fluocells_postprocess"
    mask = checks.image(name, mask, "mask").astype(bool)
    if smooth_disk < 0:
        raise ValueError(f"{name}: smooth_disk must be >= 0, got {smooth_disk}")
    _check_sizes(name, max_filter_size, mask.ndim)
    _check_sizes(name, footprint, mask.ndim)
    return _postprocess(
        mask,
        smooth_disk=smooth_disk,
        max_hole_size=max_hole_size,
        min_object_size=min_object_size,
        max_filter_size=max_filter_size,
        footprint=footprint,
        keep_unmarked=keep_unmarked,
    )


def split_touching(
    mask: ArrayLike,
    *,
    smooth_disk: int = 0,
    max_hole_size: int = 50,
    min_object_size: int = 200,
    max_filter_size: int = 30,
    footprint: int = 40,
    keep_unmarked: bool = True,
) -> jax.Array:
    """Labels of the cells of a mask, those that touch apart.

    The `labels` of `fluocells_postprocess`, whose arguments it takes, but no
    component is lost for want of a marker.

    Returns:
      `[*S]` int32 labels 1, 2, ..., 0 for background.

    Raises:
      ValueError: the rank is neither 2 nor 3, or a size is out of range.
    """
    return fluocells_postprocess(
        checks.image("split_touching", mask, "mask"),
        smooth_disk=smooth_disk,
        max_hole_size=max_hole_size,
        min_object_size=min_object_size,
        max_filter_size=max_filter_size,
        footprint=footprint,
        keep_unmarked=keep_unmarked,
    ).labels


def split_necks(
    mask: ArrayLike, *, depth: float = 0.75, sigma: float = 1.0
) -> jax.Array:
    """Labels of the cells of a mask, parted where it narrows.

    The distance to the background, smoothed, has a maximum in the middle of every
    cell. Two maxima are two cells if the way between them falls by more than
    `depth` below the lower one: a watershed parts them. Unlike a box in which
    maxima compete (`split_touching`), a depth does not depend on the size of the
    cells, so that small and large ones can lie in one image.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      depth: pixels by which the smoothed distance must fall, above 0.
      sigma: standard deviation in pixels of the Gaussian that smooths it, above 0.

    Returns:
      `[*S]` int32 labels 1, 2, ..., 0 for background; every pixel of the mask
      belongs to a cell, and no cell is more than one piece through faces.

    Raises:
      ValueError: the rank is neither 2 nor 3, depth or sigma is not above 0.

    Source: ours, of a standard recipe (Soille, Morphological Image Analysis,
    2003, 9.2): distance, extended maxima, watershed.
    """
    mask = checks.image("split_necks", mask, "mask").astype(bool)
    for name, value in (("depth", depth), ("sigma", sigma)):
        if not value > 0:
            raise ValueError(f"split_necks: {name} must be above 0, got {value}")
    return _split_necks(mask, depth, sigma=sigma)


@functools.partial(jax.jit, static_argnames="sigma")
def _split_necks(mask: jax.Array, depth: ArrayLike, *, sigma: float) -> jax.Array:
    smoothed = gaussian_blur(distance.distance_transform(mask), sigma)
    markers, _ = label_components(h_maxima(smoothed, depth, mask=mask), 1)
    return watershed(-smoothed, markers, mask=mask)


@functools.partial(
    jax.jit,
    static_argnames=("smooth_disk", "max_filter_size", "footprint", "keep_unmarked"),
)
def _postprocess(
    mask: jax.Array,
    *,
    smooth_disk: int,
    max_hole_size: int,
    min_object_size: int,
    max_filter_size: int,
    footprint: int,
    keep_unmarked: bool,
) -> FluocellsStages:
    smoothed = smooth(mask, smooth_disk) if smooth_disk else mask
    processed = regions.remove_small_holes(smoothed, max_hole_size)
    processed = regions.remove_small_objects(processed, min_object_size)
    depth = distance.distance_transform(processed)
    filtered = morphology.maximum_filter(depth, max_filter_size)
    peaks = peak_local_max(filtered, footprint, labels=processed, threshold=0.0)
    seeds = regions.remove_small_objects(peaks, _SMALLEST_PEAK)
    if keep_unmarked:
        seeds |= _unmarked(processed, seeds)
    markers, _ = label_components(seeds)
    flooded = watershed(-depth, markers, mask=processed, compactness=1.0, line=True)
    kept = jnp.where(regions.reaching(flooded, min_object_size), flooded, 0)
    labels, count = label_components(kept, equal_values=True)
    return FluocellsStages(
        smoothed, processed, depth, filtered, peaks, markers, flooded, labels, count
    )


@functools.partial(jax.jit, static_argnames="radius")
def smooth(mask: jax.Array, radius: int) -> jax.Array:
    """Opening, then closing, of a mask with a disk (ball)."""
    axes = np.ogrid[(slice(-radius, radius + 1),) * mask.ndim]
    disk = sum(axis**2 for axis in axes) <= radius**2
    return morphology.close(morphology.open(mask, disk), disk)


def _unmarked(mask: jax.Array, seeds: jax.Array) -> jax.Array:
    """Components of the mask in which there is no seed."""
    labels, _ = label_components(mask, 1)
    marked = jnp.zeros(mask.size + 1, bool).at[labels].max(seeds)
    return mask & ~marked[labels]


def _check_sizes(function: str, size: int | Sequence[int], rank: int):
    sizes = (size,) * rank if isinstance(size, int) else tuple(size)
    if len(sizes) != rank or min(sizes) < 1:
        raise ValueError(
            f"{function}: size must be a positive number or {rank} of them, got {size}"
        )
    return sizes


def _check_shape(function: str, name: str, value: jax.Array, like: jax.Array) -> None:
    if value.shape != like.shape:
        raise ValueError(
            f"{function}: {name} must have the shape of the image {like.shape}, "
            f"got {value.shape}"
        )


@functools.partial(jax.jit, static_argnames="sizes")
def _has_greater(
    image: jax.Array, labels: jax.Array, sizes: tuple[int, ...]
) -> jax.Array:
    """Whether the box about a pixel holds a greater one of the same label."""
    border = [(n // 2, (n - 1) // 2) for n in sizes]
    padded = jnp.pad(image, border), jnp.pad(labels, border)

    def compare(place: jax.Array, found: jax.Array) -> jax.Array:
        start = jnp.unravel_index(place, sizes)
        other, other_labels = (lax.dynamic_slice(x, start, x_shape) for x in padded)
        return found | ((other > image) & (other_labels == labels))

    x_shape = image.shape
    start = jnp.zeros(image.shape, bool)
    return lax.fori_loop(0, math.prod(sizes), compare, start)


@jax.jit
def _flood(
    height: jax.Array, markers: jax.Array, mask: jax.Array, compactness: jax.Array
) -> jax.Array:
    """Labels of a watershed, by levels first and who was first afterwards.

    A level only ever falls, so that the comparison ends; labels alone could run
    in circles on a plateau. They follow parents that were reached strictly
    earlier: at a lower level, or in fewer steps on the same one.
    """
    seeds = (markers != 0) & mask
    level, seed = _levels(height, seeds, mask, compactness)
    reached = level < jnp.inf  # a height may be -inf
    arrival = _arrival(level, seeds, reached)
    parents = _parents(height, level, seed, arrival, markers, compactness)
    markers = jnp.where(reached, markers, 0)
    return _follow_parents(parents, markers, seeds | ~reached)


def _levels(
    height: jax.Array, seeds: jax.Array, mask: jax.Array, compactness: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Level at which each pixel is reached, inf if never, and its marker's pixel."""
    place = _places(height.shape)
    level = jnp.where(seeds, height, jnp.inf)
    free = mask & ~seeds

    def spread(state: tuple) -> tuple:
        level, seed = state
        for other, other_seed in _neighbours((level, seed), (jnp.inf, 0)):
            offer = _offer(other, height, compactness, place, other_seed)
            better = free & (offer < level)
            level, seed = _pick(better, (offer, other_seed), (level, seed))
        return level, seed

    def turn(state):
        # Two rounds, since every turn of a loop has its price on accelerators.
        _, *old = state
        new = lax.fori_loop(0, 2, lambda _, state: spread(state), tuple(old))
        return jnp.any(new[0] < old[0]), *new

    start = (True, level, _index(height.shape))
    _, level, seed = lax.while_loop(lambda s: s[0], turn, start)
    return level, seed


def _arrival(
    level: jax.Array, seeds: jax.Array, reached: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which pixels of a plateau are reached before others.

    Steps since the water came from below or from a marker, and the level it
    came from; lower ones first.
    """
    below = level
    for (other,) in _neighbours((level,), (jnp.inf,)):
        below = jnp.minimum(below, other)
    first = seeds | (below < level)

    def turn(state):
        _, *old = state
        new = tuple(old)
        fills = (jnp.inf, level.size, jnp.inf)
        for other, steps, origin in _neighbours((level, *old), fills):
            offer = (steps + 1, origin)
            better = reached & ~first & (other == level) & _comes_before(offer, new)
            new = _pick(better, offer, new)
        changed = [jnp.any(a != b) for a, b in zip(new, old, strict=True)]
        return changed[0] | changed[1], *new

    steps = jnp.where(first, 0, jnp.int32(level.size))
    origin = jnp.where(first, jnp.where(seeds, -jnp.inf, below), jnp.inf)
    return lax.while_loop(lambda s: s[0], turn, (True, steps, origin))[1:]


def _parents(
    height: jax.Array,
    level: jax.Array,
    seed: jax.Array,
    arrival: tuple[jax.Array, jax.Array],
    markers: jax.Array,
    compactness: jax.Array,
) -> jax.Array:
    """Index of the neighbour that reaches each pixel first, at the least level.

    Of several the one that was reached first itself, then the one of the smaller
    label; a queue would decide by the way in which it happens to be stored.
    """
    place, labels = _places(height.shape), markers.ravel()[seed]
    best = None
    arrays = (level, *arrival, labels, _index(height.shape), seed)
    for other, *rest in _neighbours(arrays, (jnp.inf, 0, jnp.inf, 0, 0, 0)):
        steps, origin, label, parent, other_seed = rest
        offer = _offer(other, height, compactness, place, other_seed)
        earlier = (other < level) | ((other == level) & (steps < arrival[0]))
        offer = jnp.where(earlier, offer, jnp.inf)
        candidate = (offer, other, steps, origin, label, parent)
        if best is None:
            best = candidate
        else:
            best = _pick(_comes_before(candidate[:-1], best[:-1]), candidate, best)
    return best[-1]


def _follow_parents(
    parents: jax.Array, markers: jax.Array, ends: jax.Array
) -> jax.Array:
    """Marker at the end of each chain of parents, which halves in every turn."""
    index = _index(parents.shape).ravel()
    parents = jnp.where(ends.ravel(), index, parents.ravel())

    def turn(state):
        _, old = state
        new = old[old]
        return jnp.any(new != old), new

    _, roots = lax.while_loop(lambda s: s[0], turn, (True, parents))
    return markers.ravel()[roots].reshape(markers.shape)


def _offer(other, height, compactness, place, seed) -> jax.Array:
    """Level at which water from a neighbour, come from the pixel `seed`, reaches one."""
    # jnp.unravel_index would also clip, in the loop that takes most of the time.
    squares, left = 0, seed
    for here, length in zip(reversed(place), reversed(height.shape), strict=True):
        row = lax.div(left, jnp.int32(length))
        squares += jnp.square(here - (left - row * length))
        left = row
    away = jnp.sqrt(squares.astype(height.dtype))
    return jnp.maximum(other, height + compactness * away)


def _neighbours(arrays, fills):
    """The arrays as seen from every pixel in each direction, `fills` outside."""
    padded = [
        jnp.pad(array, 1, constant_values=fill)
        for array, fill in zip(arrays, fills, strict=True)
    ]
    for offset in offsets(arrays[0].ndim, 1):
        yield tuple(shifted(array, offset) for array in padded)


def _places(shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Coordinates of every pixel."""
    return tuple(lax.broadcasted_iota(jnp.int32, shape, a) for a in range(len(shape)))


def _index(shape: tuple[int, ...]) -> jax.Array:
    """Raster index of every pixel."""
    return jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)


def _pick(condition: jax.Array, yes, no) -> tuple[jax.Array, ...]:
    return tuple(jnp.where(condition, a, b) for a, b in zip(yes, no, strict=True))


def _comes_before(one, other) -> jax.Array:
    """Lexicographic comparison."""
    less, equal = jnp.zeros(one[0].shape, bool), jnp.ones(one[0].shape, bool)
    for a, b in zip(one, other, strict=True):
        less |= equal & (a < b)
        equal &= a == b
    return less


def _without_lines(labels: jax.Array, seeds: jax.Array) -> jax.Array:
    """Labels with 0 along one side of every boundary, never on a marker."""
    meets = jnp.zeros(labels.shape, bool)
    for other, other_seed in _neighbours((labels, seeds), (0, False)):
        differ = (other != labels) & (other != 0)
        meets |= differ & ((other > labels) | other_seed)
    return jnp.where(meets & ~seeds, 0, labels)
