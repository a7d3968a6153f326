"""The Lovász losses against the Jaccard index of sets."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import losses


def sorted_sum(errors, hard, costs):
    """The definition: differences of the Jaccard loss along the sorted errors."""
    order = np.argsort(-errors, kind="stable")
    hard, costs = hard[order], costs[order]
    value, before = 0.0, 0.0
    for i in range(len(hard)):
        kept = hard.sum() - hard[: i + 1].sum()
        union = hard.sum() + (1 - hard[: i + 1]).sum()
        jaccard = 1 - kept / union
        value += costs[i] * (jaccard - before)
        before = jaccard
    return value


def test_hinge_by_hand():
    # Errors 2, 1 (a cell), 0.5: Jaccard losses 1/2, 1, 1 along them.
    logits = jnp.array([[1.0, 0.0], [-0.5, -3.0]])[None, :, :, None]
    labels = jnp.array([[0.0, 1.0], [0.0, 0.0]])[None, :, :, None]
    value = losses.lovasz_loss(logits, labels)
    chex.assert_trees_all_close(value, jnp.array([2.0 / 2 + 1.0 / 2]))


@pytest.mark.parametrize("shape", [(2, 6, 5, 1), (1, 3, 4, 5, 1)])
def test_hinge_is_the_definition(make, shape):
    logits, labels = make(shape)
    found = losses.lovasz_loss(logits, labels)
    for z, y, value in zip(logits, labels, found, strict=True):
        z, y = (np.asarray(a, np.float64).ravel() for a in (z, y))
        errors = 1 - z * (2 * y - 1)
        expected = sorted_sum(errors, y, np.maximum(errors, 0))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("classes", ["present", "all", (1, 2)])
def test_softmax_is_the_definition(make, classes):
    logits, labels = make((2, 6, 5, 3))
    one_hot = np.eye(3)[np.where(np.asarray(labels[1]).argmax(-1) == 2, 1, 0)]
    labels = labels.at[1].set(jnp.asarray(one_hot, labels.dtype))  # class 2 absent
    found = losses.lovasz_loss(logits, labels, classes=classes)
    for z, y, value in zip(logits, labels, found, strict=True):
        z, y = (np.asarray(a, np.float64).reshape(-1, 3) for a in (z, y))
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        each = [
            sorted_sum(abs(y - p)[:, c], y[:, c], abs(y - p)[:, c]) for c in (0, 1, 2)
        ]
        counting = {
            "present": [c for c in (0, 1, 2) if y[:, c].any()],
            "all": [0, 1, 2],
        }.get(classes, classes)
        expected = np.mean([each[c] for c in counting])
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_hard_predictions_cost_the_jaccard_distance(make):
    # Softmax of +-40 is hard: the extension of a set function meets it there.
    labels = make((1, 6, 5, 1))[1]
    wrong = jnp.roll(labels, 1, axis=2)
    heads = jnp.concatenate([40 * (1 - 2 * wrong), 40 * (2 * wrong - 1)], -1)
    pair = jnp.concatenate([1 - labels, labels], -1)
    both = jnp.sum(labels * wrong)
    expected = 1 - both / (jnp.sum(labels) + jnp.sum(wrong) - both)
    found = losses.lovasz_loss(heads, pair, classes=(1,))
    chex.assert_trees_all_close(found[0], expected, rtol=1e-5)


def test_without_cells_only_the_worst_pixel_pulls():
    logits = jnp.array([[0.5, 2.0], [-3.0, 1.0]])[None, :, :, None]
    loss = lambda z: losses.lovasz_loss(z, jnp.zeros_like(z)).sum()  # noqa: E731
    value, slope = jax.value_and_grad(loss)(logits)
    assert value == 3.0
    expected = jnp.zeros_like(logits).at[0, 0, 1, 0].set(1.0)
    chex.assert_trees_all_equal(slope, expected)


@pytest.mark.parametrize("classes", [1, 3])
def test_gradient_by_finite_differences(float64, make, finite_differences, classes):
    logits, labels = make((1, 3, 4, classes), dtype=jnp.float64)
    loss = jax.jit(lambda z: losses.lovasz_loss(z, labels).sum())
    expected = finite_differences(loss, logits)
    np.testing.assert_allclose(jax.grad(loss)(logits), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("classes", ["some", (), (0, 3)])
def test_other_classes_are_refused(make, classes):
    with pytest.raises(ValueError, match='lovasz_loss: classes must be "present"'):
        losses.lovasz_loss(*make((1, 4, 4, 3)), classes=classes)
