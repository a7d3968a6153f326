"""Inputs that the tests of the losses share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _strict(strict_promotion):
    """No silent mixing of dtypes or ranks in any test of the losses."""


@pytest.fixture
def mixed(strict_promotion):
    """Promotion between float types allowed, for tests of their choice."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def float64(mixed):
    with jax.enable_x64(True):
        yield


@pytest.fixture
def make():
    """`make(shape, soft=False)`: random logits and labels, one-hot if K > 1."""

    def draw(shape=(2, 6, 5, 1), soft=False, seed=0, dtype=jnp.float32):
        rng = np.random.default_rng(seed)
        logits = rng.normal(0.0, 3.0, shape)
        if shape[-1] == 1:
            labels = rng.random(shape) if soft else rng.random(shape) < 0.3
        elif soft:
            labels = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
        else:
            labels = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
        return jnp.asarray(logits, dtype), jnp.asarray(labels, dtype)

    return draw


@pytest.fixture
def finite_differences():
    """`finite_differences(f, x)`: central differences of a scalar, entry by entry."""

    def slopes(function, x, step=1e-6):
        x = np.asarray(x, np.float64)
        slope = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            ahead, behind = x.copy(), x.copy()
            ahead[index] += step
            behind[index] -= step
            slope[index] = (function(ahead) - function(behind)) / (2 * step)
        return slope

    return slopes
