"""Intervals of scores against a slow loop that draws the images again."""

import numpy as np
import pytest

from fluojax.inference import evaluation, intervals

OPTIONS = evaluation.Options()


def rows(count, seed=0, empty=False):
    """Rows as `score_image` makes them, of made-up counts."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        true, pred = (0, 0) if empty else rng.integers(1, 20, 2).tolist()
        hits = int(min(true, pred) * rng.random())
        row = {"image": f"i{number}", "n_true": true, "n_pred": pred}
        for rule in ("px", "iou", "50", "distance", "pq"):
            row |= {f"tp_{rule}": hits, f"fp_{rule}": pred - hits}
            row |= {f"fn_{rule}": true - hits}
        row |= {"pq_tp": hits, "pq_fp": pred - hits, "pq_fn": true - hits}
        row |= {"pq_iou": 0.8 * hits, "aji": np.nan if empty else rng.random()}
        made.append(row | {"tp_ap": [hits] * 5 + [0] * 5})
    return made


def test_intervals_equal_those_of_a_loop_over_the_drawings():
    made = rows(7)
    found = intervals.bootstrap(made, draws=50, seed=3)
    rng = np.random.default_rng(3)
    drawings = rng.integers(0, 7, (50, 7))
    slow = [
        evaluation.summarise([made[i] for i in chosen], OPTIONS, "instances")
        for chosen in drawings
    ]
    names = {"dice", "iou", "f1_iou", "f1_50", "f1_distance", "ap", "pq", "aji"}
    names |= {"mae", "medae", "mpe"}
    assert set(found) == names
    for name in names:
        expected = np.percentile([scores[name] for scores in slow], [2.5, 97.5])
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


def test_intervals_hold_the_score_and_shrink_with_more_images():
    few, many = rows(10), rows(10) * 10
    score = evaluation.summarise(few, OPTIONS, "instances")["f1_iou"]
    (low, high), (lower, higher) = (
        intervals.bootstrap(made)["f1_iou"] for made in (few, many)
    )
    assert low < lower < score < higher < high
    # Ten times the images: the spread shrinks by about the root of ten.
    assert (high - low) / (higher - lower) == pytest.approx(10**0.5, rel=0.2)


def test_one_image_and_undefined_scores_have_no_interval():
    assert set(intervals.bootstrap(rows(1)).values()) == {None}
    found = intervals.bootstrap(rows(3, empty=True), draws=20)
    assert found["f1_iou"] is found["aji"] is found["dice"] is None
    assert found["mae"] == [0, 0]


def test_the_same_rows_give_the_same_intervals_in_pieces_or_at_once(monkeypatch):
    whole = intervals.bootstrap(rows(9), draws=40)
    assert whole == intervals.bootstrap(rows(9), draws=40)
    monkeypatch.setattr(intervals, "_CHUNK", 60)
    assert whole == intervals.bootstrap(rows(9), draws=40)
