"""From foreground probabilities to labelled cells.

Everything works on one image `[rows, columns]` or volume `[depth, rows,
columns]` and returns NumPy arrays: the steps are few and run once per image.
Cells are connected with corners (8 neighbours in an
image, 26 in a volume), here and wherever a mask is turned into objects.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from fluojax import ops
from fluojax.ops.watershed import smooth


def instances_from_probs(
    probs: np.ndarray,
    *,
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
    """Labels 1..N of the cells in a map of foreground probabilities.

    Threshold, closing, holes, connected components or watershed, removal of
    small ones.
    A pixel is foreground if `p > threshold`, so NaN is background. Closing
    ignores what lies outside the image: it neither erodes nor adds at the
    border. Without a pixel above the threshold all labels are 0.

    Args:
      probs: `[*S]` probabilities in [0, 1], S of rank 2 or 3.
      threshold: foreground is strictly above it.
      closing: odd width in pixels of the elliptical kernel; 3 is the cross of
        four (in 3-D six) neighbours, 0 leaves the closing out.
      apart: components are found before closing, and what closing adds goes to
        the nearest of them. Cells that a network leaves apart by a thin line
        (`touching_gap` in training) then touch without being merged.
      fill_holes: background that faces do not connect to the border becomes
        foreground.
      smooth_disk: radius of the disk of an opening and a closing, 0 for none.
      max_hole_size: holes of fewer pixels are filled, also at the border.
      min_area: components with fewer pixels (voxels) are dropped.
      max_filter_size: 0 takes components for cells; otherwise touching cells
        are split by a watershed of the distance to the background, greatest in
        a box of this side (see `ops.fluocells_postprocess`).
      footprint: side of the box in which its peaks compete.
      neck_depth: 0 takes components for cells; otherwise they are parted where
        they narrow by this much, before closing if `apart` (see
        `ops.split_necks`).
      neck_sigma: pixels by which the distances are smoothed for it.

    Returns:
      `[*S]` int32, 0 background, 1..N in the raster order of first pixels.

    Raises:
      ValueError: the rank is neither 2 nor 3, `closing` is even, or both
        `max_filter_size` and `neck_depth` are given.

    Source: clean-up of IMSAHLO (threshold 0.5, closing with OpenCV's 3 x 3
    elliptical kernel, 8-connected components, areas below 15 dropped); the
    watershed and what precedes it is that of the loss study; `apart`, necks and
    filling holes are additions. All of these are off by default.
    """
    mask = _image("instances_from_probs", probs) > threshold
    objects = objects_by(neck_depth, neck_sigma, max_filter_size)
    if fill_holes and apart:
        mask = ndimage.binary_fill_holes(mask)
    closed = closed_by(closing)(mask)
    if apart:
        return give_to_nearest(closed, drop_small(objects(mask), min_area))
    if fill_holes:
        closed = ndimage.binary_fill_holes(closed)
    if not max_filter_size:
        if smooth_disk:
            closed = smooth(closed, smooth_disk)
        if max_hole_size:
            closed = ops.remove_small_holes(closed, max_hole_size)
        return drop_small(objects(closed), min_area)
    stages = ops.fluocells_postprocess(
        closed,
        smooth_disk=smooth_disk,
        max_hole_size=max_hole_size,
        min_object_size=min_area,
        max_filter_size=max_filter_size,
        footprint=footprint,
    )
    return np.asarray(stages.labels)


def objects_by(
    neck_depth: float, neck_sigma: float, max_filter_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """From a mask to labels: components, parted at their necks if a depth is given.

    Raises:
      ValueError: two ways of parting cells are asked for.
    """
    if not neck_depth:
        return components
    if max_filter_size:
        raise ValueError(
            "instances_from_probs: max_filter_size and neck_depth are two ways to "
            f"part cells, got {max_filter_size} and {neck_depth}; set one of them to 0"
        )
    return lambda mask: _in_raster_order(
        np.asarray(ops.split_necks(mask, depth=neck_depth, sigma=neck_sigma))
    )


def components(mask: np.ndarray) -> np.ndarray:
    """Components of the non-zero pixels, connected with corners, as int32 labels.

    Numbered 1..N by the raster index of their first pixels; 0 is background.

    Raises:
      ValueError: the rank is neither 2 nor 3.
    """
    mask = _image("components", mask) != 0
    corners = np.ones((3,) * mask.ndim, bool)
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, structure=corners, output=labels)
    return labels


def closed_by(closing: int) -> Callable[[np.ndarray], np.ndarray]:
    """Closing of a mask with an elliptical kernel; 0 leaves it as it is."""
    if not closing:
        return lambda mask: mask
    return lambda mask: _close(mask, _ellipse(closing, mask.ndim))


def give_to_nearest(closed: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pixels that closing added beside a cell become part of the nearest cell."""
    if not labels.any():
        return labels
    distances, nearest = ndimage.distance_transform_edt(
        labels == 0, return_indices=True
    )
    # A cross reaches one pixel; farther ones belong to specks that were dropped.
    added = closed & (labels == 0) & (distances < 2)
    return np.where(added, labels[tuple(nearest)], labels)


def _image(function: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{function}: the image must be [rows, columns] or [depth, rows, "
            f"columns], got {array.shape}; take one channel with x[..., 0]"
        )
    return array


def _ellipse(width: int, rank: int) -> np.ndarray:
    """OpenCV's MORPH_ELLIPSE of an odd width, its ellipsoid in 3-D."""
    if width < 1 or width % 2 == 0:
        raise ValueError(
            f"instances_from_probs: closing must be 0 or odd and positive, got {width}"
        )
    radius = width // 2
    *others, along = np.ogrid[(slice(-radius, radius + 1),) * rank]
    rest = radius**2 - sum(axis**2 for axis in others)
    half_width = np.rint(np.sqrt(np.maximum(rest, 0)))
    return (rest >= 0) & (np.abs(along) <= half_width)


def _close(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Dilation then erosion; pixels outside the image never win."""
    grown = ndimage.binary_dilation(mask, kernel, border_value=0)
    return ndimage.binary_erosion(grown, kernel, border_value=1)


def _in_raster_order(labels: np.ndarray) -> np.ndarray:
    """Labels 1..N, numbered anew by the raster index of their first pixels."""
    _, first = np.unique(np.append(0, labels), return_index=True)
    number = np.empty(len(first), np.int32)
    number[np.argsort(first)] = np.arange(len(first))
    return number[labels]


def drop_small(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Labels without those of fewer pixels, numbered anew in the same order."""
    areas = np.bincount(labels.ravel())
    keep = areas >= min_area
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[labels]
