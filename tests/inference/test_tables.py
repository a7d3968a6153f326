"""Tables of cells and counts: equal to the masks, and safe in a spreadsheet."""

import csv
import io

import numpy as np
import pytest
from skimage import measure

from fluojax.inference import postprocess, tables

COLUMNS = [
    "label", "area_px", "area_um2", "centroid_y_px", "centroid_x_px", "bbox_top",
    "bbox_left", "bbox_bottom", "bbox_right", "equivalent_diameter_px",
    "mean_intensity", "max_intensity", "mean_probability", "touches_border",
]  # fmt: skip


def cells(seed=0, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    probs = rng.random(shape)
    labels = postprocess.instances_from_probs(
        probs, threshold=0.75, closing=0, min_area=3
    )
    return labels, rng.integers(0, 60_000, shape).astype(np.uint16), probs


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_columns_equal_scikit_image():
    labels, image, probs = cells()
    table = tables.cell_table(labels, image, probs, pixel_size_um=(0.5, 0.25))
    assert list(table) == COLUMNS
    regions = measure.regionprops(labels, image)
    for row, region in enumerate(regions):
        values = {name: column[row] for name, column in table.items()}
        assert values["label"] == region.label
        assert values["area_px"] == region.area
        assert values["area_um2"] == region.area * 0.125
        box = [values[f"bbox_{side}"] for side in ("top", "left", "bottom", "right")]
        assert tuple(box) == region.bbox
        np.testing.assert_allclose(
            [values["centroid_y_px"], values["centroid_x_px"]], region.centroid
        )
        diameter = values["equivalent_diameter_px"]
        np.testing.assert_allclose(diameter, region.equivalent_diameter_area)
        np.testing.assert_allclose(values["mean_intensity"], region.intensity_mean)
        assert values["max_intensity"] == region.intensity_max
        inside = labels == region.label
        np.testing.assert_allclose(values["mean_probability"], probs[inside].mean())
    assert len(regions) == len(table["label"]) > 10


def test_totals_of_the_text_equal_the_mask():
    labels, image, probs = cells(1)
    rows = read(tables.cells_csv("a", tables.cell_table(labels, image, probs)))
    assert len(rows) == labels.max()
    assert sum(int(row["area_px"]) for row in rows) == np.count_nonzero(labels)
    sums = sum(float(row["mean_intensity"]) * int(row["area_px"]) for row in rows)
    np.testing.assert_allclose(sums, image[labels > 0].sum(dtype=float), rtol=1e-8)


def test_cells_at_the_border_are_marked():
    labels = np.zeros((6, 6), int)
    labels[0, 2], labels[2, 0], labels[5, 3], labels[3, 5], labels[2:4, 2:4] = range(
        1, 6
    )
    table = tables.cell_table(labels, labels, None)
    np.testing.assert_array_equal(table["touches_border"], [1, 1, 1, 1, 0])
    assert (
        np.isnan(table["area_um2"]).all() and np.isnan(table["mean_probability"]).all()
    )


def test_gaps_and_pieces_keep_their_label():
    labels = np.array([[7, 0, 7], [0, 0, 0], [900, 0, 0]])
    table = tables.cell_table(labels, labels, None)
    np.testing.assert_array_equal(table["label"], [7, 900])
    np.testing.assert_array_equal(table["area_px"], [2, 1])
    np.testing.assert_array_equal(table["bbox_right"], [3, 1])


def test_channels_get_a_column_each():
    labels = np.array([[1, 1, 2]])
    image = np.array([[[10, 0], [20, 2], [5, 100]]], np.uint8)
    table = tables.cell_table(labels, image, None)
    np.testing.assert_array_equal(table["mean_intensity_c0"], [15, 5])
    np.testing.assert_array_equal(table["mean_intensity_c1"], [1, 100])
    np.testing.assert_array_equal(table["mean_intensity"], [8, 52.5])
    np.testing.assert_array_equal(table["max_intensity"], [20, 100])


def test_no_cell_gives_a_header_only():
    empty = np.zeros((4, 4), int)
    text = tables.cells_csv("a", tables.cell_table(empty, empty, empty * 1.0))
    assert text == ",".join(["image", *COLUMNS]) + "\n"


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx"])
def test_names_that_start_like_a_formula_are_quoted(name):
    table = {"label": np.array([1]), "mean_intensity": np.array([-2.5])}
    row = read(tables.cells_csv(name, table))[0]
    assert row["image"] == f"'{name}" and row["mean_intensity"] == "-2.5"
    assert read(tables.counts_csv([{"image": name}]))[0]["image"] == f"'{name}"


def test_names_with_commas_quotes_and_lines_survive():
    name = 'a,"b"\nc ü'
    assert read(tables.counts_csv([{"image": name}]))[0]["image"] == name


def test_counts_leave_the_unknown_empty():
    row = {
        "image": "a",
        "count": 3,
        "foreground_share": 0.125,
        "max_probability": np.nan,
    }
    text = tables.counts_csv([row])
    assert text == (
        "image,count,true_count,foreground_share,max_probability,note\na,3,,0.125,,\n"
    )
    with pytest.raises(ValueError, match="counts_csv: columns are image, .*got cells"):
        tables.counts_csv([{"cells": 1}])


def test_shapes_that_do_not_fit_are_refused():
    labels = np.zeros((4, 5), int)
    with pytest.raises(ValueError, match="instances must be integers"):
        tables.cell_table(labels * 0.5, labels, None)
    with pytest.raises(ValueError, match="image must be .* got"):
        tables.cell_table(labels, np.zeros((5, 4)), None)
    with pytest.raises(ValueError, match="probs must have the shape of instances"):
        tables.cell_table(labels, labels, np.zeros((4, 5, 1)))


def test_columns_of_shape_on_request():
    instances = np.zeros((20, 30), np.int32)
    instances[2:6, 2:22] = -7  # four by twenty
    instances[10:18, 5:13] = 4
    image = instances.astype(np.float32)
    table = tables.cell_table(instances, image, None, shapes=True)
    assert list(table["label"]) == [-7, 4]
    # Axes follow the moments of the rectangle: 1 - (15 / 399).
    np.testing.assert_allclose(
        table["eccentricity"], [np.sqrt(1 - 15 / 399), 0], atol=1e-6
    )
    assert abs(abs(table["orientation_rad"][0]) - np.pi / 2) < 1e-6
    np.testing.assert_allclose(table["solidity"], 1)
    np.testing.assert_allclose(table["perimeter_px"], [44, 28])
    empty = tables.cell_table(
        np.zeros((4, 4), int), np.zeros((4, 4)), None, shapes=True
    )
    assert len(empty["solidity"]) == 0
    assert "solidity" not in tables.cell_table(instances, image, None)
