"""Dice, Jaccard, Tversky and their powers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fluojax import losses

SHAPES = [(2, 6, 5, 1), (2, 6, 5, 3), (1, 3, 4, 5, 1), (1, 3, 4, 5, 3)]
EVERY = [
    losses.dice_loss,
    losses.jaccard_loss,
    losses.tversky_loss,
    losses.focal_tversky_loss,
    losses.power_mae_loss,
]


def images(logits, labels, include_background):
    """(p, y) of every class of every image, flat, in float64."""
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if z.shape[-1] == 1:
        p = 1 / (1 + np.exp(-z))
        if include_background:
            p, y = np.concatenate([1 - p, p], -1), np.concatenate([1 - y, y], -1)
    else:
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        if not include_background:
            p, y = p[..., 1:], y[..., 1:]
    flat = [a.reshape(len(z), -1, p.shape[-1]) for a in (p, y)]
    return [
        [(flat[0][b, :, c], flat[1][b, :, c]) for c in range(p.shape[-1])]
        for b in range(len(z))
    ]


def mean_over_classes(logits, labels, include_background, formula):
    every = images(logits, labels, include_background)
    return [np.mean([formula(p, y) for p, y in classes]) for classes in every]


def test_dice_by_hand():
    # p is 1/2 on four pixels, one of them a cell: 1 - (2·½ + 1) / (2 + 1 + 1) = ½.
    labels = jnp.zeros((1, 2, 2, 1)).at[0, 0, 0, 0].set(1.0)
    logits = jnp.zeros_like(labels)
    np.testing.assert_allclose(losses.dice_loss(logits, labels), [1 / 2])
    # 2 (Σp + Σy - Σpy) = 5: 1 - 2 / 6 = 2/3.
    np.testing.assert_allclose(losses.jaccard_loss(logits, labels), [2 / 3], rtol=1e-6)
    # TP = FN = 1/2, FP = 3/2: 1 - 1.5 / (1.5 + .3 · 1.5 + .7 · .5) = 16/46.
    tversky = losses.tversky_loss(logits, labels)
    np.testing.assert_allclose(tversky, [16 / 46], rtol=1e-6)
    focal = losses.focal_tversky_loss(logits, labels, exponent=2.0)
    np.testing.assert_allclose(focal, [(16 / 46) ** 2], rtol=1e-6)
    power = losses.power_mae_loss(logits, labels)
    np.testing.assert_allclose(power, [0.5 ** (4 / 3)], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_formulas_hold_in_a_slow_loop(make, shape, soft, background):
    logits, labels = make(shape, soft)

    def check(loss, formula, **options):
        found = loss(logits, labels, include_background=background, **options)
        expected = mean_over_classes(logits, labels, background, formula)
        np.testing.assert_allclose(found, expected, rtol=5e-6)

    def dice(p, y):
        return 1 - (2 * sum(p * y) + 0.5) / (sum(p) + sum(y) + 2)

    def dice_squared(p, y):
        return 1 - (2 * sum(p * y) + 1) / (sum(p**2) + sum(y**2) + 1)

    def dice_l1(p, y):
        return 1 - (sum(p) + sum(y) - sum(abs(p - y)) + 1) / (sum(p) + sum(y) + 1)

    def jaccard(p, y):
        return 1 - (2 * sum(p * y) + 3) / (2 * (sum(p) + sum(y) - sum(p * y)) + 3)

    def tversky(p, y):
        tp, fp, fn = sum(p * y), sum(p * (1 - y)), sum((1 - p) * y)
        return 1 - (tp + 2) / (tp + 0.2 * fp + 0.9 * fn + 2)

    def tversky_l1(p, y):
        tp = (sum(p) + sum(y) - sum(abs(p - y))) / 2
        return 1 - (tp + 2) / (tp + 0.2 * (sum(p) - tp) + 0.9 * (sum(y) - tp) + 2)

    prices = {"fp_weight": 0.2, "fn_weight": 0.9, "smooth": 2.0}
    check(losses.dice_loss, dice, smooth=(0.5, 2.0))
    check(losses.dice_loss, dice_squared, squared=True)
    check(losses.dice_loss, dice_l1, soft_labels="l1")
    check(losses.jaccard_loss, jaccard, smooth=3.0)
    check(losses.tversky_loss, tversky, **prices)
    check(losses.tversky_loss, tversky_l1, **prices, soft_labels="l1")
    check(
        losses.focal_tversky_loss,
        lambda p, y: tversky(p, y) ** 0.75,
        **prices,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_optax_adds_its_smoothing_to_the_intersection(make, shape):
    logits, labels = make(shape)
    theirs = optax.losses.dice_loss(logits, labels, smooth=0.5, ignore_background=True)
    ours = losses.dice_loss(logits, labels, smooth=1.0)
    chex.assert_trees_all_close(ours, theirs, rtol=2e-6)
    options = {"alpha": 0.3, "beta": 0.7, "smooth": 1.0}
    theirs = optax.losses.dice_loss(logits, labels, **options, ignore_background=True)
    chex.assert_trees_all_close(losses.tversky_loss(logits, labels), theirs, rtol=2e-6)


def test_equal_prices_make_tversky_the_dice_loss_with_twice_the_smoothing(make):
    logits, labels = make((2, 6, 5, 3), soft=True)
    tversky = losses.tversky_loss(logits, labels, fp_weight=0.5, fn_weight=0.5)
    dice = losses.dice_loss(logits, labels, smooth=2.0)
    chex.assert_trees_all_close(tversky, dice, rtol=1e-6)


@pytest.mark.parametrize("prices", [(0.3, 0.7), (0.7, 0.3), (0.1, 0.9), (0.5, 0.5)])
def test_tversky_over_flattened_channels_is_the_mean_absolute_error(make, prices):
    # The study's program counts over both channels of all pixels at once. Every
    # false positive of one channel is a false negative of the other.
    logits, labels = make((3, 6, 5, 1))
    probs = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    p = np.concatenate([1 - probs, probs], -1).reshape(3, -1)
    y = np.asarray(jnp.concatenate([1 - labels, labels], -1)).reshape(3, -1)
    tp, fp, fn = (p * y).sum(1), (p * (1 - y)).sum(1), ((1 - p) * y).sum(1)
    index = (tp + 1e-6) / (tp + prices[0] * fp + prices[1] * fn + 1e-6)
    power = losses.power_mae_loss(logits, labels)
    np.testing.assert_allclose(power, (1 - index) ** (4 / 3), rtol=2e-6)


def test_the_power_of_the_error_hardly_minds_a_missed_foreground():
    # 5 % of 400 pixels are cells, nothing is predicted: 0.05^(4/3) = 0.018.
    labels = jnp.zeros((1, 20, 20, 1)).at[0, 3:8, 3:7, 0].set(1.0)
    logits = jnp.full_like(labels, -50.0)
    power = losses.power_mae_loss(logits, labels)
    np.testing.assert_allclose(power, [0.05 ** (4 / 3)], rtol=1e-6)
    assert losses.focal_tversky_loss(logits, labels)[0] > 0.9


def test_collapsed_predictions_keep_a_pull_towards_the_cells():
    # 0.5 % foreground and the empty prediction a network collapses to (p = 1e-4).
    # Dice pulls with about 2 p / 9 on each of 8 cell pixels; the flattened form with
    # 4/3 · 0.005^(1/3) p / 1600 on every pixel, cells or not; cross-entropy with
    # 1 / 1600 on each cell pixel, whatever p is.
    labels = jnp.zeros((1, 40, 40, 1)).at[0, 10:12, 10:14, 0].set(1.0)
    logits = jnp.full_like(labels, -9.2)

    def pull(loss):
        slope = jax.grad(lambda z: loss(z, labels).sum())(logits)
        return float(jnp.linalg.norm(slope))

    p = 1 / (1 + np.exp(9.2))
    mean_error = (0.005 * (1 - p) + 0.995 * p) ** (1 / 3) * 4 / 3
    expected = mean_error * p * (1 - p) / 1600 * np.sqrt(1600)
    assert pull(losses.power_mae_loss) == pytest.approx(expected, rel=1e-3)
    by_cross_entropy = pull(losses.cross_entropy_loss)
    assert by_cross_entropy == pytest.approx(np.sqrt(8) / 1600, rel=1e-3)
    assert pull(losses.dice_loss) > 10 * pull(losses.power_mae_loss)
    assert by_cross_entropy > 20 * pull(losses.dice_loss)
    for loss in EVERY:
        assert pull(loss) > 1e-7


@pytest.mark.parametrize("loss", EVERY)
def test_confident_errors_keep_their_slope(loss):
    # float32 rounds p to 1 from a logit of 17 on; the slope must not follow.
    logits = jnp.array([25.0, 0.0, -25.0, 3.0]).reshape(1, 2, 2, 1)
    labels = jnp.array([0.0, 1.0, 1.0, 0.0]).reshape(1, 2, 2, 1)
    slope = jax.grad(lambda z: loss(z, labels).sum())(logits)[0, ..., 0]
    assert slope[0, 0] > 1e-13 and slope[1, 0] < -1e-13


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("shape", [(1, 3, 4, 1), (1, 2, 3, 3)])
def test_gradients_are_those_of_finite_differences(
    float64, make, finite_differences, loss, shape
):
    logits, labels = make(shape, soft=True, dtype=jnp.float64)
    slope = jax.grad(lambda z: loss(z, labels).sum())(logits)
    numeric = finite_differences(jax.jit(lambda z: loss(z, labels).sum()), logits)
    np.testing.assert_allclose(slope, numeric, atol=1e-8 * np.abs(numeric).max() + 1e-9)


@pytest.mark.parametrize("exponent", [0.5, 0.75, 1.0, 4 / 3, 2.0])
def test_powers_have_finite_slopes_where_the_prediction_is_exact(exponent):
    labels = jnp.zeros((1, 4, 4, 1)).at[0, 1:3, 1:3, 0].set(1.0)
    logits = jnp.where(labels > 0, 1e4, -1e4)
    for loss in (losses.focal_tversky_loss, losses.power_mae_loss):
        value, slope = jax.value_and_grad(
            lambda z, f=loss: f(z, labels, exponent=exponent).sum()
        )(logits)
        assert value == 0 and not np.any(slope)


def test_a_good_prediction_keeps_its_digits_in_float32(float64):
    labels = jnp.zeros((1, 16, 16, 1)).at[0, 3:9, 3:9, 0].set(1.0)
    logits = jnp.where(labels > 0, 12.0, -12.0)
    for loss in EVERY:
        exact = loss(logits.astype(jnp.float64), labels)
        single = loss(logits.astype(jnp.float32), labels)
        np.testing.assert_allclose(single, exact, rtol=2e-2)


@pytest.mark.parametrize("smooth", [0.1, 1.0, 10.0])
def test_moving_mass_onto_the_cell_lowers_the_loss(smooth):
    labels = jnp.zeros((1, 8, 8, 1)).at[:, 2:5, 2:5].set(1.0)
    shifts = [jnp.roll(8.0 * labels - 4.0, s, axis=1) for s in (3, 2, 1, 0)]
    for loss in (losses.dice_loss, losses.jaccard_loss, losses.tversky_loss):
        values = jnp.stack([loss(x, labels, smooth=smooth)[0] for x in shifts])
        assert np.all(np.diff(values) < 0), values


def test_empty_images_as_documented():
    empty = jnp.zeros((1, 8, 8, 1))
    nothing = jnp.full_like(empty, -1e4)
    for smooth in (0.0, 1e-6, 1.0):
        for loss in (losses.dice_loss, losses.tversky_loss):
            assert loss(nothing, empty, smooth=smooth)[0] == 0
    predicted = nothing.at[0, 2, 2, 0].set(1e4)
    assert losses.dice_loss(predicted, empty)[0] == pytest.approx(0.5)
    assert losses.dice_loss(predicted, empty, smooth=0.0)[0] == 1


def test_l1_is_least_at_the_soft_label_and_the_product_is_not():
    labels = jnp.full((1, 4, 4, 1), 0.3)
    there = jnp.log(labels / (1 - labels))
    for loss in (losses.dice_loss, losses.tversky_loss):
        at, beyond = (loss(z, labels, soft_labels="l1") for z in (there, there + 1))
        np.testing.assert_allclose(at, 0.0, atol=1e-6)
        assert beyond[0] > at[0]
        at, beyond = (loss(z, labels) for z in (there, there + 1))
        assert beyond[0] < at[0]


def test_class_weights_multiply_the_classes_before_their_mean(make):
    logits, labels = make((2, 6, 5, 3))
    ones = losses.dice_loss(logits, labels, class_weights=(1.0, 0.0))
    other = losses.dice_loss(logits, labels, class_weights=(0.0, 1.0))
    both = losses.dice_loss(logits, labels)
    chex.assert_trees_all_close(ones + other, both, rtol=1e-6)
    weighted = losses.dice_loss(logits, labels, class_weights=(3.0, 0.5))
    chex.assert_trees_all_close(weighted, 3.0 * ones + 0.5 * other, rtol=1e-6)


def test_integer_weights_count_pixels_as_often_as_repeating_them(make):
    logits, labels = make((2, 4, 4, 1))
    once = jnp.ones((2, 4, 4, 1)).at[:, :, 2:].set(2.0)
    repeated = [jnp.concatenate([a, a[:, :, 2:]], axis=2) for a in (logits, labels)]
    for loss in (losses.dice_loss, losses.jaccard_loss):
        chex.assert_trees_all_close(
            loss(logits, labels, weights=once), loss(*repeated), rtol=1e-6
        )


@pytest.mark.parametrize(
    "loss, options, text",
    [
        (losses.dice_loss, {"soft_labels": "l2"}, 'soft_labels must be "product"'),
        (losses.tversky_loss, {"soft_labels": ""}, 'soft_labels must be "product"'),
        (losses.dice_loss, {"class_weights": (1.0, 2.0)}, "each of 1 classes"),
        (losses.dice_loss, {"weights": jnp.ones((2, 6))}, "weights must broadcast"),
    ],
)
def test_refusals(make, loss, options, text):
    with pytest.raises(ValueError, match=f"^{loss.__name__}: .*{text}"):
        loss(*make(), **options)


def generalized(p, y, weights):
    """p, y: `[K, N]`."""
    apart = weights @ np.sum(p + y - 2 * p * y, axis=1)
    return apart / (weights @ np.sum(p + y, axis=1) + 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighting", ["square", "simple", "uniform"])
def test_generalized_dice_weighs_all_classes_by_rarity(make, shape, weighting):
    logits, labels = make(shape)
    exponent = {"square": 2, "simple": 1, "uniform": 0}[weighting]
    found = losses.generalized_dice_loss(logits, labels, weighting=weighting)
    for pairs, value in zip(images(logits, labels, True), found, strict=True):
        p, y = np.stack(pairs, axis=1)
        weights = 1.0 / y.sum(1) ** exponent
        expected = generalized(p, y, weights)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_generalized_dice_gives_an_absent_class_the_largest_finite_weight(make):
    logits, labels = make((1, 6, 5, 3))
    labels = jnp.asarray(np.eye(3)[np.asarray(labels.argmax(-1)) % 2], jnp.float32)
    p, y = np.stack(images(logits, labels, True)[0], axis=1)
    weights = 1.0 / y[:2].sum(1) ** 2
    expected = generalized(p, y, np.append(weights, weights.max()))
    found = losses.generalized_dice_loss(logits, labels)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_generalized_dice_refuses_another_weighting(make):
    with pytest.raises(ValueError, match="weighting must be one of square, simple"):
        losses.generalized_dice_loss(*make(), weighting="cube")
