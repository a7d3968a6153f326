"""What the protocols of published studies need beside the plain loop."""

import dataclasses

import numpy as np
import pytest

from fluojax.config import Experiment, Term, scaled_study
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError
from fluojax.jobs import train
from fluojax.train import loop, program
from fluojax.train.step import create_loss, pooled, squashed_twice


def batch(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 4, 5, 1)).astype(np.float32)
    labels = (rng.random((3, 4, 5, 1)) < [[[[0.1]]], [[[0.5]]], [[[0.9]]]]).astype("f4")
    return logits, labels, np.ones(logits.shape, bool)


def test_a_pooled_batch_is_one_image():
    logits, labels, where = batch()
    loss = create_loss((Term("focal_tversky_fluocells"),))
    error = np.abs(1 / (1 + np.exp(-logits)) - labels)
    alone, _ = loss(logits, labels, where=where)
    assert float(alone) == pytest.approx(np.mean(error.mean((1, 2, 3)) ** (4 / 3)))
    together, _ = pooled(loss)(logits, labels, where=where, instances=None)
    assert float(together) == pytest.approx(error.mean() ** (4 / 3), rel=1e-5)


def test_probabilities_squashed_twice_lie_between_0_269_and_0_731():
    logits, labels, where = batch()
    loss = squashed_twice(create_loss((Term("cross_entropy_loss"),)))
    p = 1 / (1 + np.exp(-logits.astype(float)))
    again = np.exp(p) / (np.exp(p) + np.exp(1 - p))  # softmax of (1 - p, p)
    assert again.min() > 0.268 and again.max() < 0.732
    wanted = -np.mean(labels * np.log(again) + (1 - labels) * np.log(1 - again))
    value, _ = loss(logits, labels, where=where)
    assert float(value) == pytest.approx(wanted, rel=1e-5)


def test_a_pooled_batch_needs_one_device_and_losses_of_pixels():
    config = Experiment(loss=(Term("dice"),), pool_batch=True)
    with pytest.raises(UserError, match="one device, here are 4"):
        program._loss(config)
    config = dataclasses.replace(config, loss=(Term("blob"),))
    with pytest.raises(UserError, match="losses of instances"):
        program._loss(config)


def test_post_processing_of_the_study_shrinks_with_the_cells():
    assert scaled_study(40) == {
        "smooth_disk": 3, "max_hole_size": 50, "min_area": 200,
        "max_filter_size": 30, "footprint": 40,
    }  # fmt: skip
    # Cells of 9.6 px are 0.24 times as wide.
    assert scaled_study(9.6) == {
        "smooth_disk": 1, "max_hole_size": 3, "min_area": 12,
        "max_filter_size": 7, "footprint": 10,
    }  # fmt: skip
    assert scaled_study(1)["min_area"] == 1
    assert scaled_study(1)["footprint"] == 3


def test_a_run_takes_the_diameter_of_its_data_set_for_it():
    labels = np.zeros((40, 40), np.int32)
    labels[5:25, 5:25] = 1
    record = Record(labels.astype(np.uint8)[..., None], labels, "a", "a")
    config = Experiment(postprocess="study_scaled", postprocess_options={"min_area": 7})
    for name, footprint in (("cells", 23), ("fnc_synth", 10), ("fnc_v2/yellow", 40)):
        data = Dataset(name, {"train": [record], "val": [], "test": []})
        found = train.resolve(dataclasses.replace(config, batch_size=4), data)
        assert found.postprocess == "study"
        assert found.postprocess_options["footprint"] == footprint
        assert found.postprocess_options["min_area"] == 7


def test_only_improvements_beyond_min_delta_count():
    progress = loop.Progress()
    scores = [0.5, 0.504, 0.506, 0.6]
    better = [
        progress.note(k, {"score": s, "foreground": 1.0}, 0.005)
        for k, s in enumerate(scores)
    ]
    assert better == [True, False, True, True]


def test_the_best_step_is_chosen_by_score_dice_or_loss():
    scores = {"dice": 0.8, "f1_50": 0.4}
    chosen = {
        select: train._selection(Experiment(select=select), scores, 0.3)
        for select in ("score", "dice", "loss")
    }
    assert chosen == pytest.approx({"score": 0.6, "dice": 0.8, "loss": -0.3})
    assert train._selection(Experiment(select="dice"), {"dice": np.nan}, 1.0) == 0


@pytest.mark.parametrize("top", [0.1, 0.15, 0.35, 0.5, 0.65, 0.9])
def test_the_best_threshold_is_found_in_nine_calls(top):
    grid = [round(0.1 + 0.05 * k, 2) for k in range(17)]
    asked = []

    def score(t):
        asked.append(t)
        return -abs(t - top)

    assert train.highest(score, grid) == top
    assert len(asked) <= 9
    assert train.highest(lambda t: 1.0, grid) == 0.5


@pytest.mark.parametrize(
    ("top", "start", "found"),
    [(0.99, 0.9, 0.9875), (0.9, 0.9, 0.9), (1.0, 0.9, 0.9984375), (0.02, 0.1, 0.025)],
)
def test_a_threshold_at_the_end_of_its_range_is_sought_beyond(top, start, found):
    assert train.beyond(lambda t: -abs(t - top), start) == pytest.approx(found)
    assert train.beyond(lambda t: 1.0, start) == start


def test_pixels_of_all_validation_images_are_scored_together():
    rows = [
        {"tp_px": 3, "fp_px": 1, "fn_px": 0, "tn_px": 6},
        {"tp_px": 0, "fp_px": 1, "fn_px": 2, "tn_px": 7},
    ]
    found = train._pixel_shares(rows)
    assert found == {"precision": 0.6, "recall": 0.6, "accuracy": 0.8}
    assert np.isnan(train._pixel_shares([rows[1] | {"fp_px": 0}])["precision"])
