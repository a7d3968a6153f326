"""Blob loss, connected-component Dice, and what all instance losses share."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import losses

KINDS = ("dice", "tversky", "cross_entropy", "dice_cross_entropy")
EVERY = [losses.blob_loss, losses.cc_dice_loss, losses.ici_loss, losses.dual_ici_loss]
each = pytest.mark.parametrize("loss", EVERY, ids=lambda f: f.__name__)


def run(function, *arrays, **options):
    """`function` compiled once, with all arrays among the options as arguments."""
    maps = {k: jnp.asarray(v) for k, v in options.items() if hasattr(v, "shape")}
    static = {k: v for k, v in options.items() if k not in maps}
    call = jax.jit(lambda arrays, maps: function(*arrays, **maps, **static))
    return call(arrays, maps)


def cells(shape=(12, 14)):
    """Two cells that touch, one apart and one of a single pixel; ids with gaps."""
    instances = np.zeros((1, *shape), np.int32)
    instances[0, 1:5, 1:4], instances[0, 1:5, 4:8] = 5, 2
    instances[0, 8:11, 2:6], instances[0, 9, 12] = 70000, -3
    return instances


def scene(make, seed=0):
    instances = cells()
    logits, _ = make((1, 12, 14, 1), seed=seed)
    labels = (instances != 0).astype(np.float32)[..., None]
    return logits, jnp.asarray(labels), jnp.asarray(instances)


def flat(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))[0, ..., 0]


def value(kind, p, y, smooth=1e-5):
    """A pixel loss of the flat arrays p and y."""
    tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    dice = 1 - (2 * tp + smooth) / (p.sum() + y.sum() + smooth)
    entropy = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    return {
        "dice": dice,
        "tversky": 1 - (tp + smooth) / (tp + 0.3 * fp + 0.7 * fn + smooth),
        "cross_entropy": entropy,
        "dice_cross_entropy": dice + entropy,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_blob_loss_holds_in_a_slow_loop(make, kind):
    logits, labels, instances = scene(make)
    p, y, ids = flat(logits), np.asarray(labels)[0, ..., 0], np.asarray(instances)[0]
    blobs = []
    for k in (-3, 2, 5, 70000):
        domain = (ids == 0) | (ids == k)
        blobs.append(value(kind, p[domain], (ids == k)[domain].astype(float)))
    expected = 0.5 * value(kind, p, y) + 3.0 * np.mean(blobs)
    found = run(
        losses.blob_loss,
        logits,
        labels,
        instances=instances,
        loss=kind,
        main_weight=0.5,
        blob_weight=3.0,
    )
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_the_connected_component_loss_holds_in_a_slow_loop(make):
    logits, labels, instances = scene(make)
    p, y, ids = flat(logits), np.asarray(labels)[0, ..., 0], np.asarray(instances)[0]
    order = (-3, 2, 5, 70000)
    apart = [ndimage.distance_transform_edt(ids != k) for k in order]
    nearest = np.argmin(apart, axis=0)  # the first, thus lower, of equal ones
    parts = [
        (value("dice", p[r], y[r], 1.0), value("cross_entropy", p[r], y[r]))
        for r in (nearest == k for k in range(4))
    ]
    dice, entropy = np.mean(parts, axis=0)
    for weight in (0.0, 1.0):
        found = run(
            losses.cc_dice_loss, logits, labels, instances=instances, ce_weight=weight
        )
        np.testing.assert_allclose(found, [dice + weight * entropy], rtol=1e-5)
    regions = jnp.asarray(np.array(order)[nearest])[None]
    given = run(losses.cc_dice_loss, logits, labels, regions=regions)
    np.testing.assert_allclose(given, [dice + entropy], rtol=1e-5)


def test_without_an_instance_only_what_concerns_the_image_remains(make):
    logits, _, _ = scene(make)
    nothing = jnp.zeros_like(logits)
    dice = losses.dice_loss(logits, nothing, smooth=1e-5)
    blob = run(losses.blob_loss, logits, nothing)
    chex.assert_trees_all_close(blob, 2.0 * dice, rtol=1e-6)
    plain = losses.dice_loss(logits, nothing) + losses.cross_entropy_loss(
        logits, nothing
    )
    chex.assert_trees_all_close(
        run(losses.cc_dice_loss, logits, nothing), plain, rtol=1e-6
    )


@each
def test_instances_default_to_the_components_of_the_labels(make, loss):
    logits, labels, instances = scene(make)
    components, _ = ndimage.label(instances[0] != 0, np.ones((3, 3)))
    given = jnp.asarray(components[None], jnp.int32)
    call = jax.jit(lambda z, y, i: loss(z, y, instances=i))
    chex.assert_trees_all_close(
        jax.jit(loss)(logits, 0.9 * labels > 0.5),
        call(logits, labels, given),
        rtol=1e-6,
    )


@each
def test_names_of_instances_do_not_matter(make, loss):
    logits, labels, instances = scene(make)
    call = jax.jit(lambda z, y, i: loss(z, y, instances=i))
    # Ties of regions go to the lower id, so that the order has to stay.
    small = jnp.searchsorted(jnp.array([-3, 0, 2, 5, 70000]), instances) - 1
    small = jnp.where(small == -1, 1, jnp.where(instances == 0, 0, small + 1))
    chex.assert_trees_all_close(
        call(logits, labels, small.astype(jnp.int32)),
        call(logits, labels, instances),
        rtol=1e-6,
    )


@each
def test_a_batch_is_its_images_and_small_and_large_ids_may_meet(make, loss):
    logits, labels, instances = scene(make)
    other = jnp.zeros_like(instances).at[0, 2:9, 3:8].set(1)
    batch = [
        jnp.concatenate(pair)
        for pair in (
            (logits, logits[:, ::-1]),
            (labels, (other != 0)[..., None].astype(labels.dtype)),
            (instances, other),
        )
    ]
    call = jax.jit(lambda z, y, i: loss(z, y, instances=i))
    both = call(*batch)
    alone = [call(*(a[i : i + 1] for a in batch))[0] for i in (0, 1)]
    chex.assert_trees_all_close(both, jnp.stack(alone), rtol=1e-6)


@each
def test_two_classes_are_the_difference_of_their_logits(make, loss):
    logits, labels, instances = scene(make)
    heads = jnp.concatenate([jnp.zeros_like(logits), logits], -1)
    pair = jnp.concatenate([1.0 - labels, labels], -1)
    two = run(loss, heads, pair, instances=instances)
    one = run(loss, logits, labels, instances=instances)
    chex.assert_trees_all_close(two, one, rtol=1e-5)


@each
def test_masking_equals_cropping(make, loss):
    logits, labels, instances = scene(make)
    where = jnp.zeros((1, 12, 14, 1), bool).at[:, :8].set(True)
    spoilt = jnp.where(where, logits, jnp.nan), jnp.where(where, labels, 7.0)
    options = {} if loss in EVERY[:2] else {"center_weight": 0.0}
    call = jax.value_and_grad(
        lambda z, y, i, w: loss(z, y, instances=i, where=w, **options).sum()
    )
    found, slope = jax.jit(call)(*spoilt, instances, where)
    small = logits[:, :8], labels[:, :8], instances[:, :8]
    cropped, crop_slope = jax.jit(lambda *a: call(*a, None))(*small)
    chex.assert_trees_all_close(found, cropped, rtol=1e-5)
    chex.assert_trees_all_close(slope[:, :8], crop_slope, rtol=1e-4, atol=1e-7)
    assert not slope[:, 8:].any()
    assert jax.jit(call)(*spoilt, instances, jnp.zeros_like(where))[0] == 0.0


def test_instances_beyond_the_bound_leave_the_mean_and_the_domain_of_others(make):
    logits, labels, instances = scene(make)
    p, ids = flat(logits), np.asarray(instances)[0]
    options = {"instances": instances, "main_weight": 0.0}
    found = run(losses.blob_loss, logits, labels, **options, max_instances=2)
    kept = []
    for k in (-3, 2):
        domain = (ids == 0) | (ids == k)
        kept.append(value("dice", p[domain], (ids == k)[domain].astype(float)))
    np.testing.assert_allclose(found, [np.mean(kept)], rtol=1e-5)


def test_every_instance_counts_the_same_in_the_blob_loss():
    # Missing the single pixel costs as much as missing the large cell.
    labels = jnp.zeros((1, 12, 12, 1)).at[0, 1:8, 1:8].set(1.0).at[0, 10, 10].set(1.0)
    missed = [labels.at[0, 10, 10].set(0.0), labels.at[0, 1:8, 1:8].set(0.0)]
    call = jax.jit(lambda x: losses.blob_loss(80 * x - 40, labels, main_weight=0.0))
    values = [float(call(x)[0]) for x in missed]
    np.testing.assert_allclose(values, [0.5, 0.5], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", [EVERY[0], EVERY[3]], ids=lambda f: f.__name__)
def test_gradients_are_finite_and_agree_with_finite_differences(
    float64, make, finite_differences, loss, kind
):
    instances = jnp.zeros((1, 4, 5), jnp.int32).at[0, :2, :2].set(1).at[0, 3, 3:].set(9)
    labels = (instances != 0).astype(jnp.float64)[..., None]
    logits, _ = make((1, 4, 5, 1), dtype=jnp.float64)
    options = {"center": "soft", "center_offset": 1} if loss is EVERY[3] else {}

    def total(z, y, i):
        return loss(z, y, instances=i, loss=kind, **options).sum()

    call = jax.jit(jax.value_and_grad(total))
    expected = finite_differences(
        lambda z: float(call(z, labels, instances)[0]), logits
    )

    def slope(z):
        return call(z, labels, instances)[1]

    np.testing.assert_allclose(slope(logits), expected, rtol=1e-5, atol=1e-8)
    for extreme in (1e4 * jnp.sign(logits), 1e4 * (2 * labels - 1), 0 * logits - 1e4):
        assert np.all(np.isfinite(slope(extreme)))


@each
def test_what_is_refused(make, loss):
    logits, labels, instances = scene(make)
    with pytest.raises(TypeError, match="instances must be integers"):
        loss(logits, labels, instances=labels[..., 0])
    with pytest.raises(ValueError, match=r"instances must be \(1, 12, 14\)"):
        loss(logits, labels, instances=instances[0])
    with pytest.raises(ValueError, match="max_instances must be >= 1, got 0"):
        loss(logits, labels, max_instances=0)
    if loss is not losses.cc_dice_loss:
        with pytest.raises(ValueError, match="loss must be one of dice, tversky"):
            loss(logits, labels, loss="focal")
