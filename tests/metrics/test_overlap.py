"""Numbering of labels, overflow, and exact thresholds."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.metrics import overlap as ov

pytestmark = pytest.mark.usefixtures("strict_promotion")


def overlap(true, pred, bound=8):
    return ov.find_overlap(*ov.label_maps("test", true, pred, bound), bound)


@pytest.mark.parametrize(
    "ids", [(1, 2, 3), (2, 5, 8), (7, 300, 60_000), (-4, 70_000, 2**31 - 1)]
)
def test_rows_follow_the_ids_however_these_are_spread(ids):
    true = np.array([[0, 0, 1, 1], [2, 2, 2, 3]])
    pred = np.array([[0, 1, 1, 1], [0, 0, 0, 2]])
    table = overlap(np.array((0, *ids))[true], np.array((0, *ids))[pred])
    rows = np.flatnonzero(table.true.ids)
    np.testing.assert_array_equal(np.asarray(table.true.ids)[rows], ids)
    np.testing.assert_array_equal(np.asarray(table.true.areas)[rows], [2, 3, 1])
    columns = np.flatnonzero(table.pred.ids)
    shared = np.asarray(table.shared)[np.ix_(rows, columns)]
    np.testing.assert_array_equal(shared, [[2, 0], [0, 0], [0, 1]])
    assert (table.true.count, table.pred.count) == (3, 2)


@pytest.mark.parametrize("spread", [1, 3, 100_003])
def test_objects_beyond_the_bound_are_counted_and_fall_into_no_other_row(spread):
    true = np.arange(12).reshape(3, 4) * spread  # ids 1..11
    table = overlap(true, np.full((3, 4), spread), bound=4)
    assert table.true.count == 11
    np.testing.assert_array_equal(table.true.ids, np.arange(1, 5) * spread)
    np.testing.assert_array_equal(table.true.areas, 1)
    areas = np.asarray(table.pred.areas)
    assert areas.sum() == 12  # the shared pixels of the lost objects included


def test_an_image_without_background_keeps_all_its_objects():
    table = overlap(np.array([[1, 2]]), np.array([[2, 2]]))
    assert (table.true.count, table.pred.count) == (2, 1)


def test_a_batch_may_mix_small_and_large_ids():
    rng = np.random.default_rng(1)
    maps = rng.integers(0, 5, (3, 6, 6)) * np.array([1, 700, 90_000])[:, None, None]
    batch = jax.vmap(overlap)(maps, maps)
    for k in range(3):
        single = overlap(maps[k], maps[k])
        np.testing.assert_array_equal(batch.shared[k], single.shared)
        np.testing.assert_array_equal(batch.true.ids[k], single.true.ids)


def test_thresholds_are_exact_for_every_small_fraction():
    whole, shared = np.meshgrid(np.arange(1, 61), np.arange(0, 61), indexing="ij")
    thresholds = [0.1, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.95, 0.1 + 0.2, 1.0]
    for strict in (False, True):
        actual = ov.reaches(
            jnp.asarray(shared, jnp.int32),
            jnp.asarray(whole, jnp.int32),
            thresholds,
            strict,
        )
        for k, threshold in enumerate(thresholds):
            bar = Fraction(threshold).limit_denominator(1000)
            for w, s, decided in zip(
                np.ravel(whole), np.ravel(shared), np.ravel(actual[k]), strict=True
            ):
                score = Fraction(int(s), int(w))
                expected = score > bar if strict else score >= bar
                assert decided == (expected and s > 0), (s, w, threshold)


def test_thresholds_are_exact_near_the_largest_areas():
    whole = np.int32(2**31 - 1)
    below, above = int(0.4 * whole), int(0.4 * whole) + 1  # 0.4 * whole is no integer
    counts = jnp.array([below, above], jnp.int32)
    decided = ov.reaches(counts, jnp.full(2, whole), [0.4], False)
    np.testing.assert_array_equal(decided, [[False, True]])


def test_centroids_of_large_coordinates_are_whole_pixels_exactly():
    # 1 x 70,000 pixels, summed in two parts: one pixel at 69,999 and two below.
    labels = np.zeros((2, 70_000), np.int32)
    labels[0, -1], labels[1, [10, 11]] = 1, 2
    objects, centroids = ov.find_centroids(jnp.asarray(labels), 4)
    np.testing.assert_array_equal(objects.areas, [1, 2, 0, 0])
    np.testing.assert_array_equal(centroids.whole[:, :2], [[0, 1], [69_999, 10]])
    np.testing.assert_array_equal(centroids.part[:, :2], [[0, 0], [0, 0.5]])


def test_maps_that_hold_no_labels_are_refused():
    with pytest.raises(TypeError, match="pred must hold integer labels, got float32"):
        overlap(np.zeros((2, 2), int), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="max_instances must be >= 1, got 0"):
        overlap(np.zeros((2, 2), int), np.zeros((2, 2), int), bound=0)
