"""Terms of the ICI loss."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import losses

SQUARE = np.ones((3, 3))


def run(function, *arrays, **options):
    """`function` compiled once, with all arrays among the options as arguments."""
    maps = {k: jnp.asarray(v) for k, v in options.items() if hasattr(v, "shape")}
    static = {k: v for k, v in options.items() if k not in maps}
    call = jax.jit(lambda arrays, maps: function(*arrays, **maps, **static))
    return call(arrays, maps)


def scene():
    """A component over two cells, one over none, a cell half found, one missed."""
    instances = np.zeros((1, 16, 20), np.int32)
    instances[0, 1:5, 1:5], instances[0, 1:5, 6:9] = 4, 2
    instances[0, 8:14, 2:6], instances[0, 12:15, 16:19] = 11, 7
    found = np.zeros((16, 20), bool)
    found[2:5, 2:9], found[10:12, 1:5], found[7:9, 12:16] = True, True, True
    noise = np.random.default_rng(0).uniform(0.2, 3.0, found.shape)
    logits = np.where(found, noise, -noise).astype(np.float32)
    labels = (instances > 0).astype(np.float32)[..., None]
    return (
        jnp.asarray(logits[None, ..., None]),
        jnp.asarray(labels),
        jnp.asarray(instances),
    )


def dice(p, y, smooth=1e-5):
    return 1 - (2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth)


def slow_terms(logits, instances, fp, others_tp, offset=2):
    """The definition, with loops and SciPy's components."""
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))[0, ..., 0]
    ids = np.asarray(instances)[0]
    g = (ids > 0).astype(float)
    components, count = ndimage.label(p >= 0.5, SQUARE)
    costs = []
    for k in np.unique(ids[ids > 0]):
        met = np.isin(components, np.unique(components[(ids == k) & (components > 0)]))
        fp_weight = p if fp == "detached" else 1.0
        mask = met * (1.0 if others_tp else (ids == k) + fp_weight * (1 - g))
        costs.append(dice(p * mask, (ids == k).astype(float)))
    outputs = []
    for j in range(1, count + 1):
        met = np.unique(ids[(components == j) & (ids > 0)])
        outputs.append(dice(p * (components == j), np.isin(ids, met).astype(float)))
    drawings = []
    for objects in (ids, components):
        drawn = np.zeros(ids.shape)
        for k in np.unique(objects[objects > 0]):
            box = []
            for axis, length in enumerate(ids.shape):
                reach = int(np.ceil(length / max(ids.shape) * offset))
                centre = int(np.ceil(np.nonzero(objects == k)[axis].mean()))
                box.append(slice(max(centre - reach - 1, 0), centre + reach))
            drawn[tuple(box)] = 1 + 1e-7
        drawings.append(drawn)
    return {
        "global": dice(p, g),
        "instance": np.mean(costs),
        "instance_output": np.mean(outputs),
        "center": dice(drawings[1], drawings[0]),
        "fdr": 1 - (p * g).sum() / p.sum(),
        "false_instances": 1,
        "missed_instances": 1,
    }


@pytest.mark.parametrize(
    ("fp", "others_tp"), [("plain", False), ("detached", False), ("plain", True)]
)
def test_terms_hold_in_a_slow_loop(fp, others_tp):
    logits, labels, instances = scene()
    found = run(
        losses.dual_ici_terms,
        logits,
        labels,
        instances=instances,
        fp=fp,
        others_tp=others_tp,
        center_offset=2,
    )
    expected = slow_terms(logits, instances, fp, others_tp)
    assert found.keys() == expected.keys()
    for name, number in expected.items():
        np.testing.assert_allclose(found[name], [number], rtol=2e-5, err_msg=name)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    logits, labels, instances = scene()
    terms = run(losses.dual_ici_terms, logits, labels, instances=instances)
    weights = {"global_weight": 0.3, "instance_weight": 0.9, "center_weight": 0.2}
    ici = run(losses.ici_loss, logits, labels, instances=instances, **weights)
    expected = 0.3 * terms["global"] + 0.9 * terms["instance"] + 0.2 * terms["center"]
    chex.assert_trees_all_close(ici, expected, rtol=1e-6)
    dual = run(losses.dual_ici_loss, logits, labels, instances=instances, **weights)
    more = 0.45 * (terms["instance_output"] - terms["instance"])
    chex.assert_trees_all_close(dual, expected + more, rtol=1e-6)


