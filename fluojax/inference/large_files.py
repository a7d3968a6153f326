"""Tables and files of an image whose maps are mapped from files.

As `tables` and `files` make them from arrays in memory, band by band.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from fluojax.files import atomic_file
from fluojax.inference import files, scratch, tables

OVERLAY = 4096  # greatest side of an overlay in pixels
_TILE = 512


def cell_table(
    instances: np.ndarray,
    image: np.ndarray,
    probs: np.ndarray,
    *,
    pixel_size_um: float | None = None,
) -> dict[str, np.ndarray]:
    """`tables.cell_table` of labels 1..N, each of them there, without shapes."""
    count = greatest(instances)
    total: dict[str, np.ndarray] = {}
    for band in scratch.bands(instances.shape):
        part = tables.cell_table(
            instances[band], image[band], probs[band], pixel_size_um=pixel_size_um
        )
        for name in ("centroid_y_px", "bbox_top", "bbox_bottom"):
            part[name] = part[name] + band.start
        total = total or {name: _empty(name, x, count) for name, x in part.items()}
        _add(total, part)
        scratch.release(instances, image, probs)
    area = total["area_px"]
    for name in total:
        if _is_mean(name):
            total[name] = total[name] / area
    total["label"] = np.arange(1, count + 1)
    total["equivalent_diameter_px"] = np.sqrt(4.0 / np.pi * area)
    height, width = instances.shape
    total["touches_border"] = (
        (total["bbox_top"] == 0)
        | (total["bbox_left"] == 0)
        | (total["bbox_bottom"] == height)
        | (total["bbox_right"] == width)
    )
    return total


def _is_mean(name: str) -> bool:
    return name.startswith(("mean_", "centroid_"))


def _empty(name: str, like: np.ndarray, count: int) -> np.ndarray:
    if name in ("bbox_top", "bbox_left"):
        return np.full(count, np.iinfo(np.int64).max)
    if name == "max_intensity":
        lowest = -np.inf if like.dtype.kind == "f" else np.iinfo(like.dtype).min
        return np.full(count, lowest, like.dtype)
    return np.zeros(count, np.float64 if _is_mean(name) else like.dtype)


def _add(total: dict[str, np.ndarray], part: dict[str, np.ndarray]) -> None:
    """The cells of one band; no label is there twice."""
    cells = part["label"] - 1
    for name, values in part.items():
        column = total[name]
        if name in ("bbox_top", "bbox_left"):
            column[cells] = np.minimum(column[cells], values)
        elif name in ("bbox_bottom", "bbox_right", "max_intensity"):
            column[cells] = np.maximum(column[cells], values)
        elif _is_mean(name):
            column[cells] += values * part["area_px"]
        else:
            column[cells] += values


def greatest(array: np.ndarray) -> float:
    """The greatest value, band by band; 0 for an empty array."""
    highest = 0
    for band in scratch.bands(array.shape):
        highest = max(highest, array[band].max(initial=0).item())
        scratch.release(array)
    return highest


def write_labels(path: Path, instances: np.ndarray, spacing_um) -> None:
    """`files.labels_tiff_bytes` as tiles of 512 pixels."""
    small = greatest(instances) <= np.iinfo(np.uint16).max
    _write(path, instances, np.uint16 if small else np.uint32, spacing_um)


def write_probs(path: Path, probs: np.ndarray, spacing_um) -> None:
    """`files.probs_tiff_bytes` as tiles of 512 pixels."""
    _write(path, probs, np.float32, spacing_um)


def _write(path: Path, array: np.ndarray, dtype: type, spacing_um) -> None:
    size = array.size * np.dtype(dtype).itemsize
    with atomic_file(path) as file:
        tifffile.imwrite(
            file,
            _tiles(array, dtype),
            shape=array.shape,
            dtype=dtype,
            tile=(_TILE, _TILE),
            bigtiff=size > 2**32 - 2**25,
            **files.tiff_options(array.ndim, spacing_um),
        )


def _tiles(array: np.ndarray, dtype: type) -> Iterator[np.ndarray]:
    for top in range(0, array.shape[0], _TILE):
        for left in range(0, array.shape[1], _TILE):
            part = array[top : top + _TILE, left : left + _TILE]
            full = np.zeros((_TILE, _TILE), dtype)
            full[: part.shape[0], : part.shape[1]] = part
            yield full
        scratch.release(array)


def overlay_png_bytes(image: np.ndarray, instances: np.ndarray, caption: str) -> bytes:
    """`files.overlay_png_bytes` of every n-th pixel, at most `OVERLAY` a side."""
    step = math.ceil(max(instances.shape) / OVERLAY)
    if step > 1:
        caption = f"{caption}, one in {step} pixels each way"
    shown = (np.array(x[::step, ::step]) for x in (image, instances))
    return files.overlay_png_bytes(*shown, caption)


def boxes(table: dict[str, np.ndarray]) -> Sequence[tuple[slice, slice]]:
    """Where the cells of a table are."""
    sides = (table[f"bbox_{side}"] for side in ("top", "left", "bottom", "right"))
    return [(slice(a, c), slice(b, d)) for a, b, c, d in zip(*sides, strict=True)]
