import io
import json
import zipfile

import numpy as np
import pytest
import roifile
import shapely
from scipy import ndimage
from skimage.draw import polygon2mask

from fluojax.inference import outlines as out
from fluojax.inference.tables import cell_table


def random_cells(seed, shape=(60, 70)):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    # Pixel noise: holes that touch each other, the border and themselves.
    field += 0.12 * np.random.default_rng(seed).normal(size=shape)
    labels, _ = ndimage.label(field > 0.12, np.ones((3, 3)))
    return labels


def test_one_pixel_is_a_square_of_corners():
    instances = np.zeros((4, 5), np.int32)
    instances[1, 2] = 7
    (found,) = out.outlines(instances)
    assert found.label == 7 and not found.holes
    assert out.area(found.exterior) == 1
    assert {tuple(corner) for corner in found.exterior} == {
        (1, 2), (1, 3), (2, 3), (2, 2),
    }  # fmt: skip


def test_straight_lines_have_no_corners_between():
    instances = np.zeros((6, 9), np.int32)
    instances[1:4, 2:8] = 1
    (found,) = out.outlines(instances)
    assert len(found.exterior) == 4
    assert out.area(found.exterior) == 18


def test_a_ring_has_a_hole_and_corners_that_touch_stay_together():
    ring = np.ones((5, 5), np.int32)
    ring[2, 2] = 0
    (found,) = out.outlines(ring)
    assert out.area(found.exterior) == 25
    assert [out.area(hole) for hole in found.holes] == [-1]
    (found,) = out.outlines(np.eye(3, dtype=np.int32))
    assert out.area(found.exterior) == 3 and not found.holes
    # A diamond of four: its middle is background that the corners shut in.
    diamond = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    (found,) = out.outlines(diamond)
    assert out.area(found.exterior) + sum(map(out.area, found.holes)) == 4


@pytest.mark.parametrize("seed", range(6))
def test_areas_are_the_numbers_of_pixels(seed):
    instances = random_cells(seed)
    found = out.outlines(instances)
    assert [o.label for o in found] == list(range(1, instances.max() + 1))
    for outline in found:
        assert out.area(outline.exterior) > 0
        inside = out.area(outline.exterior) + sum(map(out.area, outline.holes))
        assert inside == (instances == outline.label).sum()


def test_filled_polygons_are_the_cells():
    instances = random_cells(9)
    for outline in out.outlines(instances):
        filled = ndimage.binary_fill_holes(instances == outline.label)
        # Polygons through pixel corners, tested at pixel centres.
        drawn = polygon2mask(instances.shape, outline.exterior - 0.5)
        np.testing.assert_array_equal(drawn, filled)


def test_the_zip_is_read_back_by_roifile_and_does_not_change(tmp_path):
    instances = random_cells(3)
    found = out.outlines(instances)
    data = out.rois_zip_bytes(found)
    assert data == out.rois_zip_bytes(out.outlines(instances))
    path = tmp_path / "a_rois.zip"
    path.write_bytes(data)
    rois = roifile.roiread(path)
    assert [roi.name for roi in rois] == [str(o.label) for o in found]
    for roi, outline in zip(rois, found, strict=True):
        x, y = roi.coordinates().T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert area == out.area(outline.exterior)


def test_pieces_of_a_cell_are_numbered():
    instances = np.zeros((5, 9), np.int32)
    instances[1, 1] = instances[3, 6] = 4
    found = out.outlines(instances)
    with zipfile.ZipFile(io.BytesIO(out.rois_zip_bytes(found))) as archive:
        assert archive.namelist() == ["4.roi", "4-2.roi"]
    (feature,) = json.loads(out.geojson(found))["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"


def test_geojson_has_closed_rings_x_first():
    instances = np.zeros((4, 6), np.int32)
    instances[1:3, 2:5] = 2
    (feature,) = json.loads(out.geojson(out.outlines(instances)))["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1] and len(ring) == 5
    assert {tuple(point) for point in ring} == {(2, 1), (5, 1), (5, 3), (2, 3)}
    assert feature["properties"]["name"] == "2"


@pytest.mark.parametrize("seed", range(6))
def test_every_polygon_is_valid_and_covers_the_pixels_of_its_cell(seed):
    instances = random_cells(seed)
    # Diagonals, diamonds and holes that meet: one cell of pixels drawn at random.
    instances[:24, :24] = np.random.default_rng(seed).random((24, 24)) < 0.55
    features = json.loads(out.geojson(out.outlines(instances)))["features"]
    assert [f["properties"]["label"] for f in features] == [
        n for n in np.unique(instances) if n
    ]
    for feature in features:
        label = feature["properties"]["label"]
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid, shapely.is_valid_reason(shape)
        rows, columns = np.nonzero(instances == label)
        assert shape.area == len(rows)
        assert shapely.contains_xy(shape, columns + 0.5, rows + 0.5).all()


def test_pixels_that_touch_at_a_corner_are_two_polygons_of_one_cell():
    (feature,) = json.loads(out.geojson(out.outlines(5 * np.eye(2, dtype=int))))[
        "features"
    ]
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert len(feature["geometry"]["coordinates"]) == 2
    assert feature["properties"]["label"] == 5


def test_measurements_are_those_of_the_table_without_what_is_not_known():
    instances = np.zeros((4, 6), np.int32)
    instances[1:3, 2:5] = 2
    table = cell_table(instances, instances * 10, None)
    (feature,) = json.loads(out.geojson(out.outlines(instances), table))["features"]
    told = feature["properties"]["measurements"]
    assert told["area_px"] == 6 and told["mean_intensity"] == 20
    assert "mean_probability" not in told and "area_um2" not in told


def test_no_cells_give_an_empty_set():
    assert out.outlines(np.zeros((3, 3), np.int32)) == []
    assert json.loads(out.geojson([]))["features"] == []
