"""Outlines of cells on pixel corners, as ImageJ and QuPath draw them.

A corner is a whole number: the pixel in row r and column c has the corners
(r, c) to (r + 1, c + 1), so that the area inside an outline is the number of
pixels. Pixels that touch at a corner belong together, as wherever cells are
counted; the outline then passes through that corner twice.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import ndimage

# Every zip member has this date, so that repeated calls give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
# (row, column) steps of an edge, in the order of a right turn.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


class Outline(NamedTuple):
    """One connected piece of a cell.

    Attributes:
      label: of the cell.
      exterior: `[k, 2]` corners (row, column), clockwise on the screen, the first
        not repeated.
      holes: the same of each hole, the other way round.
    """

    label: int
    exterior: np.ndarray
    holes: list[np.ndarray]


def outlines(instances: np.ndarray) -> list[Outline]:
    """Outlines of every piece of every cell, in the order of the labels.

    Args:
      instances: `[H, W]` integers, 0 background.

    Raises:
      ValueError: instances are no image.
    """
    instances = np.asarray(instances)
    if instances.ndim != 2 or not np.issubdtype(instances.dtype, np.integer):
        raise ValueError(
            "outlines: instances must be integers [rows, columns], got "
            f"{instances.dtype} {instances.shape}"
        )
    labels, numbers = np.unique(instances, return_inverse=True)
    numbers = numbers.reshape(instances.shape) + 1
    boxes = ndimage.find_objects(numbers)
    cells = [(n, box) for n, box in zip(labels, boxes, strict=True) if n != 0]
    return [piece for cell in cells for piece in pieces(instances, *cell)]


def pieces(
    instances: np.ndarray, label: int, box: tuple[slice, slice]
) -> list[Outline]:
    """Outlines of the pieces of one cell that lies in a box of `[H, W]` labels."""
    mask = instances[box] == label
    offset = np.array([box[0].start, box[1].start])
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    found = []
    for part in range(1, count + 1):
        rings = [ring + offset for ring in _rings(parts == part)]
        (exterior,) = [ring for ring in rings if area(ring) > 0]
        holes = [ring for ring in rings if area(ring) < 0]
        found.append(Outline(int(label), exterior, holes))
    return found


def area(ring: np.ndarray) -> float:
    """Pixels inside a ring of corners, negative for that of a hole."""
    rows, columns = ring[:, 0], ring[:, 1]
    cross = columns * np.roll(rows, -1) - np.roll(columns, -1) * rows
    return float(cross.sum()) / 2


def rois_zip_bytes(found: list[Outline]) -> bytes:
    """ImageJ's ROI set: one traced polygon per piece, named by the label.

    The second piece of a cell is named `label-2`. A polygon of ImageJ has no
    holes; those of a cell are left out.
    """
    import roifile

    buffer = io.BytesIO()
    pieces: dict[int, int] = {}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for outline in found:
            number = pieces[outline.label] = pieces.get(outline.label, 0) + 1
            name = f"{outline.label}" if number == 1 else f"{outline.label}-{number}"
            roi = roifile.ImagejRoi.frompoints(outline.exterior[:, ::-1], name=name)
            # What ImageJ calls outlines that run along the borders of pixels.
            roi.roitype = roifile.ROI_TYPE.TRACED
            archive.writestr(zipfile.ZipInfo(f"{name}.roi", _DATE), roi.tobytes())
    return buffer.getvalue()


def geojson(
    found: list[Outline], table: Mapping[str, np.ndarray] | None = None
) -> str:
    """A feature collection for QuPath: x and y in pixels, origin at the top left.

    Every polygon is valid in the sense of OGC's simple features: a piece that hangs
    together at corners only is written as several polygons of one MultiPolygon.

    Args:
      found: pieces of cells.
      table: columns of `tables.cell_table`; its numbers become the measurements of
        the cells, those that are not known are left out.
    """
    cells: dict[int, list] = {}
    for outline in found:
        for rings in _simple(outline):
            closed = [[*r[:, ::-1].tolist(), r[0, ::-1].tolist()] for r in rings]
            cells.setdefault(outline.label, []).append(closed)
    rows = {int(n): row for row, n in enumerate(table["label"])} if table else {}
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": pieces[0]}
            if len(pieces) == 1
            else {"type": "MultiPolygon", "coordinates": pieces},
            "properties": {
                "objectType": "detection",
                "name": str(label),
                "label": label,
                "measurements": _measurements(table, rows[label]) if table else {},
            },
        }
        for label, pieces in cells.items()
    ]
    collection = {"type": "FeatureCollection", "features": features}
    return json.dumps(collection, separators=(",", ":"), allow_nan=False) + "\n"


def _measurements(table: Mapping[str, np.ndarray], row: int) -> dict[str, float]:
    """The finite numbers of one cell; its label has a place of its own."""
    named = {name: float(column[row]) for name, column in table.items()}
    return {n: v for n, v in named.items() if n != "label" and math.isfinite(v)}


def _simple(outline: Outline) -> list[list[np.ndarray]]:
    """Rings of valid polygons, exterior first, that together are one piece.

    Rings that pass a corner twice, or meet there, may cut the inside in parts. The
    parts that hang together along edges are polygons in which each ring passes a
    corner once.
    """
    rings = [outline.exterior, *outline.holes]
    corners = np.concatenate(rings)
    if len(np.unique(corners, axis=0)) == len(corners):
        return [rings]
    offset = corners.min(axis=0)
    mask = _filled([ring - offset for ring in rings], corners.max(axis=0) - offset)
    parts, count = ndimage.label(mask)
    found = []
    for part, box in enumerate(ndimage.find_objects(parts, count), start=1):
        start = offset + [box[0].start, box[1].start]
        found.append([ring + start for ring in _rings(parts[box] == part)])
    return [sorted(rings, key=area, reverse=True) for rings in found]


def _filled(rings: list[np.ndarray], shape: np.ndarray) -> np.ndarray:
    """The pixels inside rings of corners: an odd number of edges to their left."""
    crossed = np.zeros(shape + 1, bool)
    for ring in rings:
        for (r0, c), (r1, _) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            crossed[min(r0, r1) : max(r0, r1), c] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:-1, :-1]


def _rings(mask: np.ndarray) -> list[np.ndarray]:
    """Closed paths along the edges of a mask, the mask to the right of each."""
    edges = _edges(mask)
    rings = []
    while edges:
        start = next(iter(edges))
        first = direction = edges[start][0]
        place, corners = start, []
        while True:
            edges[place].remove(direction)
            if not edges[place]:
                del edges[place]
            if not corners or corners[-1][1] != direction:
                corners.append((place, direction))
            row, column = _STEPS[direction]
            place = (place[0] + row, place[1] + column)
            ahead = [*edges.get(place, ()), *([first] if place == start else ())]
            # Left first: pixels that touch at a corner stay together.
            turns = ((direction + turn) % 4 for turn in (-1, 0, 1))
            direction = next(turn for turn in turns if turn in ahead)
            if place == start and direction == first:
                break
        if corners[-1][1] == first:  # the start lies within a straight line
            corners.pop(0)
        rings.append(np.array([corner for corner, _ in corners]))
    return rings


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Directions of the edges that leave each corner."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    sides = (
        (padded[:-2, 1:-1], (0, 0)),  # above: along the top, to the right
        (padded[1:-1, 2:], (0, 1)),  # right: down
        (padded[2:, 1:-1], (1, 1)),  # below: to the left
        (padded[1:-1, :-2], (1, 0)),  # left: up
    )
    edges: dict[tuple[int, int], list[int]] = {}
    for direction, (beyond, (row, column)) in enumerate(sides):
        for r, c in np.argwhere(inner & ~beyond):
            edges.setdefault((int(r) + row, int(c) + column), []).append(direction)
    return edges
