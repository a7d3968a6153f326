"""The unified focal loss against its formula and its constituents."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import losses


def formula(logits, labels, weight, delta, gamma, asymmetric):
    """One image in float64, classes last, background first."""
    z, y = (np.asarray(a, np.float64) for a in (logits, labels))
    if z.shape[-1] == 1:
        z = np.concatenate([np.zeros_like(z), z], -1)
        y = np.concatenate([1 - y, y], -1)
    z, y = (a.reshape(-1, z.shape[-1]) for a in (z, y))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    overlap, pixel = [], 0.0
    for c in range(p.shape[-1]):
        tp = (p[:, c] * y[:, c]).sum()
        fn = ((1 - p[:, c]) * y[:, c]).sum()
        fp = (p[:, c] * (1 - y[:, c])).sum()
        wrong = 1 - (tp + 1e-7) / (tp + delta * fn + (1 - delta) * fp + 1e-7)
        tversky_focal = not asymmetric or c > 0
        overlap.append(wrong ** (1 - gamma) if tversky_focal else wrong)
        focus = (1 - p[:, c]) ** (gamma if not asymmetric or c == 0 else 0)
        price = delta if c > 0 else 1 - delta
        pixel += np.mean(-price * focus * y[:, c] * np.log(p[:, c]))
    return weight * np.mean(overlap) + (1 - weight) * pixel


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 5, 1), (1, 3, 4, 5, 3)])
@pytest.mark.parametrize("soft", [False, True])
def test_value_is_the_formula(make, shape, asymmetric, soft):
    logits, labels = make(shape, soft)
    options = {"weight": 0.3, "delta": 0.7, "gamma": 0.4, "asymmetric": asymmetric}
    expected = [
        formula(z, y, *options.values()) for z, y in zip(logits, labels, strict=True)
    ]
    found = losses.unified_focal_loss(logits, labels, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_focus_it_is_cross_entropy_and_tversky(make):
    logits, labels = make()
    options = {"gamma": 0.0, "delta": 0.7, "asymmetric": False}
    pixel = losses.unified_focal_loss(logits, labels, weight=0.0, **options)
    weighted = losses.cross_entropy_loss(logits, labels, class_weights=(0.3, 0.7))
    chex.assert_trees_all_close(pixel, weighted, rtol=1e-6)
    overlap = losses.unified_focal_loss(logits, labels, weight=1.0, **options)
    tversky = losses.tversky_loss(
        logits,
        labels,
        fp_weight=0.3,
        fn_weight=0.7,
        include_background=True,
        smooth=1e-7,
    )
    chex.assert_trees_all_close(overlap, tversky, rtol=1e-6)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_gradient_by_finite_differences(float64, make, finite_differences, asymmetric):
    logits, labels = make((1, 3, 4, 1), soft=True, dtype=jnp.float64)
    loss = jax.jit(
        lambda z: losses.unified_focal_loss(z, labels, asymmetric=asymmetric).sum()
    )
    expected = finite_differences(loss, logits)
    np.testing.assert_allclose(jax.grad(loss)(logits), expected, rtol=1e-6, atol=1e-9)


def test_a_confident_error_keeps_its_gradient():
    # The authors' program clips probabilities at 1e-7 and loses it.
    logits = jnp.full((1, 4, 4, 1), -40.0)
    slope = jax.grad(lambda z: losses.unified_focal_loss(z, jnp.ones_like(z)).sum())
    assert np.all(slope(logits) < -0.01)
