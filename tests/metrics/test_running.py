"""Sums over batches and devices equal the scores of everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import metrics

pytestmark = pytest.mark.usefixtures("strict_promotion")


def masks(seed=0, count=8):
    return np.random.default_rng(seed).integers(0, 2, (2, count, 6, 5))


def test_batches_pool_to_the_scores_of_all_pixels():
    true, pred = masks()
    sums = metrics.zero_pixels()
    for part in (slice(0, 3), slice(3, 8)):
        sums = metrics.add(sums, metrics.pixel_sums(true[part], pred[part]))
    scores = metrics.pixel_scores(sums)
    flat = true.reshape(8, -1), pred.reshape(8, -1)
    for name in scores._fields:
        expected = getattr(metrics, name)(*flat)
        np.testing.assert_allclose(getattr(scores, name), expected, rtol=1e-6)
    assert sums.images == 8


def test_padding_images_do_not_count():
    true, pred = masks()
    valid = np.arange(8) < 5
    sums = metrics.pixel_sums(true, pred, valid=valid)
    only = metrics.pixel_sums(true[:5], pred[:5])
    jax.tree.map(np.testing.assert_array_equal, sums, only)


def test_sums_cross_devices():
    true, pred = masks()
    step = jax.pmap(
        lambda t, p: jax.lax.psum(metrics.pixel_sums(t, p), "batch"), axis_name="batch"
    )
    shared = jax.tree.map(
        lambda x: x[0], step(*(m.reshape(4, 2, 6, 5) for m in (true, pred)))
    )
    alone = metrics.pixel_sums(true, pred)
    jax.tree.map(np.testing.assert_array_equal, shared, alone)


def test_pixels_beyond_32_bits_are_exact():
    part = metrics.pixel_sums(np.ones((1, 2, 2)), np.ones((1, 2, 2)))
    low, high = jnp.int32(2**20 - 1), jnp.int32(2000)  # 2.1e9 pixels
    billions = part._replace(tp=part.tp._replace(low=low, high=high))
    sums = metrics.zero_pixels()
    for _ in range(3):
        sums = metrics.add(sums, billions)
    total = int(sums.tp.high) * 2**20 + int(sums.tp.low)
    assert total == 3 * (2000 * 2**20 + 2**20 - 1)
    assert 0 <= int(sums.tp.low) < 2**20, "the low word is not carried"
    assert metrics.pixel_scores(sums).dice == 1


def test_a_scan_may_carry_the_sums():
    true, pred = masks()

    def turn(sums, pair):
        return metrics.add(sums, metrics.pixel_sums(*(m[None] for m in pair))), None

    sums, _ = jax.lax.scan(
        turn, metrics.zero_pixels(), (jnp.array(true), jnp.array(pred))
    )
    jax.tree.map(np.testing.assert_array_equal, sums, metrics.pixel_sums(true, pred))


def test_object_counts_pool_to_scores_from_the_sums():
    sums = metrics.add(
        metrics.zero_objects(),
        metrics.object_sums(
            np.array([1, 2, 9]),
            np.array([0, 1, 9]),
            np.array([2, 0, 9]),
            valid=np.array([True, True, False]),
        ),
    )
    assert (sums.tp, sums.fp, sums.fn, sums.images) == (3, 1, 2, 2)
    np.testing.assert_allclose(metrics.object_scores(*sums[:3]).f1, 6 / 9, rtol=1e-6)


def test_the_mean_over_images_skips_the_undefined_and_says_how_many_it_used():
    values = np.array([0.5, np.nan, 1.0, np.inf])
    mean = metrics.image_mean(values[:3])
    assert (mean.mean, mean.used) == (0.75, 2)
    assert np.isinf(metrics.image_mean(values).mean)
    capped = metrics.image_mean(values, inf_as=3.0)
    assert (capped.mean, capped.used) == (1.5, 3)
    none = metrics.image_mean(values[1:2])
    assert np.isnan(none.mean) and none.used == 0
    assert (
        metrics.image_mean(values, valid=np.array([True, True, False, False])).mean
        == 0.5
    )
