import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.ops.regions import fill_holes, remove_small_holes, remove_small_objects

pytestmark = pytest.mark.usefixtures("strict_promotion")

RING = np.array(
    [
        [0, 1, 1, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 1, 0, 0, 1],
    ]
)


def test_a_hole_is_what_background_faces_cut_off():
    filled = RING.astype(bool)
    filled[1, 2] = True
    np.testing.assert_array_equal(fill_holes(RING), filled)
    # Through the corner below the hole is open.
    np.testing.assert_array_equal(fill_holes(RING, connectivity=2), RING)


@pytest.mark.parametrize("shape", [(24, 19), (7, 8, 9)])
def test_filling_agrees_with_scipy(shape):
    for share in (0.0, 0.5, 0.7, 1.0):
        mask = np.random.default_rng(0).random(shape) < share
        for connectivity in (1, len(shape)):
            structure = ndimage.generate_binary_structure(len(shape), connectivity)
            expected = ndimage.binary_fill_holes(mask, structure)
            found = fill_holes(mask, connectivity=connectivity)
            np.testing.assert_array_equal(found, expected)


def test_small_holes_at_the_border_are_filled_too():
    mask = np.array([[0, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]])
    found = remove_small_holes(mask, 3)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])


def test_objects_of_exactly_the_area_stay():
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], bool)
    found = remove_small_objects(mask, 2)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = remove_small_objects(mask, 3, connectivity=2)
    np.testing.assert_array_equal(found, [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])


def test_areas_of_a_label_map_are_those_of_its_values():
    labels = np.array([[-4, 0, -4], [9, 10**9, 10**9], [-4, 0, 0]], np.int32)
    found = remove_small_objects(labels, 3)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, np.where(labels == -4, labels, 0))


def test_floats_are_a_mask():
    found = remove_small_objects(np.array([[0.2, 0.0], [0.0, 0.7]]), 2, connectivity=2)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, [[True, False], [False, True]])


def test_batches_are_their_images_one_by_one():
    masks = np.random.default_rng(1).random((3, 9, 10)) < 0.6

    def clean(mask):
        return remove_small_objects(remove_small_holes(mask, 3), 4)

    batched = jax.jit(jax.vmap(clean))(masks)
    np.testing.assert_array_equal(batched, np.stack([clean(m) for m in masks]))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fill_holes(np.ones((3, 3)), connectivity=0), "fill_holes: connect"),
        (lambda: remove_small_holes(np.ones(3), 2), "remove_small_holes: mask must"),
        (
            lambda: remove_small_objects(np.ones((3, 3)), 2, connectivity=3),
            "remove_small_objects: connectivity must be 1 to 2",
        ),
    ],
)
def test_what_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
