"""Pixel scores: by hand, against loops, and the values of 0/0."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import metrics

TRUE = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
PRED = np.array([[1, 0, 0, 9], [1, 0, 0, 0]])  # TP 2, FP 1, FN 1, TN 4

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
def test_scores_by_hand_for_masks_of_any_dtype(dtype):
    true, pred = TRUE.astype(dtype), PRED.astype(dtype)
    chex.assert_trees_all_equal(
        metrics.confusion(true, pred), jnp.array([[4, 1], [1, 2]], jnp.int32)
    )
    expected = {
        "accuracy": 6 / 8,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "specificity": 4 / 5,
        "dice": 2 / 3,
        "iou": 2 / 4,
        "mcc": (2 * 4 - 1) / (3 * 5),
        "balanced_accuracy": (2 / 3 + 4 / 5) / 2,
        "macro_f1": (2 / 3 + 4 / 5) / 2,
        "micro_f1": 6 / 8,
        "weighted_f1": (3 * 2 / 3 + 5 * 4 / 5) / 8,
    }
    for name, value in expected.items():
        actual = getattr(metrics, name)(true, pred)
        np.testing.assert_allclose(actual, value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["dice", "iou", "precision", "recall"])
def test_two_empty_masks_are_undefined_unless_a_value_is_given(name):
    empty = np.zeros((3, 3))
    score = getattr(metrics, name)
    assert np.isnan(score(empty, empty))
    assert score(empty, empty, empty_value=1.0) == 1.0


def test_one_empty_mask_is_the_worst_overlap_and_no_correlation():
    empty = np.zeros_like(TRUE)
    for true, pred in ((TRUE, empty), (empty, TRUE)):
        assert metrics.dice(true, pred) == 0 and metrics.iou(true, pred) == 0
        assert metrics.mcc(true, pred) == 0
    assert np.isnan(metrics.precision(TRUE, empty))
    assert np.isnan(metrics.recall(empty, TRUE))


def test_correlation_of_equal_constants_is_undefined():
    full = np.ones((2, 2))
    assert np.isnan(metrics.mcc(full, full))
    assert metrics.mcc(full, 0 * full) == 0
    assert metrics.mcc(TRUE, TRUE) == 1


@pytest.mark.parametrize("shape", [(12, 9), (5, 6, 4)])
def test_class_maps_agree_with_a_loop_and_skip_other_values(shape):
    rng = np.random.default_rng(3)
    true, pred = rng.integers(0, 4, (2, *shape))
    true[0, 0], pred[1, 1] = 255, -1
    inside = (true < 3) & (pred < 3) & (pred >= 0)  # class 3 is out of range too
    table = np.zeros((3, 3), int)
    for a, b in zip(true[inside], pred[inside], strict=True):
        table[a, b] += 1
    actual = metrics.confusion(true, pred, num_classes=3)
    np.testing.assert_array_equal(actual, table)
    scores = metrics.per_class(true, pred, num_classes=3)
    for k in range(3):
        tp, fn, fp = table[k, k], table[k].sum(), table[:, k].sum()
        np.testing.assert_allclose(scores.f1[k], 2 * tp / (fn + fp), rtol=1e-6)
        np.testing.assert_allclose(scores.iou[k], tp / (fn + fp - tp), rtol=1e-6)


def test_uint8_classes_do_not_wrap():
    true = np.full((2, 2), 20, np.uint8)
    assert metrics.confusion(true, true, num_classes=30)[20, 20] == 4


def test_an_absent_class_counts_in_the_macro_but_not_in_the_balanced_mean():
    true, pred = np.zeros((2, 2), int), np.zeros((2, 2), int)
    assert metrics.macro_f1(true, pred, num_classes=2) == 0.5
    assert metrics.macro_f1(true, pred, num_classes=2, empty_value=1.0) == 1.0
    assert metrics.balanced_accuracy(true, pred, num_classes=2) == 1.0
    assert np.isnan(metrics.per_class(true, pred, num_classes=2).f1[1])


@pytest.mark.parametrize("name", ["confusion", "dice", "mcc", "balanced_accuracy"])
def test_a_batch_under_vmap_equals_its_images(name):
    rng = np.random.default_rng(0)
    true, pred = rng.integers(0, 2, (2, 3, 6, 7))
    score = getattr(metrics, name)
    batch = jax.jit(jax.vmap(score))(true, pred)
    single = jnp.stack([score(t, p) for t, p in zip(true, pred, strict=True)])
    chex.assert_trees_all_close(batch, single, rtol=1e-6)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="confusion: true and pred must have one shape"
    ):
        metrics.dice(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="jax.vmap"):
        metrics.dice(np.zeros((1, 2, 3, 1)), np.zeros((1, 2, 3, 1)))
