"""One image whose maps do not fit into memory: as `predict` does it, from files.

The image, probabilities and labels are mapped from files without name in the
output folder; what is in memory are tiles of them, and the table of the cells.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluojax import config as configs
from fluojax.errors import UserError
from fluojax.files import write_atomic
from fluojax.inference import (
    large,
    large_files,
    outlines,
    prediction,
    scratch,
    tables,
    tiling,
)

RANGE = (1, 99.8)  # percentiles that describe the intensities of an image
ENDINGS = {
    "masks": "_masks.tif",
    "cells": "_cells.csv",
    "rois": "_rois.zip",
    "overlay": "_overlay.png",
    "geojson": ".geojson",
    "probs": "_probs.tif",
}
BYTES = 64  # per pixel, what prediction and tables hold at once in memory


def is_large(picture: np.ndarray, memory: int) -> bool:
    """Whether the maps of an image `[H, W, C]` take more than `memory` bytes."""
    rows_columns = picture.shape[:2]
    return picture.ndim == 3 and BYTES * math.prod(rows_columns) > memory


def allocator(folder: Path, limit: int) -> tiling.Allocate:
    """Makes arrays in memory, those above `limit` bytes in files."""

    def allocate(shape: Sequence[int], dtype: Any) -> np.ndarray:
        if math.prod(shape) * np.dtype(dtype).itemsize <= limit:
            return np.zeros(shape, dtype)
        return scratch.mapped(folder, shape, dtype)

    return allocate


def predict(call, path: Path, picture: np.ndarray) -> dict[str, Any]:
    """Writes the outputs of one image; its row of counts.csv but for the note.

    Raises:
      UserError: shapes of cells are asked for, which need the labels in memory.
    """
    if call.shapes:
        raise UserError(
            f"{path}: --measure full needs all of an image in memory; leave it out"
        )
    allocate = functools.partial(scratch.mapped, call.out)
    limits = [float(x) for x in np.percentile(picture, RANGE)]
    probs = prediction.probabilities(
        call.network, picture, tile=call.tile, tta=call.tta, allocate=allocate
    )
    post = configs.postprocess_options(call.run.config, call.pixel_size_um)
    instances = large.instances_from_probs(
        probs, allocate, threshold=call.run.threshold, **post
    )
    table = large_files.cell_table(
        instances, picture, probs, pixel_size_um=call.pixel_size_um
    )
    holes = _write(call, path, picture, probs, instances, table)
    return {
        "image": path.name,
        "count": len(table["label"]),
        "true_count": "",
        "foreground_share": float(table["area_px"].sum() / instances.size),
        "max_probability": float(large_files.greatest(probs)),
        "holes": holes,
        "range": limits,
    }


def _write(call, path: Path, picture, probs, instances, table) -> int:
    """The files of one image; returns the number of cells with holes."""
    stem, spacing = path.stem, call.pixel_size_um
    places = {kind: call.out / (stem + ending) for kind, ending in ENDINGS.items()}
    drawn: list[outlines.Outline] = []
    if {"rois", "geojson"} & {*call.save}:
        cells = zip(table["label"].tolist(), large_files.boxes(table), strict=True)
        drawn = [p for cell in cells for p in outlines.pieces(instances, *cell)]
        scratch.release(instances)
    caption = f"{stem}: {len(table['label'])} cells"
    contents = {
        "cells": lambda: tables.cells_csv(stem, table),
        "rois": lambda: outlines.rois_zip_bytes(drawn),
        "geojson": lambda: outlines.geojson(drawn, table),
        "overlay": lambda: large_files.overlay_png_bytes(picture, instances, caption),
    }
    for kind in call.save:
        if kind == "masks":
            large_files.write_labels(places[kind], instances, spacing)
        elif kind == "probs":
            large_files.write_probs(places[kind], probs, spacing)
        else:
            write_atomic(places[kind], contents[kind]())
        scratch.release(picture, probs, instances)
    return sum(bool(outline.holes) for outline in drawn)
