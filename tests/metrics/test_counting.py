"""Counting errors by hand, with both conventions of the percentage."""

import numpy as np
import pytest

from fluojax import metrics

TRUE, PRED = np.array([10, 0, 4, 2]), np.array([8, 3, 4, 3])

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mae", (2 + 3 + 0 + 1) / 4),
        ("medae", (1 + 2) / 2),
        ("mpe", 100 * (0.2 - 3.0 + 0.0 - 0.5) / 4),
        ("mpe_fluocells", (-0.2 + 3.0 + 0.0 + 0.5) / 4),
        ("mape", 100 * (0.2 + 3.0 + 0.0 + 0.5) / 4),
        ("rmse", np.sqrt((4 + 9 + 0 + 1) / 4)),
    ],
)
def test_errors_by_hand(name, expected):
    actual = getattr(metrics, name)(TRUE, PRED)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_too_few_cells_are_a_positive_error_in_the_published_definition():
    assert metrics.mpe(np.array([10]), np.array([5])) == 50.0
    assert metrics.mpe_fluocells(np.array([10]), np.array([5])) == -0.5


def test_without_images_there_is_no_error():
    assert np.isnan(metrics.mae(np.zeros(0), np.zeros(0)))


def test_counts_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"mae: counts must be two arrays \[images\]"):
        metrics.mae(np.zeros(3), np.zeros(2))
