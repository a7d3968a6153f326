import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import ops

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_given_noise_is_smoothed_and_scaled():
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 20, 14)).astype(np.float32)
    coords = ops.elastic_coordinates(None, (20, 14), alpha=30, sigma=2, noise=noise)
    moved = [30 * ndimage.gaussian_filter(n, 2, mode="constant") for n in noise]
    np.testing.assert_allclose(coords, np.indices((20, 14)) + moved, atol=1e-4)


def test_a_coarse_field_moves_as_far():
    key, shape = jax.random.key(0), (128, 160)

    def spread(coarse):
        draw = ops.elastic_coordinates(
            key, shape, alpha=80, sigma=8, coarse=coarse
        ) - jnp.indices(shape).astype(jnp.float32)
        return float(jnp.std(draw))

    assert spread(4) == pytest.approx(spread(1), rel=0.25)
    assert 1 < spread(1) < 4


def test_cells_of_the_grid_are_as_wide_as_their_factors():
    # Nine pixels, two cells of 4: factors 3 and 1 move the middle line to 6.
    coords = ops.grid_distortion_coordinates(
        None, (9, 3), steps=np.array([[3.0, 1.0], [1.0, 1.0]], np.float32)
    )
    np.testing.assert_allclose(coords[0, :, 0], [0, 1.5, 3, 4.5, 6, 6.5, 7, 7.5, 8])
    np.testing.assert_allclose(coords[1, 0], [0, 1, 2])


@pytest.mark.parametrize(
    "warp",
    [
        lambda key, x, **how: ops.elastic(key, x, alpha=20.0, sigma=3.0, **how),
        ops.grid_distortion,
    ],
)
def test_keys_alone_decide_and_labels_move_with_the_picture(warp):
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 3, (12, 10)))
    keys = jax.random.split(jax.random.key(3), 3)
    together = jax.vmap(lambda key: warp(key, labels, order=0))(keys)
    alone = jnp.stack([warp(key, labels, order=0) for key in keys])
    np.testing.assert_array_equal(together, alone)
    assert np.any(alone[0] != alone[1])
    values = labels.astype(jnp.float32)
    np.testing.assert_array_equal(warp(keys[0], values, order=0), alone[0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda key: ops.elastic_coordinates(None, (4, 4), alpha=1, sigma=1),
            "give a key or the noise",
        ),
        (
            lambda key: ops.elastic_coordinates(
                None, (4, 4), alpha=1, sigma=1, noise=np.ones((2, 4, 5))
            ),
            r"noise must be \(2, 4, 4\)",
        ),
        (
            lambda key: ops.grid_distortion_coordinates(key, (4, 4), steps=1.0),
            "give a key or the steps",
        ),
        (
            lambda key: ops.grid_distortion_coordinates(None, (4, 4), steps=[[1.0]]),
            "one row per axis|steps must be",
        ),
    ],
)
def test_what_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call(jax.random.key(0))
