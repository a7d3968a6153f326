"""Weighted sums and the combined losses of the study."""

import chex
import jax.numpy as jnp
import pytest

from fluojax import losses


def test_a_weighted_sum_is_the_sum_of_its_terms(make):
    logits, labels = make()
    total = losses.weighted_sum(
        logits,
        labels,
        terms=(
            ("cross_entropy_loss", 0.5, {"pos_weight": 50.0}),
            ("dice_loss", 2.0),
            ("focal_retinanet", 0.25),
        ),
    )
    expected = (
        0.5 * losses.cross_entropy_loss(logits, labels, pos_weight=50.0)
        + 2.0 * losses.dice_loss(logits, labels)
        + 0.25 * losses.focal_loss(logits, labels, alpha=0.25)
    )
    chex.assert_trees_all_close(total, expected, rtol=1e-6)


def test_the_context_reaches_the_terms_that_take_it(make):
    logits, labels = make()
    where = jnp.ones((2, 6, 5, 1), bool).at[:, 3:].set(False)
    weights = 1.0 + labels
    context = {"where": where, "weights": weights, "instances": None}
    terms = (("cross_entropy_loss", 1.0), ("tversky_loss", 1.0), ("combined", 1.0, {}))
    terms = (*terms[:2], ("combined_loss", 1.0))
    total = losses.weighted_sum(logits, labels, terms=terms, **context)
    expected = (
        losses.cross_entropy_loss(logits, labels, weights=weights, where=where)
        + losses.tversky_loss(logits, labels, where=where)
        + losses.combined_loss(logits, labels, where=where)
    )
    chex.assert_trees_all_close(total, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "terms, text",
    [
        ((), "at least one"),
        (("dice_loss",), "must be .name, weight."),
        ((("dice_loss",),), "must be .name, weight."),
        ((("dice_los", 1.0),), "did you mean dice_loss"),
    ],
)
def test_terms_of_another_form_are_refused(make, terms, text):
    with pytest.raises(ValueError, match=text):
        losses.weighted_sum(*make(), terms=terms)
    with pytest.raises(ValueError, match=text):
        losses.create_loss("weighted_sum", terms=terms)  # before any data is read


def test_combined_is_the_sum_of_its_constituents(make):
    logits, labels = make()
    bce = losses.cross_entropy_loss(logits, labels)
    dice = losses.dice_loss(logits, labels)
    third = losses.focal_loss(logits, labels, gamma=3.0)
    found = losses.combined_loss(logits, labels, weights=(0.2, 0.5, 0.3), gamma=3.0)
    chex.assert_trees_all_close(found, 0.2 * bce + 0.5 * dice + 0.3 * third, rtol=1e-6)
    third = losses.focal_tversky_loss(logits, labels, exponent=2.0, smooth=1e-6)
    found = losses.combined_focal_tversky_loss(
        logits, labels, weights=(0.2, 0.5, 0.3), exponent=2.0, tversky_smooth=1e-6
    )
    chex.assert_trees_all_close(found, 0.2 * bce + 0.5 * dice + 0.3 * third, rtol=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_the_program_sums_dice_over_classes_and_batch(make, classes):
    # Averaged over a batch of 4, the sum per image times 4 is the batch's sum.
    logits, labels = make((4, 6, 5, classes))
    per_class = losses.dice_loss(logits, labels, smooth=1e-6, include_background=True)
    terms = losses.combined_terms(
        logits,
        labels,
        smooth=1e-6,
        dice_reduction="fluocells",
        batch_size_equivalent=4,
    )
    total = max(classes, 2) * per_class.sum()
    chex.assert_trees_all_close(terms["dice"].mean(), total, rtol=1e-6)


def test_flattening_makes_the_third_term_the_power_of_the_error(make):
    logits, labels = make()
    terms = losses.combined_focal_tversky_terms(
        logits, labels, flatten=True, exponent=4 / 3, fn_weight=0.9
    )
    expected = losses.power_mae_loss(logits, labels, exponent=4 / 3)
    chex.assert_trees_all_equal(terms["focal_tversky"], expected)


@pytest.mark.parametrize(
    "loss, terms",
    [
        (losses.combined_loss, losses.combined_terms),
        (losses.combined_focal_tversky_loss, losses.combined_focal_tversky_terms),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "fluocells"])
def test_the_loss_is_the_weighted_sum_of_its_terms(make, loss, terms, reduction):
    logits, labels = make()
    where = jnp.ones((2, 6, 5, 1), bool).at[:, :2].set(False)
    options = {
        "dice_reduction": reduction,
        "batch_size_equivalent": 8,
        "smooth": 0.5,
        "where": where,
    }
    parts = terms(logits, labels, **options)
    weighed = sum(
        w * part for w, part in zip((1.0, 2.0, 3.0), parts.values(), strict=True)
    )
    found = loss(logits, labels, weights=(1.0, 2.0, 3.0), **options)
    chex.assert_trees_all_close(found, weighed, rtol=1e-6)


def test_combined_refuses(make):
    with pytest.raises(ValueError, match="combined_loss: weights must be 3 numbers"):
        losses.combined_loss(*make(), weights=(1.0, 2.0))
    with pytest.raises(ValueError, match='dice_reduction must be "mean" or "fluo'):
        losses.combined_loss(*make(), dice_reduction="sum")
