"""Components of a mask that is too large to be labelled at once.

Every tile is labelled by itself; labels that touch across the edge between two
tiles are one component. The result equals that of the whole mask, numbers
included, and needs a few tiles and a few numbers per component in memory.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from fluojax.inference import scratch
from fluojax.inference.tiling import Allocate

Tile = tuple[slice, slice]


class Joined(NamedTuple):
    """The components 1..N of a mask, numbered by the raster order of first pixels.

    Attributes:
      labels: `[H, W]` int32, 0 background.
      area: `[N + 1]` pixels, of the background 0.
      first: `[N + 1]` raster index of the first pixel.
      boxes: `[N + 1, 4]` top, left, bottom, right, half open.
      at_border: `[N + 1]`, whether it touches the image border.
    """

    labels: np.ndarray
    area: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    at_border: np.ndarray


def tiles(shape: Sequence[int], side: int) -> Iterator[Tile]:
    """Squares of `side` pixels that cover an image, in raster order."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield (
                slice(top, min(top + side, shape[0])),
                slice(left, min(left + side, shape[1])),
            )


def widened(tile: Tile, margin: int, shape: Sequence[int]) -> tuple[Tile, Tile]:
    """The tile with a margin inside the image, and the tile's place in it."""
    window = tuple(
        slice(max(span.start - margin, 0), min(span.stop + margin, length))
        for span, length in zip(tile, shape, strict=True)
    )
    inside = tuple(
        slice(span.start - w.start, span.stop - w.start)
        for span, w in zip(tile, window, strict=True)
    )
    return window, inside


def label(
    mask: np.ndarray, allocate: Allocate, *, corners: bool, side: int, value: bool = True
) -> Joined:  # fmt: skip
    """Components of the pixels of `mask` that equal `value`.

    Args:
      mask: `[H, W]` bool.
      allocate: makes the labels from shape and type.
      corners: whether pixels that touch at a corner are connected.
      side: of the tiles.
      value: False labels the background.
    """
    labels = allocate(mask.shape, np.int32)
    structure = np.ones((3, 3), bool) if corners else None
    facts, count = [], 0
    for tile in tiles(mask.shape, side):
        found, number = ndimage.label(mask[tile] == value, structure)
        facts.append(_facts(found, number, tile, mask.shape))
        labels[tile] = np.where(found, found + count, 0)
        count += number
        scratch.release(mask, labels)
    area, first, boxes = (np.concatenate(x) for x in zip(*facts, strict=True))
    group = _groups(labels, count, corners, side)
    return _numbered(labels, group, area, first, boxes, side)


def renumber(labels: np.ndarray, number: np.ndarray, side: int) -> None:
    """Replaces every label by `number[label]`, in place."""
    number = number.astype(labels.dtype)
    for tile in tiles(labels.shape, side):
        labels[tile] = number[labels[tile]]
        scratch.release(labels)


def _facts(found, number: int, tile: Tile, shape) -> tuple[np.ndarray, ...]:
    """Area, first raster index and box of the components of one tile."""
    top, left = tile[0].start, tile[1].start
    places = np.flatnonzero(found)
    owners = found.ravel()[places]
    area = np.bincount(owners, minlength=number + 1)[1:]
    first = np.zeros(number + 1, np.int64)
    first[owners[::-1]] = places[::-1]  # of several, the last one written stays
    rows, columns = np.divmod(first[1:], found.shape[1])
    boxes = [
        (s[0].start + top, s[1].start + left, s[0].stop + top, s[1].stop + left)
        for s in ndimage.find_objects(found)
    ]
    return (
        area,
        (rows + top) * shape[1] + columns + left,
        np.array(boxes, np.int64).reshape(-1, 4),
    )


def _groups(labels, count: int, corners: bool, side: int) -> np.ndarray:
    """`[count]` group of each label of a tile; equal if they touch across edges."""
    pairs = [np.zeros((2, 0), np.int64)]
    for axis in (0, 1):
        for edge in range(side, labels.shape[axis], side):
            before, after = (labels.take(edge + k, axis) for k in (-1, 0))
            pairs += _touching(before, after, corners)
            scratch.release(labels)
    one, other = np.concatenate(pairs, axis=1) - 1
    graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), (count, count))
    return csgraph.connected_components(graph, directed=False)[1]


def _touching(before, after, corners: bool) -> list[np.ndarray]:
    """Pairs of labels that two neighbouring lines of pixels join."""
    pairs = []
    for shift in (-1, 0, 1) if corners else (0,):
        a = before[max(shift, 0) : len(before) + min(shift, 0)]
        b = after[max(-shift, 0) : len(after) + min(-shift, 0)]
        both = (a > 0) & (b > 0)
        pairs.append(np.unique(np.stack([a[both], b[both]]), axis=1).astype(np.int64))
    return pairs


def _numbered(labels, group, area, first, boxes, side: int) -> Joined:
    """Groups as the components 1..N, everything about their parts combined."""
    total = int(group.max(initial=-1)) + 1
    size = labels.shape[0] * labels.shape[1]
    starts = np.full(total, size)
    np.minimum.at(starts, group, first)
    order = np.argsort(starts)
    rank = np.empty(total, np.int64)
    rank[order] = np.arange(1, total + 1)
    number = np.concatenate([[0], rank[group]]).astype(np.int64)
    renumber(labels, number, side)
    areas = np.bincount(number[1:], weights=area, minlength=total + 1).astype(np.int64)
    joined = np.tile(np.array([*labels.shape, 0, 0]), (total + 1, 1))
    np.minimum.at(joined[:, :2], number[1:], boxes[:, :2])
    np.maximum.at(joined[:, 2:], number[1:], boxes[:, 2:])
    low, high = (joined[:, :2] == 0), (joined[:, 2:] == labels.shape)
    at_border = low.any(axis=1) | high.any(axis=1)
    firsts = np.concatenate([[size], starts[order]])
    return Joined(labels, areas, firsts, joined, at_border)
