import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.segmentation
from scipy import ndimage

from fluojax.ops.nearest import expand_labels, nearest_instance, nearest_rows

pytestmark = pytest.mark.usefixtures("strict_promotion")


def two_nearest(instances, spacing):
    """One transform per instance."""
    ids = [i for i in np.unique(instances) if i]
    distances = [
        ndimage.distance_transform_edt(instances != i, sampling=spacing) for i in ids
    ]
    missing = np.full(instances.shape, np.inf)
    distances = np.stack([*distances, missing, missing])
    order = np.argsort(np.round(distances, 9), axis=0, kind="stable")[:2]
    ids = np.array([*ids, 0, 0])[order]
    return np.take_along_axis(distances, order, 0), ids


@pytest.mark.parametrize(
    ("shape", "spacing"), [((14, 23), (1.0, 1.0)), ((5, 6, 9), (2.0, 1.0, 0.5))]
)
def test_the_two_nearest_instances_agree_with_a_transform_of_each(shape, spacing):
    rng = np.random.default_rng(0)
    nearest = jax.jit(lambda x: nearest_instance(x, spacing=spacing))
    for share in (0.0, 0.005, 0.02, 0.1, 0.7):
        # Few ids, in many places, also negative ones: ties go to the lower id.
        instances = rng.integers(-3, 6, shape) * (rng.random(shape) < share)
        instances = instances.astype(np.int32)
        found = nearest(instances)
        distances, ids = two_nearest(instances, spacing)
        np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
        np.testing.assert_array_equal(found.ids, ids)
        grown = expand_labels(instances, spacing=spacing)
        np.testing.assert_array_equal(grown, ids[0])


@pytest.mark.parametrize("limit", [0, 1, 2.5, 9, 1e200])
def test_labels_grow_as_far_as_asked(limit):
    rng = np.random.default_rng(3)
    labels = (np.arange(1, 601) * (rng.random(600) < 0.02)).reshape(20, 30)
    # Where two labels are equally near, scikit-image takes either.
    distances, _ = two_nearest(labels.astype(np.int32), (1.0, 1.0))
    clear = np.round(distances[0], 9) != np.round(distances[1], 9)
    expected = skimage.segmentation.expand_labels(labels, limit)
    found = expand_labels(labels.astype(np.int32), limit)
    np.testing.assert_array_equal(np.asarray(found)[clear], expected[clear])


def test_one_instance_has_no_second():
    found = nearest_instance(np.array([[0, 9, 0, 0]]))
    np.testing.assert_array_equal(found.distances[0], [[1, 0, 1, 2]])
    np.testing.assert_array_equal(found.ids[0], [[9, 9, 9, 9]])
    assert np.all(np.isposinf(found.distances[1])) and not np.any(found.ids[1])


@pytest.mark.parametrize("shape", [(30, 21), (1, 7), (5, 6, 9)])
@pytest.mark.parametrize("up_to", [np.inf, 3.5])
def test_small_rows_are_found_as_labels_are(shape, up_to, monkeypatch):
    rng = np.random.default_rng(5)
    find = jax.jit(lambda x: nearest_rows(x, 9, up_to))
    for share in (0.0, 0.01, 0.05, 0.4):
        rows = np.where(rng.random(shape) < share, rng.integers(0, 9, shape), 12)
        rows = jnp.asarray(rows, jnp.int32)
        labels = jnp.where(rows < 9, rows + 1, 0)
        grown = np.asarray(expand_labels(labels, up_to))
        expected = np.where(grown > 0, grown - 1, 9)
        np.testing.assert_array_equal(find(rows), expected)


def test_rows_too_many_for_one_number_are_found_all_the_same():
    rows = jnp.asarray([[7, 0, 0, 9, 5, 0]]) - jnp.asarray([[0, 1, 1, 0, 0, 1]])
    found = nearest_rows(rows, 2**28)
    np.testing.assert_array_equal(found, [[7, 7, 9, 9, 5, 5]])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: expand_labels(np.ones((2, 2), int), -1),
            ValueError,
            "distance must be at least 0, got -1",
        ),
        (lambda: nearest_instance(np.ones((2, 2))), TypeError, "instances must be"),
    ],
)
def test_what_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
