"""Losses by name and the constants of the published presets."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import losses

SLIDES = ("bce_w50 bce_w100 bce_w200 dice focal focal_tversky_slides").split()
COMBINED = [
    f"combined_{kind}{name}"
    for kind in ("", "ft_")
    for name in ("balanced", "overcrowd", "cellvit")
]


def test_the_study_has_twelve_configurations_in_two_variants():
    stems = [name.removesuffix("_slides") for name in SLIDES] + COMBINED
    program = [f"{stem}_fluocells" for stem in stems]
    assert len(program) == 12
    assert set(SLIDES) | set(COMBINED) | set(program) <= set(losses.list_losses())


def test_every_public_loss_can_be_created(make):
    public = {name for name in losses.__all__ if name.endswith("_loss")}
    public -= {"create_loss"}
    assert public <= set(losses.list_losses())
    logits, labels = make()
    for name in public:
        values = jax.eval_shape(losses.create_loss(name), logits, labels)
        chex.assert_shape(values, logits.shape[:1])
    for name in ("dice_loss", "contour_weighted_loss", "power_mae_loss"):
        found = losses.create_loss(name)(logits, labels)
        chex.assert_trees_all_equal(found, getattr(losses, name)(logits, labels))


def study(logits, labels, name):
    """The presets as the slides and the program describe them, in NumPy."""
    z, y = np.asarray(logits, np.float64)[..., 0], np.asarray(labels)[..., 0]
    p = 1 / (1 + np.exp(-z))
    axes = (1, 2)
    program = name.endswith("_fluocells")
    stem = name.removesuffix("_fluocells").removesuffix("_slides")

    def bce(w):
        terms = -(w * y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axes)
        return terms / ((w * y + 1 - y).sum(axes) if program else y[0].size)

    def ratio(p, y, s):
        areas = p.sum(axes) + y.sum(axes)
        return 1 - (2 * (p * y).sum(axes) + s) / (areas + s)

    both = ratio(p, y, 1e-6) + ratio(1 - p, 1 - y, 1e-6)
    dice = both / 2 if program else ratio(p, y, 1.0)
    p_t = np.where(y > 0, p, 1 - p)
    focal = -((1 - p_t) ** 2 * np.log(p_t)).mean(axes)
    tp, fp, fn = ((a * b).sum(axes) for a, b in ((p, y), (p, 1 - y), (1 - p, y)))
    index = (tp + 1e-6) / (tp + 0.3 * fp + 0.7 * fn + 1e-6)
    ft = np.abs(p - y).mean(axes) ** (4 / 3) if program else (1 - index) ** 2
    if stem.startswith("bce_w"):
        return bce(float(stem.removeprefix("bce_w")))
    if not stem.startswith("combined"):
        return {"dice": dice, "focal": focal, "focal_tversky": ft}[stem]
    weights = {
        "balanced": (0.3, 0.3, 0.4),
        "overcrowd": (0.2, 0.5, 0.3),
        "cellvit": (0.5, 0.2, 0.5) if program else (0.5, 0.3, 0.5),
    }[stem.split("_")[-1]]
    # Summed over both classes and the 32 images of the study's batches.
    middle = 32 * both if program else dice
    third = ft if "_ft_" in stem else focal
    return weights[0] * bce(1.0) + weights[1] * middle + weights[2] * third


@pytest.mark.parametrize(
    "name",
    [
        *SLIDES,
        *COMBINED,
        *(f"{n.removesuffix('_slides')}_fluocells" for n in SLIDES + COMBINED),
    ],
)
def test_presets_of_the_study_by_hand(make, name):
    logits, labels = make((2, 6, 5, 1))
    found = losses.create_loss(name)(logits, labels)
    np.testing.assert_allclose(found, study(logits, labels, name), rtol=5e-6)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("focal_tversky", lambda z, y: losses.focal_tversky_loss(z, y, exponent=0.75)),
        ("focal_retinanet", lambda z, y: losses.focal_loss(z, y, alpha=0.25)),
        ("focal_imsahlo", lambda z, y: losses.focal_loss(z, y, gamma=3.0, alpha=0.8)),
        ("tversky_imsahlo", lambda z, y: losses.tversky_loss(z, y, smooth=1e-6)),
    ],
)
def test_presets_of_other_papers(make, name, expected):
    chex.assert_trees_all_equal(losses.create_loss(name)(*make()), expected(*make()))


def test_options_replace_those_of_a_preset(make):
    found = losses.create_loss("bce_w50", pos_weight=7.0)(*make())
    expected = losses.cross_entropy_loss(*make(), pos_weight=7.0)
    chex.assert_trees_all_equal(found, expected)
    small = losses.create_loss("combined_balanced_fluocells", batch_size_equivalent=1)
    assert (
        small(*make())[0]
        < losses.create_loss("combined_balanced_fluocells")(*make())[0]
    )


def test_unknown_names_and_options_say_what_is_known():
    with pytest.raises(ValueError, match="unknown loss 'dise'.*did you mean dice"):
        losses.create_loss("dise")
    with pytest.raises(ValueError, match=r"list_losses\(\) names all"):
        losses.create_loss("something_else_entirely")
    with pytest.raises(TypeError, match="bce_w50 has no option smooth; it has pos_w"):
        losses.create_loss("bce_w50", smooth=1.0)


@pytest.mark.parametrize("name", losses.list_losses())
def test_a_step_may_offer_instances_and_where_to_any_loss(make, name):
    logits, labels = make()
    arrays = {
        "instances": jnp.zeros((2, 6, 5), jnp.int32),
        "where": jnp.ones((2, 6, 5, 1), bool),
    }
    terms = (("dice", 1.0), ("combined_loss", 0.5))
    options = {"terms": terms} if name == "weighted_sum" else {}
    loss = losses.create_loss(name, **options)
    result = jax.eval_shape(
        lambda z, y, more: loss(z, y, **more), logits, labels, arrays
    )
    assert result.shape == (2,) and result.dtype == jnp.float32


def test_a_loss_by_name_uses_where_and_its_options_in_a_compiled_step(make):
    logits, labels = make()
    where = jnp.ones((2, 6, 5, 1), bool).at[:, 4:].set(False)
    loss = losses.create_loss("focal_retinanet", gamma=3.0)
    step = jax.jit(lambda z, y, w: loss(z, y, where=w, instances=None))
    expected = losses.focal_loss(logits, labels, gamma=3.0, alpha=0.25, where=where)
    chex.assert_trees_all_close(step(logits, labels, where), expected, rtol=1e-6)


def test_a_misspelt_array_is_refused(make):
    loss = losses.create_loss("dice")
    with pytest.raises(TypeError, match="dice: no loss takes wheer; .* where,"):
        loss(*make(), wheer=None)


def test_pixel_weights_do_not_reach_the_lambdas_of_a_compound(make):
    logits, labels = make()
    loss = losses.create_loss("combined_loss")
    found = loss(logits, labels, weights=jnp.ones_like(logits))
    chex.assert_trees_all_equal(found, losses.combined_loss(logits, labels))
