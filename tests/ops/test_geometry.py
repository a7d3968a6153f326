import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import ops

pytestmark = pytest.mark.usefixtures("strict_promotion")

MODES = ("constant", "nearest", "reflect", "mirror", "grid-constant")
SHAPES = ((7, 5), (1, 6), (4, 5, 3))


def picture(shape, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).uniform(0, 100, shape)
    return values.astype(dtype)


def places(shape, count=400, seed=1):
    """Positions inside and up to two lengths outside, whole and half ones too."""
    rng = np.random.default_rng(seed)
    spread = [rng.uniform(-2 * n, 3 * n, count) for n in shape]
    coords = np.stack(spread)
    coords[:, ::5] = np.round(coords[:, ::5])
    return coords.astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_sampling_agrees_with_scipy(mode, shape):
    image, coords = picture(shape), places(shape)
    expected = ndimage.map_coordinates(
        image.astype(np.float64), coords.astype(np.float64), order=1, mode=mode
    )
    got = ops.sample(image, coords, order=1, mode=mode)
    # Grey values up to 100 at float32 coordinates up to 20: 1e-5 of full scale.
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-3, rtol=0)
    unit = ops.sample(image / 100, coords, order=1, mode=mode)
    np.testing.assert_allclose(np.asarray(unit), expected / 100, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_nearest_sampling_agrees_with_scipy(mode, shape):
    image = np.arange(np.prod(shape), dtype=np.int32).reshape(shape) + 1
    coords = places(shape)
    expected = ndimage.map_coordinates(
        image, coords.astype(np.float64), order=0, mode=mode
    )
    got = ops.sample(image, coords, order=0, mode=mode)
    np.testing.assert_array_equal(np.asarray(got), expected)


def test_half_way_between_two_pixels_the_higher_is_the_nearest():
    image = jnp.array([[10, 11, 12, 13]], jnp.int32)
    coords = jnp.array([[0.0, 0.0, 0.0], [0.5, 1.5, 2.5]])
    got = ops.sample(image, coords, order=0, mode="nearest")
    np.testing.assert_array_equal(got, [11, 12, 13])


def test_labels_beyond_the_reach_of_float32_keep_their_values():
    labels = jnp.array([[2**24 + 1, 0], [2**31 - 1, 7]], jnp.int32)
    got = ops.affine(labels, -jnp.eye(2), order=0)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, labels[::-1, ::-1])


def test_linear_sampling_of_integers_and_booleans_gives_fractions():
    coords = jnp.array([[0.0], [0.25]])
    for image in (jnp.array([[0, 1]], jnp.int32), jnp.array([[False, True]])):
        got = ops.sample(image, coords)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, [0.25])


def test_bfloat16_is_interpolated_in_float32():
    image = jnp.array([[0.0, 1.0]], jnp.bfloat16)
    got = ops.sample(image, jnp.array([[0.0], [0.001]]))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [0.001], rtol=1e-6)


def test_the_identity_is_bit_exact():
    for shape in ((6, 9), (3, 4, 5)):
        image = picture(shape)
        np.testing.assert_array_equal(ops.affine(image, jnp.eye(len(shape))), image)


@pytest.mark.parametrize("order", [0, 1])
def test_flips_and_quarter_turns_are_exact(order):
    image = picture((8, 8))
    up_down = jnp.array([[-1.0, 0.0], [0.0, 1.0]])
    quarter = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(ops.affine(image, up_down, order=order), image[::-1])
    turned = ops.affine(image, quarter, order=order)
    np.testing.assert_array_equal(turned, np.rot90(image))


def test_a_rotation_agrees_with_scipy_affine_transform():
    image, angle = picture((12, 15)), np.deg2rad(20)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) / 1.1
    centre = (np.array(image.shape) - 1) / 2
    expected = ndimage.affine_transform(
        image.astype(np.float64),
        matrix,
        centre - matrix @ centre,
        order=1,
        mode="mirror",
    )
    got = ops.affine(image, jnp.asarray(matrix, jnp.float32), mode="mirror")
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-3)


def test_sampling_is_the_same_under_jit_and_vmap():
    images, coords = picture((3, 6, 7)), jnp.asarray(places((6, 7), 50))
    one_by_one = jnp.stack([ops.sample(image, coords) for image in images])
    batched = jax.jit(jax.vmap(lambda image: ops.sample(image, coords)))(images)
    chex.assert_trees_all_close(batched, one_by_one, rtol=1e-6, atol=1e-5)


def test_gradients_reach_the_image_and_are_the_weights():
    coords = jnp.array([[0.25], [0.5]])
    gradient = jax.grad(lambda x: ops.sample(x, coords)[0])(jnp.zeros((2, 2)))
    np.testing.assert_allclose(gradient, [[0.375, 0.375], [0.125, 0.125]])


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((np.zeros((4, 4)), np.zeros((3, 2))), {}, "one row per axis of image"),
        ((np.zeros(4), np.zeros((1, 2))), {}, r"got \(4,\); use jax.vmap"),
        ((np.zeros((4, 4)), np.zeros((2, 2))), {"order": 3}, "order must be 0 or 1"),
        (
            (np.zeros((4, 4)), np.zeros((2, 2))),
            {"mode": "wrap"},
            "mode one of constant",
        ),
    ],
)
def test_sample_refuses_what_it_cannot_do(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        ops.sample(*arguments, **options)


def test_affine_refuses_a_matrix_of_another_rank():
    with pytest.raises(ValueError, match=r"matrix must be \(3, 3\)"):
        ops.affine(np.zeros((2, 3, 4)), np.eye(2))
