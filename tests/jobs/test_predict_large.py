"""An image above the memory budget gives the files of one below it."""

import csv
import json

import numpy as np
import pytest
import tifffile

from fluojax.console import Console
from fluojax.jobs import predict

SAVE = ("masks", "cells", "rois", "overlay", "geojson", "probs")


@pytest.fixture(scope="module")
def outputs(trained, tmp_path_factory):
    """The output folder from memory and from files, of one tiled TIFF."""
    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    image = rng.integers(30, 60, (210, 190)).astype(np.uint8)
    for row in range(3, 190, 30):
        for column in range(2, 180, 25):
            image[row : row + 9, column : column + 10] += 180
    tifffile.imwrite(root / "big.tif", image, tile=(64, 64), compression="zlib")
    for name, memory in (("memory", 2**31), ("files", 100_000)):
        predict.predict_files(
            trained[0], [str(root / "big.tif")], root / name, save=SAVE, tile=64,
            pixel_size_um=0.5, memory=memory, console=Console(quiet=True),
        )  # fmt: skip
    return root / "memory", root / "files"


def test_label_images_and_probabilities_are_equal(outputs):
    for ending in ("masks", "probs"):
        one, other = (tifffile.imread(out / f"big_{ending}.tif") for out in outputs)
        assert one.dtype == other.dtype and one.max() > 0
        np.testing.assert_array_equal(one, other)
    with tifffile.TiffFile(outputs[1] / "big_masks.tif") as file:
        page = file.pages[0]
        assert page.is_tiled and page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.tags["XResolution"].value == (20000, 1)  # per cm: 0.5 um


def test_tables_outlines_and_pictures_are_equal(outputs):
    for name in ("big_rois.zip", "big.geojson", "big_overlay.png", "counts.csv"):
        one, other = ((out / name).read_bytes() for out in outputs)
        assert one == other, name
    tables = []
    for out in outputs:
        with open(out / "big_cells.csv", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    assert len(tables[0]) == len(tables[1]) > 20
    for one, other in zip(*tables, strict=True):
        assert list(one) == list(other)
        for name in one:
            numbers = [one[name], other[name]]
            if name not in ("image", "touches_border"):
                numbers = [float(x) for x in numbers]
                assert numbers[0] == pytest.approx(numbers[1], rel=1e-9), name
            else:
                assert numbers[0] == numbers[1]


def test_the_records_agree_and_no_scratch_is_left(outputs):
    one, other = (
        json.loads((out / "predict.json").read_text())["images"]["big"]
        for out in outputs
    )
    assert one == other
    names = [{p.name for p in out.iterdir()} for out in outputs]
    assert names[0] == names[1]


def test_shapes_of_cells_are_refused_for_large_images(trained, outputs, tmp_path):
    lines = []
    console = Console(quiet=True)
    console.line = lines.append
    image = outputs[0].parent / "big.tif"
    code = predict.predict_files(
        trained[0], [str(image)], tmp_path, shapes=True, memory=1000, console=console
    )
    assert code == 4
    assert "--measure full needs all of an image in memory" in lines[0]
