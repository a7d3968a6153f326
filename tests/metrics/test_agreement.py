"""Panoptic quality, AJI, ensemble Dice, SEG and DET, by hand and by loops."""

import jax
import numpy as np
import pytest
from metrics_cells import iou_table, moved, random_cells
from scipy.optimize import linear_sum_assignment

from fluojax import metrics

pytestmark = pytest.mark.usefixtures("strict_promotion")

BOUND = {"max_instances": 16}
EMPTY = np.zeros((4, 4), int)
CELL = np.eye(4, dtype=int)
SCORES = {
    "pq": lambda t, p: metrics.panoptic_quality(t, p, **BOUND).pq,
    "pq_low": lambda t, p: metrics.panoptic_quality(t, p, threshold=0.3, **BOUND).pq,
    "aji": lambda t, p: metrics.aggregated_jaccard(t, p, **BOUND),
    "aji_plus": lambda t, p: metrics.aggregated_jaccard(t, p, plus=True, **BOUND),
    "dice2": lambda t, p: metrics.ensemble_dice(t, p, **BOUND),
    "seg": lambda t, p: metrics.seg_score(t, p, **BOUND).seg,
}


def areas(labels):
    return np.array([np.sum(labels == k) for k in np.unique(labels[labels != 0])])


def intersections(true, pred):
    iou = iou_table(true, pred)
    total = areas(true)[:, None] + areas(pred)[None]
    return np.rint(iou * total / (1 + iou))


@pytest.mark.parametrize("name", SCORES)
def test_equal_maps_are_perfect_and_empty_sides_the_worst(name):
    score = SCORES[name]
    assert score(CELL, CELL) == 1
    assert score(CELL, EMPTY) == 0 and score(EMPTY, CELL) == 0
    assert np.isnan(score(EMPTY, EMPTY))


@pytest.mark.parametrize("name", SCORES)
def test_a_batch_under_vmap_equals_its_images(name):
    true = np.stack([random_cells(s) for s in range(3)])
    pred = np.stack([moved(t, s) for s, t in enumerate(true)])
    batch = jax.jit(jax.vmap(SCORES[name]))(true, pred)
    single = [SCORES[name](t, p) for t, p in zip(true, pred, strict=True)]
    np.testing.assert_allclose(batch, single, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_equals_its_definition(seed, threshold):
    true = random_cells(seed)
    pred = moved(true, seed)
    iou = iou_table(true, pred)
    if threshold >= 0.5:
        kept = iou[iou > threshold]
    else:
        kept = iou[linear_sum_assignment(-iou)]
        kept = kept[kept > threshold]
    tp, fp, fn = len(kept), iou.shape[1] - len(kept), iou.shape[0] - len(kept)
    quality = metrics.panoptic_quality(true, pred, threshold=threshold, **BOUND)
    assert (quality.tp, quality.fp, quality.fn) == (tp, fp, fn)
    np.testing.assert_allclose(
        quality.pq, kept.sum() / (tp + fp / 2 + fn / 2), rtol=1e-5
    )
    np.testing.assert_allclose(quality.dq * quality.sq, quality.pq, rtol=1e-6)


def test_an_iou_of_one_half_is_no_panoptic_match_unless_asked_for():
    true, pred = np.array([[1, 1]]), np.array([[0, 1]])
    assert metrics.panoptic_quality(true, pred).tp == 0
    assert metrics.panoptic_quality(true, pred, strict=False).tp == 1


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_aggregated_jaccard_equals_its_definition(seed, plus):
    true, pred = random_cells(seed), random_cells(seed + 20)
    iou, both = iou_table(true, pred), intersections(true, pred)
    if plus:
        rows, columns = linear_sum_assignment(-iou)
    else:
        rows, columns = np.arange(len(iou)), iou.argmax(axis=1)
    overlapping = both[rows, columns] > 0
    rows, columns = rows[overlapping], columns[overlapping]
    shared = both[rows, columns].sum()
    union = (areas(true)[rows] + areas(pred)[columns]).sum() - shared
    alone = areas(true).sum() - areas(true)[rows].sum()
    alone += areas(pred).sum() - areas(pred)[np.unique(columns)].sum()
    actual = metrics.aggregated_jaccard(true, pred, plus=plus, **BOUND)
    np.testing.assert_allclose(actual, shared / (union + alone), rtol=1e-5)


def test_aggregated_jaccard_may_use_a_prediction_twice():
    true, pred = np.array([[1, 1, 2, 2, 0]]), np.array([[0, 3, 3, 0, 0]])
    # Both pairs: 1 of 3 pixels. Plus: one pair, the other cell alone.
    assert metrics.aggregated_jaccard(true, pred) == np.float32(2 / 6)
    assert metrics.aggregated_jaccard(true, pred, plus=True) == np.float32(1 / 5)


def test_ensemble_dice_by_hand():
    true, pred = np.array([[1, 1, 2, 2, 0]]), np.array([[0, 3, 3, 0, 4]])
    assert metrics.ensemble_dice(true, pred) == np.float32(2 * 2 / (4 + 4))
    apart = np.array([[0, 0, 0, 0, 4]])
    assert metrics.ensemble_dice(true, apart) == 0


def test_a_prediction_on_exactly_half_an_object_is_no_match():
    true, half = np.array([[1, 1, 1, 1]]), np.array([[2, 2, 0, 0]])
    assert metrics.seg_score(true, half).seg == 0
    more = metrics.seg_score(true, np.array([[2, 2, 2, 0]]))
    assert more.seg == 0.75 and more.match[0] == 2


def test_detection_counts_splits_misses_and_inventions():
    true = np.array([[1, 1, 2, 2, 0, 3, 0, 0]])
    pred = np.array([[8, 8, 8, 8, 0, 0, 9, 0]])
    det = metrics.det_score(true, pred)
    assert (det.splits, det.fn, det.fp, det.n_true) == (1, 1, 1, 3)
    np.testing.assert_allclose(det.det, 1 - (5 + 10 + 1) / 30, rtol=1e-6)
    assert metrics.det_score(true, 0 * true).det == 0
    assert np.isnan(metrics.det_score(0 * true, pred).det)


def test_objects_beyond_the_bound_count_as_missed():
    labels = np.arange(1, 13).reshape(3, 4)
    det = metrics.det_score(labels, labels, max_instances=5)
    assert (det.fn, det.fp, det.n_true) == (7, 7, 12)
    assert metrics.panoptic_quality(labels, labels, max_instances=5).fn == 7
    seg = metrics.seg_score(labels, labels, max_instances=5)
    np.testing.assert_allclose(seg.seg, 5 / 12, rtol=1e-6)
