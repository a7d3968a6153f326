"""Calibration: by hand, against loops over bins, and large images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import metrics

pytestmark = pytest.mark.usefixtures("strict_promotion")


def slow_error(right, confidence, norm, bins):
    """float64, one bin after the other, [low, high) and the last one of 1s."""
    edges = [*np.linspace(0, 1, bins + 1, dtype=np.float32), np.inf]
    gaps, shares = [], []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence >= low) & (confidence < high)
        if inside.any():
            values = confidence[inside].astype(np.float64)
            gaps.append(abs(right[inside].mean() - values.mean()))
            shares.append(inside.mean())
    if norm == "max":
        return max(gaps)
    power = {"l1": 1, "l2": 2}[norm]
    return np.dot(shares, np.power(gaps, power)) ** (1 / power)


def test_errors_by_hand():
    true = np.array([[1, 0, 1, 1]])
    pred = np.array([[0.1, 0.3, 0.8, 1.0]], np.float32)
    # Two bins and that of 1: means .2, .8, 1 against shares 1/2, 1, 1.
    error = metrics.expected_calibration_error
    expected = {"l1": (2 * 0.3 + 0.2) / 4, "l2": np.sqrt((2 * 0.09 + 0.04) / 4)}
    expected["max"] = 0.3
    for norm, value in expected.items():
        found = error(true, pred, norm=norm, bins=2)
        np.testing.assert_allclose(found, value, rtol=1e-6, err_msg=norm)
    squares = (0.9**2 + 0.3**2 + 0.2**2) / 4
    np.testing.assert_allclose(metrics.brier_score(true, pred), squares, rtol=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("shape", [(11, 13), (4, 5, 6)])
def test_a_single_class_equals_a_loop_over_bins(norm, bins, shape):
    rng = np.random.default_rng(bins)
    pred = (rng.random(shape) ** 2).astype(np.float32)
    # Values on the edges of the bins belong to the upper one.
    pred.flat[: bins + 1] = np.linspace(0, 1, bins + 1, dtype=np.float32)
    true = rng.random(shape) < pred**0.7
    found = metrics.expected_calibration_error(true, pred, norm=norm, bins=bins)
    np.testing.assert_allclose(found, slow_error(true, pred, norm, bins), rtol=1e-5)


@pytest.mark.parametrize("shape", [(11, 13), (4, 5, 6)])
def test_several_classes_are_judged_by_the_most_probable_one(shape):
    rng = np.random.default_rng(1)
    pred = rng.dirichlet([0.5] * 4, shape).astype(np.float32)
    true = rng.integers(0, 4, shape).astype(np.uint8)
    right, confidence = pred.argmax(-1) == true, pred.max(-1)
    found = metrics.expected_calibration_error(true, pred, bins=10)
    np.testing.assert_allclose(
        found, slow_error(right, confidence, "l1", 10), rtol=1e-5
    )
    wrong = ((pred - np.eye(4)[true]) ** 2).mean()
    np.testing.assert_allclose(metrics.brier_score(true, pred), wrong, rtol=1e-5)


def test_two_classes_have_the_brier_score_of_the_second():
    rng = np.random.default_rng(2)
    p, true = rng.random((5, 6)).astype(np.float32), rng.integers(0, 2, (5, 6))
    both = metrics.brier_score(true, np.stack([1 - p, p], axis=-1))
    np.testing.assert_allclose(both, metrics.brier_score(true, p), rtol=1e-6)


def test_certain_predictions():
    true = np.array([[True, False, False]])
    right = true.astype(np.float32)
    for norm in ("l1", "l2", "max"):
        error = metrics.expected_calibration_error(true, right, norm=norm)
        assert error == 0.0
        error = metrics.expected_calibration_error(true, 1 - right, norm=norm)
        assert error == 1.0
    assert metrics.brier_score(true, right) == 0.0
    assert metrics.brier_score(true, 1 - right) == 1.0


def test_many_small_probabilities_keep_their_sum_in_float32():
    # Added to one number one after the other, half a million are off by 1e-3.
    pred = np.full((700, 700), 0.03, np.float32)
    error = metrics.expected_calibration_error(np.zeros_like(pred), pred)
    np.testing.assert_allclose(error, 0.03, rtol=1e-5)
    score = metrics.brier_score(np.zeros_like(pred), pred)
    np.testing.assert_allclose(score, 0.03**2, rtol=1e-5)


def test_short_floats_are_computed_in_float32_and_float64_is_kept():
    rng = np.random.default_rng(3)
    true, pred = rng.integers(0, 2, (6, 7)), jnp.asarray(rng.random((6, 7)), "bfloat16")
    for score in (metrics.expected_calibration_error, metrics.brier_score):
        assert score(true, pred) == score(true, pred.astype(jnp.float32))
        assert score(true, pred).dtype == jnp.float32
        with jax.enable_x64(True):
            assert score(true, jnp.asarray(rng.random((6, 7)))).dtype == jnp.float64


@pytest.mark.parametrize("classes", [(), (3,)])
def test_a_batch_under_vmap_equals_its_images(classes):
    rng = np.random.default_rng(4)
    pred = rng.random((3, 5, 6, *classes)).astype(np.float32)
    true = rng.integers(0, 2, (3, 5, 6))
    for score in (metrics.expected_calibration_error, metrics.brier_score):
        batch = jax.jit(jax.vmap(score))(true, pred)
        single = [score(*pair) for pair in zip(true, pred, strict=True)]
        np.testing.assert_allclose(batch, single, rtol=1e-6)


def test_what_does_not_fit_is_refused():
    true, pred = np.zeros((4, 4)), np.zeros((4, 4), np.float32)
    error = metrics.expected_calibration_error
    with pytest.raises(ValueError, match="norm must be l1, l2 or max, got 'l3'"):
        error(true, pred, norm="l3")
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        error(true, pred, bins=0)
    with pytest.raises(TypeError, match="brier_score: pred must be probabilities"):
        metrics.brier_score(true, true.astype(int))
    for shape in ((4, 5), (4,), (4, 4, 2, 1)):
        with pytest.raises(ValueError, match="brier_score: pred must have the shape"):
            metrics.brier_score(true, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="true must be"):
        metrics.brier_score(np.zeros(4), np.zeros(4))
