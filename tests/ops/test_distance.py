import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.ops import distance
from fluojax.ops.distance import distance_transform, signed_distance

pytestmark = pytest.mark.usefixtures("strict_promotion")


def blobs(shape, share, seed=0):
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.parametrize("shape", [(20, 33), (7, 8, 11)])
def test_squared_distances_are_the_whole_numbers_of_scipy(shape):
    transform = jax.jit(lambda x: distance_transform(x, squared=True))
    for share in (0.0, 0.3, 0.9, 0.99):
        mask = blobs(shape, share)
        expected = np.rint(ndimage.distance_transform_edt(mask) ** 2)
        np.testing.assert_array_equal(transform(mask), expected)


def test_a_single_pixel_of_background_in_a_long_image():
    # The farthest pixel is more than 64 steps away along the second axis.
    mask = np.ones((5, 150), bool)
    mask[1, 3] = False
    rows, columns = np.indices(mask.shape)
    expected = (rows - 1) ** 2 + (columns - 3) ** 2
    np.testing.assert_array_equal(distance_transform(mask, squared=True), expected)


@pytest.mark.parametrize("spacing", [(1.0, 2.0), (0.5, 0.31), 3.0])
def test_spacing_agrees_with_scipy(spacing):
    mask = blobs((20, 33), 0.9)
    sampling = spacing if isinstance(spacing, tuple) else (spacing,) * 2
    expected = ndimage.distance_transform_edt(mask, sampling=sampling)
    found = distance_transform(mask, spacing=spacing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(20, 33), (1, 5), (2, 3, 4)])
def test_without_background_all_distances_are_infinite(shape):
    assert np.all(np.isposinf(distance_transform(np.ones(shape))))
    assert not np.any(distance_transform(np.zeros(shape)))


def test_distances_are_float32_and_float64_with_64_bit_types():
    assert distance_transform(np.ones((2, 2), np.uint8)).dtype == jnp.float32
    with jax.enable_x64(True):
        mask = np.array([[1, 1, 0], [1, 1, 1]], np.int64)
        found = distance_transform(mask)
        assert found.dtype == jnp.float64
        np.testing.assert_array_equal(found[1, 0], np.sqrt(5.0))


def test_signed_distances_are_positive_outside():
    mask = np.array([[0, 0, 1, 1, 1, 0]])
    np.testing.assert_array_equal(signed_distance(mask), [[2, 1, -1, -2, -1, 1]])
    np.testing.assert_array_equal(
        signed_distance(mask, spacing=(1.0, 0.5)), [[1, 0.5, -0.5, -1, -0.5, 0.5]]
    )
    assert np.all(np.isposinf(signed_distance(np.zeros((2, 3)))))
    assert np.all(np.isneginf(signed_distance(np.ones((2, 3)))))


def test_batches_are_their_images_one_by_one():
    masks = np.stack([blobs((9, 12), share) for share in (0.2, 0.95, 1.0)])
    batched = jax.jit(jax.vmap(distance_transform))(masks)
    alone = np.stack([distance_transform(mask) for mask in masks])
    np.testing.assert_array_equal(batched, alone)


def test_passes_follow_the_largest_distance_not_the_image(monkeypatch):
    turns = []

    def loop(unfinished, turn, state):
        turns.append(0)
        while unfinished(state):
            state = turn(state)
            turns[-1] += 1
        return state

    monkeypatch.setattr(distance.lax, "while_loop", loop)
    mask = np.ones((4, 300), bool)
    mask[:, ::40] = False  # at most 20 pixels away
    distance._squares.__wrapped__(jnp.asarray(mask), (1.0, 1.0))
    assert turns == [20 // 8 + 1]
    distance._squares.__wrapped__(jnp.ones((4, 300), bool), (1.0, 1.0))
    assert turns[1] == 0


@pytest.mark.parametrize("shape", [(30, 40), (9, 10, 30)])
def test_distances_at_some_places_are_exact_there(shape):
    rng = np.random.default_rng(0)
    mask, places = rng.random(shape) > 0.01, rng.random(shape) < 0.05
    spacing = (2.0, 0.5, 1.0)[: len(shape)]
    expected = ndimage.distance_transform_edt(mask, spacing)[places] ** 2
    found = distance.squares_at(jnp.asarray(places), jnp.asarray(mask), spacing)
    np.testing.assert_allclose(np.asarray(found)[places], expected, rtol=1e-5)
    nowhere = distance.squares_at(jnp.asarray(places), jnp.ones(shape, bool), spacing)
    assert np.all(np.isinf(nowhere))


def test_near_places_end_the_search(monkeypatch):
    turns = []

    def loop(unfinished, turn, state):
        while unfinished(state):
            state = turn(state)
            turns.append(0)
        return state

    monkeypatch.setattr(distance.lax, "while_loop", loop)
    mask = np.ones((4, 300), bool)
    mask[:, 0] = False  # up to 299 pixels away
    places = np.zeros_like(mask)
    places[:, :3] = True
    arrays = jnp.asarray(mask), (1.0, 1.0)
    distance._squares.__wrapped__(*arrays, places=jnp.asarray(places))
    assert len(turns) == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: distance_transform(np.ones(3)), ValueError, "use jax.vmap"),
        (
            lambda: distance_transform(np.ones((2, 2)), spacing=(1, 2, 3)),
            ValueError,
            "one for each of 2 axes",
        ),
        (
            lambda: signed_distance(np.ones((2, 2)), spacing=0.0),
            ValueError,
            "one positive number",
        ),
    ],
)
def test_what_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
