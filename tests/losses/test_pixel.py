"""Cross-entropy and focal loss."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fluojax import losses

LOG2 = float(np.log(2.0))
SHAPES = [(2, 6, 5, 1), (2, 6, 5, 3), (1, 3, 4, 5, 1), (1, 3, 4, 5, 2)]


def slow_cross_entropy(logits, labels, class_weights=None, weights=None):
    """Terms and weights of every pixel, class by class in float64."""
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if z.shape[-1] == 1:
        z, y = np.concatenate([0 * z, z], -1), np.concatenate([1 - y, y], -1)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    c = np.ones(z.shape[-1]) if class_weights is None else np.asarray(class_weights)
    w = 1.0 if weights is None else np.asarray(weights, np.float64)
    return (-w * c * y * log_p).sum(-1), (w * c * y).sum(-1)


def test_cross_entropy_of_undecided_pixels_by_hand():
    # p = 1/2 everywhere; the one cell among four pixels counts three times.
    labels = jnp.zeros((1, 2, 2, 1)).at[0, 0, 0, 0].set(1.0)
    loss = losses.cross_entropy_loss(jnp.zeros_like(labels), labels, pos_weight=3.0)
    chex.assert_trees_all_close(loss, jnp.array([6 / 4 * LOG2]), rtol=1e-6)


def test_normalizing_by_the_weights_divides_by_their_sum():
    labels = jnp.zeros((1, 2, 2, 1)).at[0, 0, 0, 0].set(1.0)
    logits = jnp.where(labels > 0, -2.0, -1.0)
    loss = losses.cross_entropy_loss(
        logits, labels, pos_weight=3.0, normalize="weights"
    )
    expected = (3 * np.log1p(np.exp(2)) + 3 * np.log1p(np.exp(-1))) / 6
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_the_sum_over_classes_in_a_slow_loop(make, shape, soft):
    logits, labels = make(shape, soft)
    classes = np.linspace(0.5, 2.0, max(shape[-1], 2))
    weights = np.random.default_rng(1).random((*shape[:-1], 1))
    cost, importance = slow_cross_entropy(logits, labels, classes, weights)
    options = {"class_weights": tuple(classes), "weights": jnp.asarray(weights)}
    loss = losses.cross_entropy_loss(logits, labels, **options)
    axes = tuple(range(1, cost.ndim))
    np.testing.assert_allclose(loss, cost.mean(axes), rtol=2e-6)
    loss = losses.cross_entropy_loss(logits, labels, **options, normalize="weights")
    np.testing.assert_allclose(loss, cost.sum(axes) / importance.sum(axes), rtol=2e-6)


def test_cross_entropy_agrees_with_optax(make):
    logits, labels = make(soft=True)
    expected = optax.losses.sigmoid_binary_cross_entropy(logits, labels)
    loss = losses.cross_entropy_loss(logits, labels)
    chex.assert_trees_all_close(loss, expected.mean((1, 2, 3)), rtol=1e-6)
    logits, labels = make((2, 6, 5, 4), soft=True)
    expected = optax.losses.softmax_cross_entropy(logits, labels)
    loss = losses.cross_entropy_loss(logits, labels)
    chex.assert_trees_all_close(loss, expected.mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 0.8])
@pytest.mark.parametrize("soft", [False, True])
def test_focal_agrees_with_optax(make, gamma, alpha, soft):
    logits, labels = make(soft=soft)
    expected = optax.losses.sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    loss = losses.focal_loss(logits, labels, gamma=gamma, alpha=alpha)
    chex.assert_trees_all_close(loss, expected.mean((1, 2, 3)), rtol=5e-6)


def test_focal_of_a_softmax_by_hand():
    # p = (1/2, 1/4, 1/4): (1/2)² log 2 and (3/4)² log 4 on the two pixels.
    logits = jnp.log(jnp.array([[[[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]]]))
    labels = jnp.array([[[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]])
    loss = losses.focal_loss(logits, labels)
    expected = (0.25 * LOG2 + 0.5625 * 2 * LOG2) / 2
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)
    loss = losses.focal_loss(logits, labels, class_weights=(4.0, 2.0, 1.0))
    expected = (4 * 0.25 * LOG2 + 2 * 0.5625 * 2 * LOG2) / 2
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_focal_without_focus_is_cross_entropy(make):
    logits, labels = make((2, 6, 5, 3), soft=True)
    focal = losses.focal_loss(logits, labels, gamma=0.0)
    chex.assert_trees_all_close(
        focal, losses.cross_entropy_loss(logits, labels), rtol=1e-6
    )


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 2.0])
def test_focal_has_finite_gradients_where_a_pixel_is_certain(gamma):
    logits = jnp.array([-1e4, -200.0, -30.0, 0.0, 30.0, 200.0, 1e4])
    logits = jnp.tile(logits, 2).reshape(1, 2, 7, 1)
    labels = jnp.repeat(jnp.array([0.0, 1.0]), 7).reshape(1, 2, 7, 1)
    slope = jax.grad(lambda z: losses.focal_loss(z, labels, gamma=gamma).sum())(logits)
    assert np.all(np.isfinite(slope))
    # A certain error is punished at the full rate of the cross-entropy.
    assert slope[0, 1, 0, 0] == pytest.approx(-1 / 14)
    assert slope[0, 0, 6, 0] == pytest.approx(1 / 14)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: losses.cross_entropy_loss(z, y, pos_weight=20.0),
        lambda z, y: losses.cross_entropy_loss(
            z, y, pos_weight=20.0, normalize="weights"
        ),
        lambda z, y: losses.focal_loss(z, y, alpha=0.8, gamma=3.0),
        lambda z, y: losses.focal_loss(z, y, gamma=0.5),
    ],
)
@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (1, 2, 3, 3)])
def test_gradients_are_those_of_finite_differences(
    float64, make, finite_differences, loss, shape
):
    logits, labels = make(shape, soft=True, dtype=jnp.float64)
    slope = jax.grad(lambda z: loss(z, labels).sum())(logits)
    numeric = finite_differences(jax.jit(lambda z: loss(z, labels).sum()), logits)
    np.testing.assert_allclose(slope, numeric, atol=1e-8 * np.abs(numeric).max() + 1e-9)


def test_the_slope_of_cross_entropy_is_p_minus_y_at_any_logit():
    logits = jnp.array([-1e4, -90.0, -20.0, -1.0, 0.0, 1.0, 20.0, 90.0, 1e4])
    logits = logits.reshape(1, 1, 9, 1)
    slopes = jax.grad(
        lambda z, y: 9 * losses.cross_entropy_loss(z, y * jnp.ones_like(z)).sum()
    )
    probs = 1 / (1 + np.exp(-np.asarray(logits, np.float64).clip(-700, 700)))
    np.testing.assert_allclose(slopes(logits, 0.0), probs, rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(slopes(logits, 1.0), probs - 1, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"normalize": "batch"}, 'normalize must be "pixels" or "weights"'),
        ({"class_weights": (1.0, 2.0, 3.0)}, "one number for each of 2 classes"),
        ({"weights": jnp.ones((2, 3, 3, 1))}, "weights must broadcast to logits"),
        ({"weights": jnp.ones((2, 6, 5))}, r"class axis with weights\[..., None\]"),
    ],
)
def test_cross_entropy_refuses(make, options, text):
    with pytest.raises(ValueError, match=f"^cross_entropy_loss: .*{text}"):
        losses.cross_entropy_loss(*make(), **options)


def test_a_map_without_any_weight_costs_nothing(make):
    logits, labels = make()
    for normalize in ("pixels", "weights"):
        value, slope = jax.value_and_grad(
            lambda z, how=normalize: losses.cross_entropy_loss(
                z, labels, weights=jnp.zeros_like(z), normalize=how
            ).sum()
        )(logits)
        assert value == 0 and not np.any(slope)
