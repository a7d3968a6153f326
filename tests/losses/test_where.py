"""What `where`, class heads, shapes and dtypes mean for every loss alike."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import losses

SINGLE = [
    losses.cross_entropy_loss,
    losses.focal_loss,
    losses.dice_loss,
    losses.jaccard_loss,
    losses.tversky_loss,
    losses.focal_tversky_loss,
    losses.power_mae_loss,
    losses.generalized_dice_loss,
    losses.lovasz_loss,
    losses.unified_focal_loss,
]
COMPOUND = [losses.combined_loss, losses.combined_focal_tversky_loss]


def each(functions):
    return pytest.mark.parametrize("loss", functions, ids=lambda f: f.__name__)


single_loss, every_loss = each(SINGLE), each(SINGLE + COMPOUND)


@single_loss
@pytest.mark.parametrize("classes", [1, 3])
def test_masking_equals_cropping(make, loss, classes):
    logits, labels = make((2, 6, 7, classes))
    where = jnp.zeros((2, 6, 7, 1), bool).at[:, 1:5, 2:6].set(True)
    inside = (slice(None), slice(1, 5), slice(2, 6))
    masked = jax.value_and_grad(lambda z: loss(z, labels, where=where).sum())
    cropped = jax.value_and_grad(lambda z: loss(z, labels[inside]).sum())
    value, slope = jax.jit(masked)(logits)
    crop, crop_slope = jax.jit(cropped)(logits[inside])
    chex.assert_trees_all_close(value, crop, rtol=1e-6)
    chex.assert_trees_all_close(slope[inside], crop_slope, rtol=1e-5, atol=1e-8)
    assert not np.any(np.where(where, 0.0, slope))


@single_loss
@pytest.mark.parametrize("classes", [1, 3])
def test_an_image_without_pixels_costs_nothing_and_leaves_the_others(
    make, loss, classes
):
    logits, labels = make((3, 4, 4, classes))
    where = jnp.ones((3, 4, 4, 1), bool).at[1].set(False)
    values, pull = jax.vjp(jax.jit(lambda z: loss(z, labels, where=where)), logits)
    (slope,) = pull(jnp.ones(3))
    assert values[1] == 0 and not np.any(slope[1])
    chex.assert_trees_all_close(values[::2], loss(logits[::2], labels[::2]), rtol=1e-6)


def test_an_image_without_pixels_costs_nothing_under_any_smoothing(make):
    logits, labels = make((2, 4, 4, 3))
    nowhere = jnp.zeros((2, 4, 4, 1), bool)
    for smooth in (0.0, (0.0, 1e-6), (1.0, 2.0)):
        for loss in (losses.dice_loss, losses.jaccard_loss):
            found = loss(logits, labels, smooth=smooth, where=nowhere)
            chex.assert_trees_all_equal(found, jnp.zeros(2))


@single_loss
def test_rubbish_in_masked_pixels_stays_there(make, loss):
    logits, labels = make((2, 6, 5, 1))
    where = jnp.ones((2, 6, 5, 1), bool).at[:, 4:].set(False)
    spoilt = [jnp.where(where, a, bad) for a, bad in ((logits, jnp.nan), (labels, 9.0))]
    spoilt_loss = jax.value_and_grad(lambda z, y: loss(z, y, where=where).sum())
    value, slope = jax.jit(spoilt_loss)(*spoilt)
    clean = loss(logits, labels, where=where).sum()
    chex.assert_trees_all_close(value, clean, rtol=1e-6)
    assert np.all(np.isfinite(slope))


@each([losses.dice_loss, losses.jaccard_loss])
def test_where_may_differ_between_classes(make, loss):
    logits, labels = make((1, 6, 5, 3))
    where = jnp.ones((1, 6, 5, 3), bool).at[:, :3, :, 2].set(False)
    first = loss(logits, labels, class_weights=(1.0, 0.0))
    second = loss(logits[:, 3:], labels[:, 3:], class_weights=(0.0, 1.0))
    found = loss(logits, labels, where=where)
    chex.assert_trees_all_close(found, first + second, rtol=1e-6)


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_a_two_class_head_equals_the_difference_of_its_logits(make, loss, soft):
    if loss is losses.lovasz_loss:
        pytest.skip("a hinge for one class, a softmax for two")
    logits, labels = make((2, 6, 5, 1), soft)
    shift = jnp.linspace(-3.0, 3.0, 30).reshape(1, 6, 5, 1)
    heads = jnp.concatenate([jnp.zeros_like(logits) + shift, logits + shift], -1)
    pair = jnp.concatenate([1.0 - labels, labels], -1)
    chex.assert_trees_all_close(loss(heads, pair), loss(logits, labels), rtol=5e-6)


@pytest.mark.parametrize(
    "name", sorted({*losses.list_losses()} - {"weighted_sum", "lovasz_loss"})
)
def test_a_two_class_head_equals_the_single_logit_in_every_preset(make, name):
    loss = losses.create_loss(name)
    logits, labels = make((2, 6, 5, 1))
    heads = jnp.concatenate([jnp.zeros_like(logits), logits], -1)
    pair = jnp.concatenate([1.0 - labels, labels], -1)
    chex.assert_trees_all_close(loss(heads, pair), loss(logits, labels), rtol=5e-6)


@single_loss
@pytest.mark.parametrize("classes", [1, 3])
def test_order_and_place_of_pixels_do_not_matter(make, loss, classes):
    logits, labels = make((2, 6, 5, classes), soft=True)
    turned = [jnp.roll(jnp.rot90(a, axes=(1, 2)), 2, axis=1) for a in (logits, labels)]
    chex.assert_trees_all_close(loss(*turned), loss(logits, labels), rtol=2e-6)
    deep = [a[:, None] for a in (logits, labels)]
    chex.assert_trees_all_close(loss(*deep), loss(logits, labels), rtol=2e-6)


@every_loss
def test_bfloat16_logits_are_computed_in_float32(mixed, make, loss):
    logits, labels = make((2, 6, 5, 1))
    short = logits.astype(jnp.bfloat16)
    found = loss(short, labels.astype(jnp.bfloat16))
    assert found.dtype == jnp.float32
    chex.assert_trees_all_equal(found, loss(short.astype(jnp.float32), labels))


@every_loss
def test_labels_may_be_bool_or_integer(make, loss):
    logits, labels = make()
    for dtype in (bool, jnp.int32, jnp.uint8):
        chex.assert_trees_all_equal(
            loss(logits, labels.astype(dtype)), loss(logits, labels)
        )


@every_loss
def test_shapes_and_dtypes_that_are_refused(make, loss):
    # Compounds name the constituent that refuses.
    logits, labels = make()
    with pytest.raises(ValueError, match=r"_loss: logits must be .* logits\[None\]"):
        loss(logits[0], labels[0])
    with pytest.raises(ValueError, match="_loss: labels must have the shape"):
        loss(logits, labels[..., 0])
    with pytest.raises(TypeError, match="_loss: logits must be floating point"):
        loss(labels > 0, labels)
    with pytest.raises(TypeError, match="_loss: where must be bool, got float32"):
        loss(logits, labels, where=labels)
    with pytest.raises(ValueError, match="_loss: where must broadcast"):
        loss(logits, labels, where=jnp.ones((2, 3, 3, 1), bool))
    with pytest.raises(TypeError):
        loss(logits, labels, None)  # keyword-only after labels
