"""Contour and distance losses against their formulas, SciPy and each other."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import losses

LOSSES = [
    losses.contour_weighted_loss,
    losses.separable_contour_loss,
    losses.boundary_loss,
    losses.hausdorff_loss,
]
each = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


def square(size=8, low=2, high=6):
    return jnp.zeros((1, size, size, 1)).at[:, low:high, low:high].set(1.0)


def probabilities(logits):
    z = np.asarray(logits, np.float64)
    return 1 / (1 + np.exp(-z))


def block(rank):
    return np.ones((3,) * rank)


def contour(mask, mode):
    """3^d contour of one mask; what lies outside the image counts for nothing."""
    element = block(mask.ndim)
    grown = ndimage.binary_dilation(mask, element)
    shrunk = ndimage.binary_erosion(mask, element, border_value=1)
    ends = {"both": (grown, shrunk), "inner": (mask, shrunk), "outer": (grown, mask)}
    return ends[mode][0] & ~ends[mode][1]


@pytest.mark.parametrize("shape", [(2, 9, 8, 1), (1, 4, 5, 6, 1)])
def test_contour_weighted_is_the_formula(make, shape):
    logits, labels = make(shape)
    terms = losses.contour_weighted_terms(
        logits, labels, contour_weight=3.0, smooth=0.5
    )
    for b, (z, g) in enumerate(zip(logits[..., 0], labels[..., 0], strict=True)):
        p, g = probabilities(z), np.asarray(g, np.float64)
        w = 1 + 3.0 * contour(g > 0.5, "both")
        cost = -(g * np.log(p) + (1 - g) * np.log(1 - p))
        overlap = 1 - (2 * (w * p * g).sum() + 0.5) / ((w * (p**2 + g**2)).sum() + 0.5)
        np.testing.assert_allclose(terms["cross_entropy"][b], (w * cost).mean(), 2e-5)
        np.testing.assert_allclose(terms["dice"][b], overlap, rtol=2e-5)
    total = losses.contour_weighted_loss(logits, labels, contour_weight=3.0, smooth=0.5)
    chex.assert_trees_all_close(total, sum(terms.values()), rtol=1e-6)


def test_own_weights_replace_the_contours(make):
    logits, labels = make()
    flat = jnp.ones(logits.shape)
    found = losses.contour_weighted_loss(logits, labels, weights=flat)
    plain = losses.cross_entropy_loss(logits, labels) + losses.dice_loss(
        logits, labels, squared=True
    )
    chex.assert_trees_all_close(found, plain, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 9, 8, 1), (1, 4, 5, 6, 1)])
def test_separable_contour_is_the_formula(make, shape):
    logits, labels = make(shape)
    found = losses.separable_contour_loss(logits, labels)
    for b, (z, g) in enumerate(zip(logits[..., 0], labels[..., 0], strict=True)):
        p, g = probabilities(z), np.asarray(g, np.float64)
        c = contour(g > 0.5, "inner").astype(float)
        cost = -(g * np.log(p) + (1 - g) * np.log(1 - p))
        expected = ((1 + 2 * c) * cost).mean() + cost.mean()
        for share in (c, 1 - c):
            both, areas = (share * p * g).sum(), (share * (p + g)).sum()
            expected += 1 - (2 * both + 1e-3) / (areas + 1e-3)
        np.testing.assert_allclose(found[b], expected, rtol=2e-5)


def test_classes_have_contours_of_their_own_and_the_background_none(make):
    logits, labels = make((1, 8, 7, 3))
    maps = [contour(np.asarray(labels[0, ..., k]) > 0.5, "inner") for k in range(3)]
    contours = jnp.asarray(np.stack(maps, -1)[None])
    given = losses.separable_contour_loss(logits, labels, contours=contours)
    chex.assert_trees_all_close(
        losses.separable_contour_loss(logits, labels), given, rtol=1e-6
    )
    spoilt = contours.at[..., 0].set(True)
    chex.assert_trees_all_equal(
        losses.separable_contour_loss(logits, labels, contours=spoilt), given
    )


def signed(mask):
    """Kervadec's field by SciPy."""
    outside = ndimage.distance_transform_edt(~mask)
    return outside - np.where(mask, ndimage.distance_transform_edt(mask) - 1, 0)


