"""Cells of an image whose maps do not fit into memory.

The steps are those of `postprocess.instances_from_probs`, and so is the result:
steps that look a few pixels around are done in tiles with a margin, holes and
components are joined across tiles (`joined`), and touching cells are split in
windows that hold each component whole.
"""

import math

import numpy as np

from fluojax import ops
from fluojax.inference import joined, postprocess, scratch
from fluojax.inference.joined import tiles, widened
from fluojax.inference.tiling import Allocate
from fluojax.ops.watershed import smooth

SIDE = 2048  # of the tiles


def instances_from_probs(
    probs: np.ndarray,
    allocate: Allocate,
    *,
    side: int = SIDE,
    threshold: float = 0.5,
    closing: int = 3,
    apart: bool = False,
    fill_holes: bool = False,
    smooth_disk: int = 0,
    max_hole_size: int = 0,
    min_area: int = 15,
    max_filter_size: int = 0,
    footprint: int = 40,
    neck_depth: float = 0.0,
    neck_sigma: float = 1.0,
) -> np.ndarray:
    """As the function of this name in `postprocess`, tile by tile.

    Splitting needs windows of a tile and four times the largest component; all
    other steps need a few tiles.

    Args:
      probs: `[H, W]`, may be mapped from a file.
      allocate: makes maps of the image's size from shape and type.
      side: of the tiles.
      threshold, ...: see `postprocess.instances_from_probs`.
    """
    steps = _Steps(allocate, side)
    objects = postprocess.objects_by(neck_depth, neck_sigma, max_filter_size)

    def cells(mask: np.ndarray) -> np.ndarray:
        if not neck_depth:
            return steps.objects(mask, min_area)
        reach = math.ceil(4 * neck_sigma) + 1  # of the Gaussian
        return steps.split(
            mask, lambda m: postprocess.drop_small(objects(m), min_area), reach
        )

    mask = steps.local(lambda p: p > threshold, 0, probs)
    close = postprocess.closed_by(closing)
    if apart:
        if fill_holes:
            steps.fill(mask, lambda holes: ~holes.at_border)
        labels = cells(mask)
        return steps.local(
            lambda m, found: postprocess.give_to_nearest(close(m), found),
            2 * closing + 4, mask, labels, dtype=np.int32,
        )  # fmt: skip
    mask = steps.local(close, 2 * closing, mask)
    if fill_holes:
        steps.fill(mask, lambda holes: ~holes.at_border)
    if smooth_disk:
        margin = 4 * smooth_disk + 1
        mask = steps.local(lambda m: np.asarray(smooth(m, smooth_disk)), margin, mask)
    if max_hole_size:
        steps.fill(mask, lambda holes: holes.area < max_hole_size)
    if not max_filter_size:
        return cells(mask)

    def study(window: np.ndarray) -> np.ndarray:
        stages = ops.fluocells_postprocess(
            window, smooth_disk=0, max_hole_size=0, min_object_size=min_area,
            max_filter_size=max_filter_size, footprint=footprint,
        )  # fmt: skip
        return np.asarray(stages.labels)

    return steps.split(mask, study, footprint + max_filter_size)


class _Steps:
    """Steps over maps `[H, W]`, all with one way to make maps and one tile size."""

    def __init__(self, allocate: Allocate, side: int):
        self._allocate, self._side = allocate, side

    def local(self, function, margin: int, *maps, dtype=bool) -> np.ndarray:
        """A function that looks at most `margin` pixels around, of several maps."""
        result = self._allocate(maps[0].shape, dtype)
        for tile in tiles(result.shape, self._side):
            window, inside = widened(tile, margin, result.shape)
            result[tile] = function(*(m[window] for m in maps))[inside]
            scratch.release(result, *maps)
        return result

    def fill(self, mask: np.ndarray, chosen) -> None:
        """Makes the background components foreground that `chosen(Joined)` marks."""
        found = joined.label(
            mask, self._allocate, corners=False, side=self._side, value=False
        )
        fill = chosen(found)
        fill[0] = False
        for tile in tiles(mask.shape, self._side):
            mask[tile] |= fill[found.labels[tile]]
            scratch.release(mask, found.labels)

    def objects(self, mask: np.ndarray, min_area: int) -> np.ndarray:
        """Components connected with corners, without the small ones."""
        found = joined.label(mask, self._allocate, corners=True, side=self._side)
        keep = found.area >= min_area
        keep[0] = False
        joined.renumber(found.labels, np.where(keep, np.cumsum(keep), 0), self._side)
        return found.labels

    def split(self, mask: np.ndarray, labels_of, reach: int) -> np.ndarray:
        """Labels of a watershed that looks `reach` pixels beyond each component."""
        found = joined.label(mask, self._allocate, corners=False, side=self._side)
        labels = self._allocate(mask.shape, np.int32)
        sides = found.boxes[1:, 2:] - found.boxes[1:, :2]
        margin = 2 * int(sides.max(initial=0)) + reach
        rows, columns = np.divmod(found.first, mask.shape[1])
        count = 0
        for tile in tiles(mask.shape, self._side):
            owned = np.ones(len(found.area), bool)
            for place, span in zip((rows, columns), tile, strict=True):
                owned &= (place >= span.start) & (place < span.stop)
            owned[0] = False
            if not owned.any():
                continue
            window = _window(tile, self._side + 2 * margin, mask.shape)
            found_here = labels_of(mask[window])
            cells = np.where(owned[found.labels[window]], found_here, 0)
            place = labels[window]
            place[cells > 0] = cells[cells > 0] + count
            count += int(cells.max(initial=0))
            scratch.release(labels, mask, found.labels)
        return _in_raster_order(labels, count, self._side)


def _window(tile, width: int, shape) -> joined.Tile:
    """Windows of one size about tiles, moved inside the image."""
    spans = []
    for span, length in zip(tile, shape, strict=True):
        size = min(width, length)
        middle = (span.start + span.stop) // 2
        start = min(max(middle - size // 2, 0), length - size)
        spans.append(slice(start, start + size))
    return tuple(spans)


def _in_raster_order(labels: np.ndarray, count: int, side: int) -> np.ndarray:
    """Labels that may leave numbers out, renumbered by their first pixels."""
    first = np.full(count + 1, labels.size, np.int64)
    for tile in tiles(labels.shape, side):
        part = labels[tile]
        rows, columns = np.nonzero(part)
        places = (rows + tile[0].start) * labels.shape[1] + columns + tile[1].start
        np.minimum.at(first, part[rows, columns], places)
        scratch.release(labels)
    there = first < labels.size
    number = np.zeros(count + 1, np.int64)
    number[np.argsort(first, kind="stable")[: there.sum()]] = np.arange(
        1, there.sum() + 1
    )
    joined.renumber(labels, number, side)
    return labels
