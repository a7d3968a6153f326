import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.ops import components
from fluojax.ops.components import count_instances, label_components, relabel

pytestmark = pytest.mark.usefixtures("strict_promotion")


def arbiter(mask, connectivity):
    structure = ndimage.generate_binary_structure(mask.ndim, connectivity)
    return ndimage.label(mask, structure)


def assert_same(found, expected):
    labels, count = found
    assert labels.dtype == count.dtype == jnp.int32
    np.testing.assert_array_equal(labels, expected[0])
    assert int(count) == expected[1]


def serpentine(n):
    mask = np.zeros((n, n), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def spiral(n):
    """One path that turns inwards, one pixel wide, one pixel between its turns."""
    mask, place, step = np.zeros((n, n), bool), np.array([0, 0]), np.array([0, 1])
    mask[0, 0] = True
    turns = 0
    while turns < 2:
        ahead, beyond = place + step, place + 2 * step
        free = np.all((ahead >= 0) & (ahead < n))
        if free and np.all((beyond >= 0) & (beyond < n)) and mask[tuple(beyond)]:
            free = False
        if not free or mask[tuple(ahead)]:
            step, turns = np.array([step[1], -step[0]]), turns + 1
            continue
        place, turns = ahead, 0
        mask[tuple(place)] = True
    return mask


def comb(n):
    mask = np.zeros((n, n), bool)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def percolation(n, share=0.5927):
    return np.random.default_rng(0).random((n, n)) < share


@pytest.mark.parametrize("connectivity", [1, 2])
def test_labels_equal_those_of_scipy(connectivity):
    for share in (0.0, 0.2, 0.41, 0.6, 1.0):
        mask = np.random.default_rng(1).random((31, 24)) < share
        assert_same(label_components(mask, connectivity), arbiter(mask, connectivity))
    for shape in (spiral, serpentine, comb):
        mask = np.zeros((31, 24), bool)
        mask[:24, :] = shape(24)
        assert_same(label_components(mask, connectivity), arbiter(mask, connectivity))


@pytest.mark.parametrize("connectivity", [1, 2, 3])
def test_volumes_are_labelled_with_every_connectivity(connectivity):
    for share in (0.1, 0.25, 0.4):
        mask = np.random.default_rng(2).random((5, 8, 9)) < share
        assert_same(label_components(mask, connectivity), arbiter(mask, connectivity))


def test_corners_connect_by_default():
    mask = jnp.eye(31, 24)
    assert int(label_components(mask)[1]) == 1
    assert int(label_components(mask, 1)[1]) == 24


def test_the_first_pixel_of_a_component_decides_its_number():
    # Both begin in the same two rows; the one on the right begins higher.
    mask = np.zeros((31, 24), bool)
    mask[:2, :5] = [[0, 0, 0, 0, 1], [1, 1, 0, 0, 1]]
    labels, count = label_components(mask)
    np.testing.assert_array_equal(labels[:2, :5], [[0, 0, 0, 0, 1], [2, 2, 0, 0, 1]])
    assert int(count) == 2


@pytest.mark.parametrize("connectivity", [1, 2])
def test_equal_values_keep_touching_objects_apart(connectivity):
    values = np.array([[7, 7, 3], [0, 3, 3], [7, 0, 7]], np.int32)
    labels, count = label_components(values, connectivity, equal_values=True)
    np.testing.assert_array_equal(labels, [[1, 1, 2], [0, 2, 2], [3, 0, 4]])
    assert int(count) == 4
    diagonal = np.array([[-2, 0], [5, -2]], np.int32)
    count = label_components(diagonal, connectivity, equal_values=True)[1]
    assert int(count) == (3 if connectivity == 1 else 2)


def test_a_batch_is_labelled_like_its_images():
    masks = np.stack([percolation(12, share) for share in (0.0, 0.4, 0.6, 1.0)])
    for connectivity in (1, 2):
        labels, counts = jax.jit(
            jax.vmap(lambda x, c=connectivity: label_components(x, c))
        )(masks)
        for image, found, count in zip(masks, labels, counts, strict=True):
            assert_same((found, count), arbiter(image, connectivity))


@pytest.mark.parametrize("connectivity", [1, 2])
def test_rounds_do_not_grow_with_the_length_of_a_path(connectivity):
    # A serpentine of 512 x 512 pixels is a path of 130 000.
    label = components._label_by_blocks
    if connectivity == 1:
        label = functools.partial(components._label_by_pairs, connectivity=1)
    for size, limit in ((64, 6), (512, 12)):
        for shape in (serpentine, comb, percolation, *[spiral] * (size < 512)):
            mask = shape(size)
            labels, count, rounds = label(jnp.asarray(mask))
            assert_same((labels, count), arbiter(mask, connectivity))
            assert int(rounds) <= limit, shape


IDS = (
    [3, -5, 2**31 - 1, 0, 7],
    [-(2**31), 0],
    [5],
    [0],
    [65535, 65536, 0],
    [65535, 65534],
)


@pytest.mark.parametrize("ids", IDS)
def test_ids_of_any_size_are_numbered_in_their_order(ids):
    labels = np.random.default_rng(0).choice(ids, (6, 7)).astype(np.int32)
    distinct = np.unique(labels[labels != 0])
    expected = np.where(labels == 0, 0, np.searchsorted(distinct, labels) + 1)
    positions, count = relabel(labels)
    assert positions.dtype == count.dtype == jnp.int32
    np.testing.assert_array_equal(positions, expected)
    assert int(count) == len(distinct) == int(count_instances(labels))


def test_a_batch_with_small_and_large_ids_is_numbered_alike():
    labels = jnp.array([[[0, 4], [9, 4]], [[-7, 0], [10**9, 4]]], jnp.int32)
    positions, counts = jax.vmap(relabel)(labels)
    np.testing.assert_array_equal(positions, [[[0, 1], [2, 1]], [[1, 0], [3, 2]]])
    np.testing.assert_array_equal(counts, [2, 3])


def test_positions_beyond_the_bound_share_one_spare_row():
    labels = jnp.array([[40, 10, 30], [20, 0, 40]], jnp.int32)
    positions, count = relabel(labels, max_instances=2)
    np.testing.assert_array_equal(positions, [[3, 1, 3], [2, 0, 3]])
    assert int(count) == 4


def test_an_instance_in_two_places_counts_once():
    assert int(count_instances(np.array([[5, 0, 5], [0, 0, 9]]))) == 2


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: label_components(np.ones(4)), ValueError, r"got \(4,\); use jax.vmap"),
        (
            lambda: label_components(np.ones((4, 4)), 3),
            ValueError,
            "connectivity must be 1 to 2 for rank 2, got 3",
        ),
        (lambda: relabel(np.ones((2, 2))), TypeError, "labels must be integers"),
        (
            lambda: relabel(np.ones((2, 2), int), max_instances=0),
            ValueError,
            "max_instances must be >= 1, got 0",
        ),
        (
            lambda: count_instances(np.ones((2, 2))),
            TypeError,
            "labels must be integers",
        ),
    ],
)
def test_what_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