@pytest.mark.parametrize("shape", [(2, 9, 8, 1), (1, 4, 5, 6, 1), (1, 9, 8, 3)])
def test_distance_losses_are_their_formulas(make, shape):
    logits, labels = make(shape)
    classes = range(1 if shape[-1] > 1 else 0, shape[-1])
    found = losses.boundary_loss(logits, labels)
    far = losses.hausdorff_loss(logits, labels)
    linear = losses.hausdorff_loss(logits, labels, alpha=1.0)
    z = np.asarray(logits, np.float64)
    if shape[-1] == 1:
        every = probabilities(z)
    else:
        every = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    for b in range(shape[0]):
        boundary, squares, distances = [], [], []
        for k in classes:
            p, g = every[b, ..., k], np.asarray(labels[b, ..., k])
            boundary.append((p * signed(g > 0.5)).mean())
            fields = [
                ndimage.distance_transform_edt(m) + ndimage.distance_transform_edt(~m)
                for m in (p > 0.5, g > 0.5)
            ]
            squares.append(((p - g) ** 2 * (fields[0] ** 2 + fields[1] ** 2)).mean())
            distances.append(((p - g) ** 2 * (fields[0] + fields[1])).mean())
        np.testing.assert_allclose(found[b], np.mean(boundary), rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(far[b], np.mean(squares), rtol=2e-5)
        np.testing.assert_allclose(linear[b], np.mean(distances), rtol=2e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_border_has_no_distances(value):
    logits = jnp.linspace(-3.0, 3.0, 64).reshape(1, 8, 8, 1)
    labels = jnp.full(logits.shape, value)
    slope = jax.grad(lambda z: losses.boundary_loss(z, labels).sum())
    assert losses.boundary_loss(logits, labels) == 0 and not np.any(slope(logits))
    flat = jnp.full(logits.shape, -9.0)
    assert losses.hausdorff_loss(flat, labels) == 0


def test_distances_of_ones_own_replace_those_of_the_labels(make):
    logits, labels = make()
    twice = 2.0 * jnp.ones(logits.shape)
    found = losses.boundary_loss(logits, labels, distances=twice)
    chex.assert_trees_all_close(
        found, 2.0 * jax.nn.sigmoid(logits).mean((1, 2, 3)), rtol=1e-6
    )


@pytest.mark.parametrize("loss", [losses.boundary_loss, losses.hausdorff_loss])
def test_the_farther_a_false_cell_the_dearer(loss):
    labels = jnp.zeros((1, 16, 16, 1)).at[:, 2:5, 2:5].set(1.0)
    values = []
    for place in (6, 9, 12):
        pred = labels.at[:, place : place + 2, place : place + 2].set(1.0)
        values.append(loss(12.0 * pred - 6.0, labels)[0])
    assert np.all(np.diff(values) > 0), values


def test_an_error_on_a_contour_costs_more_than_one_inside():
    labels = square(12, 2, 10)
    right = 8.0 * labels - 4.0
    on_contour = right.at[0, 2, 5, 0].set(-4.0)
    inside = right.at[0, 5, 5, 0].set(-4.0)
    for loss in (losses.contour_weighted_loss, losses.separable_contour_loss):
        assert loss(on_contour, labels) > loss(inside, labels)


@each
def test_gradient_by_finite_differences(float64, make, finite_differences, loss):
    logits, labels = make((1, 4, 4, 1), dtype=jnp.float64)
    function = jax.jit(lambda z: loss(z, labels).sum())
    expected = finite_differences(function, logits)
    found = jax.grad(function)(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@each
def test_pixels_that_do_not_count_leave_all_sums(make, loss):
    # Distances and contours see the labels beside; here there are none.
    logits, labels = make((1, 8, 8, 1))
    labels = labels.at[:, 5:].set(0.0)
    where = jnp.ones((1, 8, 8, 1), bool).at[:, 6:].set(False)
    rubbish = jnp.where(where, logits, jnp.nan)
    value, slope = jax.value_and_grad(lambda z: loss(z, labels, where=where).sum())(
        rubbish
    )
    clean = loss(jnp.where(where, logits, 9.0), labels, where=where).sum()
    chex.assert_trees_all_close(value, clean, rtol=1e-6)
    assert np.all(np.isfinite(slope)) and not np.any(slope[:, 6:])
    nowhere = jnp.zeros_like(where)
    assert loss(logits, labels, where=nowhere) == 0


@each
def test_a_two_class_head_equals_the_difference_of_its_logits(make, loss):
    logits, labels = make()
    heads = jnp.concatenate([jnp.zeros_like(logits), logits], -1)
    pair = jnp.concatenate([1.0 - labels, labels], -1)
    chex.assert_trees_all_close(
        loss(heads, pair), loss(logits, labels), rtol=1e-5, atol=1e-6
    )


def test_arrays_of_other_shapes_are_refused(make):
    logits, labels = make()
    for loss, name in (
        (losses.contour_weighted_loss, "weights"),
        (losses.separable_contour_loss, "contours"),
        (losses.boundary_loss, "distances"),
    ):
        refused = functools.partial(loss, **{name: jnp.ones((2, 6, 5))})
        with pytest.raises(ValueError, match=f"{name} must broadcast to logits"):
            refused(logits, labels)
