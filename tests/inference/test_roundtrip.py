"""Label images and ROI sets come back from disk as they were."""

import io
import struct
import zipfile

import numpy as np
import pytest
import roifile
import tifffile

from fluojax.inference import files, outlines
from fluojax.jobs.evaluate import read_labels


@pytest.fixture(scope="module")
def objects():
    """1,000 random objects, each in a field of its own; the first has one pixel."""
    rng = np.random.default_rng(0)
    instances = np.zeros((25 * 12, 40 * 12), np.int32)
    for number in range(1, 1001):
        row, column = 12 * ((number - 1) // 40), 12 * ((number - 1) % 40)
        field = instances[row + 1 : row + 11, column + 1 : column + 11]
        if number == 1:
            field[4, 4] = number
            continue
        # Sums of boxes with pixels taken out: bays, holes, corners that touch.
        shape = np.zeros((10, 10), bool)
        for _ in range(3):
            top, left = rng.integers(0, 8, 2)
            shape[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)] = 1
        shape &= rng.random((10, 10)) > 0.15
        shape[tuple(rng.integers(0, 10, 2))] = True
        field[shape] = number
    return instances


def shoelace(x, y):
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def decoded(data):
    """x and y of a polygon by ImageJ's RoiDecoder: header of 64 bytes, big-endian."""
    assert data[:4] == b"Iout"
    kind, (top, left), (count,) = (
        data[6], struct.unpack(">hh", data[8:12]), struct.unpack(">H", data[16:18]),
    )  # fmt: skip
    assert kind == 8  # traced
    numbers = np.frombuffer(data, ">i2", 2 * count, 64)
    return left + numbers[:count].astype(int), top + numbers[count:].astype(int)


def test_rois_of_a_thousand_objects_have_the_areas_of_their_masks(objects, tmp_path):
    found = outlines.outlines(objects)
    data = outlines.rois_zip_bytes(found)
    path = tmp_path / "a_rois.zip"
    path.write_bytes(data)
    by_roifile = {roi.name: roi.coordinates() for roi in roifile.roiread(path)}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        by_hand = {
            name[:-4]: decoded(archive.read(name)) for name in archive.namelist()
        }
    assert len(by_roifile) == len(by_hand) == len(found) >= 1000
    masks = np.bincount(objects.ravel())
    areas = np.zeros(len(masks))
    for outline, name in zip(found, by_hand, strict=True):
        assert name.split("-")[0] == str(outline.label)
        area = shoelace(*by_hand[name])
        assert area == shoelace(*by_roifile[name].T) == outlines.area(outline.exterior)
        # A polygon of ImageJ has no holes; they are known here, and reported.
        areas[outline.label] += area + sum(map(outlines.area, outline.holes))
    np.testing.assert_array_equal(areas[1:], masks[1:])
    assert areas[1] == 1
    assert sum(bool(outline.holes) for outline in found) > 20


@pytest.mark.parametrize("cells", [255, 256, 65_535, 65_536])
def test_every_cell_comes_back_where_types_change(cells, tmp_path):
    instances = np.zeros((2 * 257, 2 * 257), np.int32)
    instances[::2, ::2].flat[:cells] = np.arange(1, cells + 1)
    path = tmp_path / "a_masks.tif"
    path.write_bytes(files.labels_tiff_bytes(instances))
    stored = tifffile.imread(path)
    assert stored.dtype == (np.uint16 if cells < 65_536 else np.uint32)
    np.testing.assert_array_equal(stored, instances)
    np.testing.assert_array_equal(read_labels(path), instances)
