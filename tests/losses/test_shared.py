"""What all losses share: logarithms and powers that keep digits and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.losses import _shared as shared


def test_log_sigmoids_keep_their_digits_from_confident_to_undecided():
    logits = np.concatenate([np.linspace(-90, 90, 4001), np.linspace(-1e-3, 1e-3, 101)])
    logits = logits.astype(np.float32)
    for sign, found in zip(
        (1, -1), shared.log_sigmoids(jnp.asarray(logits)), strict=True
    ):
        expected = -np.logaddexp(0.0, -sign * logits.astype(np.float64))
        normal = np.abs(expected) > 1e-37
        np.testing.assert_allclose(found[normal], expected[normal], rtol=4e-7)
    slope = jax.grad(lambda z: jnp.sum(shared.log_sigmoids(z)[0]))(jnp.asarray(logits))
    expected = 1 / (1 + np.exp(logits.astype(np.float64)))
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 0.75, 1.25, 1.5, 4 / 3])
def test_powers_by_roots_are_powers(exponent):
    base = jnp.asarray(np.geomspace(1e-20, 4.0, 200), jnp.float32)
    found, slope = jax.vmap(jax.value_and_grad(lambda x: shared.power(x, exponent)))(
        base
    )
    exact = np.asarray(base, np.float64)
    np.testing.assert_allclose(found, exact**exponent, rtol=2e-6)
    np.testing.assert_allclose(slope, exponent * exact ** (exponent - 1), rtol=3e-6)
    assert shared.power(jnp.zeros(()), exponent) == 0
