"""The assignment solver against SciPy and optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linear_sum_assignment

from fluojax.metrics.assignment import minimum_assignment, one_to_one

pytestmark = pytest.mark.usefixtures("strict_promotion")


def total(cost, columns):
    rows = np.flatnonzero(np.asarray(columns) >= 0)
    chosen = np.asarray(columns)[rows]
    assert len(set(chosen)) == len(chosen), "a column is used twice"
    assert len(rows) == min(cost.shape)
    return cost[rows, chosen].sum()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 6), (4, 9), (9, 4), (25, 25)])
@pytest.mark.parametrize("kind", ["real", "ties", "negative", "equal"])
def test_the_sum_of_costs_is_that_of_the_arbiters(shape, kind):
    rng = np.random.default_rng(sum(shape))
    solve = jax.jit(minimum_assignment)
    for _ in range(10):
        cost = rng.normal(size=shape).astype(np.float32)
        cost = {
            "real": cost,
            "ties": np.round(cost),
            "negative": -np.abs(cost) - 1,
            "equal": np.zeros_like(cost),
        }[kind]
        actual = total(cost, solve(cost))
        np.testing.assert_allclose(
            actual, cost[linear_sum_assignment(cost)].sum(), atol=1e-5
        )


def test_optax_agrees():
    cost = np.random.default_rng(5).random((12, 12), np.float32)
    rows, columns = optax.assignment.hungarian_algorithm(jnp.asarray(cost))
    actual = total(cost, minimum_assignment(cost))
    np.testing.assert_allclose(actual, cost[rows, columns].sum(), rtol=1e-6)


def test_selected_rows_are_assigned_and_others_are_not():
    cost = np.random.default_rng(2).random((6, 8), np.float32)
    rows = np.array([True, False, True, True, False, False])
    columns = np.asarray(minimum_assignment(cost, rows=rows))
    assert np.array_equal(columns >= 0, rows)
    best = cost[rows][linear_sum_assignment(cost[rows])].sum()
    np.testing.assert_allclose(cost[rows, columns[rows]].sum(), best, rtol=1e-6)


def test_a_batch_under_vmap_equals_its_problems():
    cost = np.random.default_rng(4).random((5, 7, 7), np.float32)
    batch = jax.vmap(minimum_assignment)(cost)
    np.testing.assert_array_equal(batch, [minimum_assignment(c) for c in cost])


def test_rows_that_do_not_compete_are_not_searched():
    wanted = np.eye(4, dtype=bool)
    column = one_to_one(np.where(wanted, -1.0, 0.0).astype(np.float32), wanted, wanted)
    np.testing.assert_array_equal(column, np.arange(4))


def test_more_selected_rows_than_columns_are_refused():
    solve = functools.partial(minimum_assignment, rows=np.ones(3, bool))
    with pytest.raises(ValueError, match="at least as many columns, got"):
        solve(np.zeros((3, 2), np.float32))
