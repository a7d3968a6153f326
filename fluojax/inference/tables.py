"""Tables of cells and of counts: columns as arrays, then text.

Coordinates are those of pixel centres, rows first, origin 0. Intensities are
those of the file, not of the normalised network input. Text is comma separated
with `\\n`, a point as decimal sign, and empty cells for what is not known.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

COUNT_COLUMNS = (
    "image",
    "count",
    "true_count",
    "foreground_share",
    "max_probability",
    "note",
)
# A spreadsheet takes a cell that starts like this for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def cell_table(
    instances: np.ndarray,
    image: np.ndarray,
    probs: np.ndarray | None,
    *,
    pixel_size_um: float | Sequence[float] | None = None,
    shapes: bool = False,
) -> dict[str, np.ndarray]:
    """One row per cell, as columns of equal length in the order of the labels.

    `label, area_px, area_um2, centroid_y_px, centroid_x_px, bbox_top, bbox_left,
    bbox_bottom, bbox_right, equivalent_diameter_px, mean_intensity,
    max_intensity, mean_probability, touches_border`. Boxes are half open: bottom
    and right are the first row and column beyond the cell. The equivalent
    diameter is that of a disk of the same area. With channels, `mean_intensity`
    and `max_intensity` cover all of them and `mean_intensity_c0`, `_c1`, ...
    follow, then with `shapes` `eccentricity`, `orientation_rad`, `perimeter_px` and
    `solidity` as scikit-image defines them. A label in several pieces is one cell; no cell gives empty columns.

    Args:
      instances: `[H, W]` integers, 0 background, any other value a cell.
      image: `[H, W]` or `[H, W, C]` values as stored in the file.
      probs: `[H, W]` foreground probabilities, or None (NaN in the column).
      pixel_size_um: width of a pixel, or (height, width); None gives NaN areas.
      shapes: also the columns of shape, which take about ten times as long.

    Raises:
      ValueError: `instances` is not an image, or another shape differs from it.
    """
    instances, image = np.asarray(instances), np.asarray(image)
    _check_table(instances, image, probs)
    rows, columns = np.nonzero(instances)
    labels, cell = np.unique(instances[rows, columns], return_inverse=True)
    count = len(labels)
    area = np.bincount(cell, minlength=count)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(cell, weights=values.astype(np.float64), minlength=count)
        return sums / area

    values = image[rows, columns]
    flat = values if values.ndim == 1 else values.mean(axis=1, dtype=np.float64)
    peak = values if values.ndim == 1 else values.max(axis=1, initial=0)
    table = {
        "label": labels,
        "area_px": area,
        "area_um2": area * _pixel_area(pixel_size_um),
        "centroid_y_px": mean(rows),
        "centroid_x_px": mean(columns),
        **_boxes(cell, rows, columns, count),
        "equivalent_diameter_px": np.sqrt(4.0 / np.pi * area),
        "mean_intensity": mean(flat),
        "max_intensity": _extreme(ndimage.maximum, peak, cell, count),
        "mean_probability": (
            np.full(count, np.nan)
            if probs is None
            else mean(np.asarray(probs)[rows, columns])
        ),
    }
    height, width = instances.shape
    table["touches_border"] = (
        (table["bbox_top"] == 0)
        | (table["bbox_left"] == 0)
        | (table["bbox_bottom"] == height)
        | (table["bbox_right"] == width)
    )
    if values.ndim == 2:
        for channel in range(values.shape[1]):
            table[f"mean_intensity_c{channel}"] = mean(values[:, channel])
    return table | _shapes(instances, labels) if shapes else table


def _shapes(instances: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of shape, for any labels."""
    from skimage.measure import regionprops_table

    names = {
        "eccentricity": "eccentricity",
        "orientation": "orientation_rad",
        "perimeter": "perimeter_px",
        "solidity": "solidity",
    }
    if not len(labels):
        return {name: np.zeros(0) for name in names.values()}
    # Rows 1, 2, ... in the order of the labels, which may be negative.
    rows = np.where(instances == 0, 0, np.searchsorted(labels, instances) + 1)
    found = regionprops_table(rows, properties=list(names))
    return {name: found[key] for key, name in names.items()}


def cells_csv(stem: str, table: Mapping[str, np.ndarray]) -> str:
    """The text of `<stem>_cells.csv`: `image` and the columns of `cell_table`."""
    columns = [np.asarray(column).tolist() for column in table.values()]
    rows = ((stem, *row) for row in zip(*columns, strict=True))
    return csv_text(["image", *table], rows)


def counts_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of `counts.csv`, one row per image, columns `COUNT_COLUMNS`.

    Raises:
      ValueError: a row has a column that the table has not.
    """
    rows = list(rows)
    unknown = sorted({name for row in rows for name in row} - set(COUNT_COLUMNS))
    if unknown:
        raise ValueError(
            f"counts_csv: columns are {', '.join(COUNT_COLUMNS)}, "
            f"got {', '.join(unknown)}"
        )
    cells = ([row.get(name) for name in COUNT_COLUMNS] for row in rows)
    return csv_text(COUNT_COLUMNS, cells)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under a header as CSV; NaN and None are empty, formulas are guarded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    """A number to ten digits, or text that no spreadsheet runs."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "" if math.isnan(value) else format(value, ".10g")
    text = str(value)
    guarded = isinstance(value, str) and text.startswith(_FORMULA_STARTS)
    return f"'{text}" if guarded else text


def _boxes(
    cell: np.ndarray, rows: np.ndarray, columns: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    return {
        "bbox_top": _extreme(ndimage.minimum, rows, cell, count),
        "bbox_left": _extreme(ndimage.minimum, columns, cell, count),
        "bbox_bottom": _extreme(ndimage.maximum, rows, cell, count) + 1,
        "bbox_right": _extreme(ndimage.maximum, columns, cell, count) + 1,
    }


def _extreme(
    function: Any, values: np.ndarray, cell: np.ndarray, count: int
) -> np.ndarray:
    """Minimum or maximum per cell; scipy refuses to do it for no cell."""
    if count == 0:
        return np.zeros(0, values.dtype)
    return np.asarray(function(values, cell, np.arange(count)))


def _pixel_area(pixel_size_um: float | Sequence[float] | None) -> float:
    if pixel_size_um is None:
        return math.nan
    height, width = np.broadcast_to(np.asarray(pixel_size_um, np.float64), 2)
    return float(height * width)


def _check_table(
    instances: np.ndarray, image: np.ndarray, probs: np.ndarray | None
) -> None:
    if instances.ndim != 2 or not np.issubdtype(instances.dtype, np.integer):
        raise ValueError(
            "cell_table: instances must be integers [rows, columns], "
            f"got {instances.dtype} {instances.shape}"
        )
    if image.ndim not in (2, 3) or image.shape[:2] != instances.shape:
        raise ValueError(
            "cell_table: image must be [rows, columns] or [rows, columns, channels] "
            f"with the size of instances {instances.shape}, got {image.shape}"
        )
    if probs is not None and np.shape(probs) != instances.shape:
        raise ValueError(
            f"cell_table: probs must have the shape of instances {instances.shape}, "
            f"got {np.shape(probs)}; take one channel with probs[..., 0]"
        )
