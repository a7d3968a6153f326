"""Scores of a split: counts first, ratios last."""

import csv
import io

import numpy as np
import pytest

from fluojax.inference import evaluation
from fluojax.inference.evaluation import Options, rows_csv, score_image, summarise

OPTIONS = Options(iou=0.4, distance_px=3.0)


def squares(*corners, size=5, shape=(40, 50)):
    labels = np.zeros(shape, np.int32)
    for number, (row, column) in enumerate(corners, start=1):
        labels[row : row + size, column : column + size] = number
    return labels


def test_counts_by_hand():
    true = squares((2, 2), (2, 20), (20, 2))
    # Hit exactly; moved by one column (IoU 20/30); missed; one invented.
    pred = squares((2, 2), (2, 21), (30, 40))
    row = score_image(true, pred, OPTIONS)
    assert (row["tp_px"], row["fp_px"], row["fn_px"]) == (45, 30, 30)
    assert (row["n_true"], row["n_pred"]) == (3, 3)
    for rule in ("iou", "50", "distance"):
        assert [row[f"{k}_{rule}"] for k in ("tp", "fp", "fn")] == [2, 1, 1], rule
    # At 0.5, 0.55, 0.6, 0.65 both match, above only the exact one.
    assert row["tp_ap"] == [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    scores = summarise([row], OPTIONS, "instances")
    assert scores["f1_iou"] == pytest.approx(2 / 3)
    assert scores["dice"] == pytest.approx(90 / 150)
    assert scores["iou"] == pytest.approx(45 / 105)
    assert scores["ap"] == pytest.approx((4 * 2 / 4 + 6 * 1 / 5) / 10)
    assert scores["pq"] == pytest.approx((1 + 20 / 30) / 3)
    assert (scores["mae"], scores["mpe"]) == (0, 0)


def test_counts_are_summed_before_ratios_are_formed():
    full = squares((2, 2), (2, 20), (20, 2))
    rows = [
        score_image(full, full, OPTIONS),
        score_image(squares((2, 2)), np.zeros((40, 50), np.int32), OPTIONS),
    ]
    scores = summarise(rows, OPTIONS, "instances")
    assert scores["f1_iou"] == pytest.approx(6 / 7)  # not the mean of 1 and 0
    assert scores["aji"] == pytest.approx(0.5)
    assert scores["mae"] == pytest.approx(0.5)
    assert scores["medae"] == pytest.approx(0.5)
    assert scores["mpe"] == pytest.approx(50)


def test_images_empty_on_both_sides_are_skipped_and_counted():
    empty = np.zeros((40, 50), np.int32)
    full = squares((2, 2))
    rows = [score_image(empty, empty, OPTIONS), score_image(full, full, OPTIONS)]
    scores = summarise(rows, OPTIONS, "components")
    assert (scores["n_images"], scores["n_skipped"]) == (2, 1)
    for name in ("dice", "f1_iou", "f1_50", "ap", "pq", "aji"):
        assert scores[name] == 1
    assert not scores["collapsed"]


def test_nothing_anywhere_is_undefined():
    empty = np.zeros((40, 50), np.int32)
    scores = summarise([score_image(empty, empty, OPTIONS)], OPTIONS, "instances")
    for name in ("dice", "iou", "f1_iou", "f1_distance", "f1_50", "ap", "pq", "aji"):
        assert np.isnan(scores[name]), name


def test_a_network_without_any_cell_is_called_collapsed():
    full, empty = squares((2, 2)), np.zeros((40, 50), np.int32)
    scores = summarise([score_image(full, empty, OPTIONS)], OPTIONS, "instances")
    assert scores["collapsed"]
    assert scores["f1_iou"] == scores["dice"] == scores["pq"] == 0


def test_padding_and_names_of_the_labels_change_nothing():
    true, pred = squares((2, 2), (2, 20)), squares((2, 3), (30, 40))
    other = np.zeros((256, 300), np.int32)
    wide_true, wide_pred = other.copy(), other.copy()
    wide_true[:40, :50] = true * 1000
    wide_pred[:40, :50] = pred * 77
    row = score_image(true, pred, OPTIONS)
    wide = score_image(wide_true, wide_pred, OPTIONS)
    # Only the true background grows.
    assert wide.pop("tn_px") - row.pop("tn_px") == other.size - true.size
    assert row == wide


def test_more_objects_than_the_first_bound_are_all_counted():
    corners = [(r, c) for r in range(0, 96, 4) for c in range(0, 96, 4)]
    labels = squares(*corners, size=2, shape=(96, 96))
    row = score_image(labels, labels, OPTIONS)
    assert row["n_true"] == row["tp_iou"] == row["tp_50"] == 24 * 24


def test_quick_scores_are_a_part_of_the_full_ones():
    true, pred = squares((2, 2), (2, 20)), squares((2, 3), (30, 40))
    quick = score_image(true, pred, OPTIONS, quick=True)
    full = score_image(true, pred, OPTIONS)
    assert quick.items() <= full.items()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="must have one shape"):
        score_image(np.zeros((3, 3), int), np.zeros((3, 4), int), OPTIONS)


def test_rows_of_the_table_have_empty_cells_for_undefined_scores():
    empty = np.zeros((40, 50), np.int32)
    row = {"image": "=cmd", **score_image(empty, empty, OPTIONS)}
    (parsed,) = csv.DictReader(io.StringIO(rows_csv([row])))
    assert parsed["image"] == "'=cmd"
    assert parsed["f1_iou"] == parsed["dice"] == ""
    assert parsed["n_true"] == "0"


def test_one_size_of_padded_maps_compiles_once():
    evaluation._object_counts.clear_cache()
    for shape in ((40, 50), (41, 60), (200, 256)):
        score_image(squares((2, 2), shape=shape), squares((3, 2), shape=shape), OPTIONS)
    assert evaluation._object_counts._cache_size() == 1