def test_counts_become_rates_and_are_true_beyond_the_bound():
    logits, labels, instances = scene()
    names = ("false_instances", "missed_instances")
    for bound in (1, 2, 256):
        options = {"instances": instances, "max_instances": bound}
        counts, rates = (
            run(losses.ici_terms, logits, labels, rates=r, **options)
            for r in (False, True)
        )
        assert [float(counts[n][0]) for n in names] == [1.0, 1.0]
        np.testing.assert_allclose(
            [rates[n][0] for n in names], [1 / 3, 1 / 4], rtol=1e-6
        )


def test_empty_images_have_the_values_that_are_documented():
    logits, labels, instances = scene()
    nothing = jnp.zeros_like(labels)
    terms = jax.jit(losses.dual_ici_terms)
    no_cell = terms(logits, nothing)
    chex.assert_trees_all_close(no_cell["instance"], no_cell["global"])
    assert (no_cell["false_instances"], no_cell["missed_instances"]) == (3, 0)
    np.testing.assert_allclose(no_cell["center"], [1.0], rtol=1e-5)
    no_component = terms(jnp.full_like(logits, -9.0), labels)
    chex.assert_trees_all_close(no_component["instance_output"], no_component["global"])
    np.testing.assert_allclose(no_component["instance"], [1.0], rtol=1e-5)
    assert no_component["fdr"] == 0 and no_component["missed_instances"] == 4
    neither = terms(jnp.full_like(logits, -9.0), nothing)
    assert neither["center"] == 0 and neither["false_instances"] == 0


def test_the_centre_has_a_gradient_only_in_its_soft_form():
    logits, labels, instances = scene()

    def center(**options):
        def total(z, y, i):
            return losses.ici_terms(z, y, instances=i, **options)["center"].sum()

        return jax.jit(jax.value_and_grad(total))(logits, labels, instances)

    assert not center()[1].any()
    value, slope = center(center="soft", center_offset=1)
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))[0, ..., 0]
    # Boxes of 3 x 3 one pixel before the mean rounded up (o is 1 on both axes).
    corners = ((1, 1), (1, 5), (9, 2), (11, 15))
    boxes = [p[r : r + 3, c : c + 3] for r, c in corners]
    np.testing.assert_allclose(
        value, np.mean([dice(b, np.ones_like(b)) for b in boxes]), rtol=1e-5
    )
    assert slope.any()


def test_instances_that_one_component_covers_are_no_false_positives_of_each_other():
    logits, labels, instances = scene()
    sure = jnp.where(logits > 0, 50.0, -50.0)
    together = jnp.where((instances == 2) | (instances == 4), instances, 0)
    # Both cells and the gap between them are predicted.
    found = jnp.full_like(sure, -50.0).at[0, 1:5, 1:9].set(50.0)
    mask = (together != 0).astype(labels.dtype)[..., None]

    def call(others):
        options = {"instances": together, "others_tp": others}
        return run(losses.ici_terms, found, mask, **options)["instance"]

    # The gap of 4 pixels is a false positive of cells of 16 and 12 pixels.
    np.testing.assert_allclose(call(False), [(4 / 36 + 4 / 28) / 2], rtol=1e-4)
    # With the other cell, 16 of 32 and 20 of 32 predicted pixels are wrong.
    np.testing.assert_allclose(call(True), [(16 / 48 + 20 / 44) / 2], rtol=1e-4)


def test_connectivity_decides_what_is_one_component():
    labels = jnp.zeros((1, 6, 6, 1)).at[0, 1, 1].set(1.0).at[0, 2, 2].set(1.0)
    logits = 10.0 * labels - 5.0
    counts = [
        run(losses.ici_terms, logits, 0 * labels, connectivity=c)["false_instances"][0]
        for c in (None, 1)
    ]
    assert counts == [1.0, 2.0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"center": "disc"}, 'center must be "box" or "soft"'),
        ({"fp": "hard"}, 'fp must be "plain" or "detached"'),
        ({"center_offset": -1}, "center_offset must be >= 0"),
        ({"connectivity": 3}, "connectivity must be 1 to 2"),
    ],
)
def test_options_that_are_refused(options, text):
    logits, labels, _ = scene()
    with pytest.raises(ValueError, match=text):
        losses.ici_loss(logits, labels, **options)
