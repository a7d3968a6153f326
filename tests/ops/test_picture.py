import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import ops

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_values_by_hand():
    # 0.5 x 1.2 + 0.1 = 0.7; 1.0 x 1.2 + 0.1 is clipped; 0 + 0.1 = 0.1.
    image = jnp.array([0.5, 1.0, 0.0])
    got = ops.brightness_contrast(image, 0.1, 0.2)
    np.testing.assert_allclose(got, [0.7, 1.0, 0.1], rtol=1e-6)


def test_darkening_is_clipped_at_zero():
    got = ops.brightness_contrast(jnp.array([0.05, 0.5]), -0.1, 0.0)
    np.testing.assert_allclose(got, [0.0, 0.4], rtol=1e-6)


def test_no_change_is_bit_exact():
    image = jax.random.uniform(jax.random.key(0), (5, 4, 3))
    np.testing.assert_array_equal(ops.brightness_contrast(image, 0.0, 0.0), image)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.int32])
def test_computes_in_float32_also_with_drawn_numbers(dtype):
    image = jnp.array([[0, 1]], dtype)
    got = ops.brightness_contrast(image, jnp.float32(0.25), jnp.float32(-0.5))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[0.25, 0.75]])


@pytest.mark.parametrize("mode", ["reflect", "mirror", "nearest", "constant"])
@pytest.mark.parametrize(("shape", "sigma"), [((70, 9), 1.3), ((5, 6, 7), 2.0)])
def test_blurring_agrees_with_scipy(mode, shape, sigma):
    image = np.random.default_rng(0).random(shape)
    found = ops.gaussian_blur(image, sigma, mode=mode)
    expected = ndimage.gaussian_filter(image, sigma, mode=mode)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_drawn_sigma_blurs_as_a_known_one_and_0_not_at_all():
    image = np.random.default_rng(0).random((20, 13))
    blur = jax.jit(lambda s: ops.gaussian_blur(image, s, ksize=13))
    np.testing.assert_allclose(
        blur(1.5), ndimage.gaussian_filter(image, 1.5), atol=1e-6
    )
    np.testing.assert_allclose(blur(0.0), image, atol=1e-7)


def test_a_kernel_without_sigma_is_that_of_opencv():
    image = np.zeros((7, 7), np.float32)
    image[3, 3] = 16
    found = ops.gaussian_blur(image, 0, ksize=3)
    np.testing.assert_allclose(found[2:5, 2:5], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_percentiles_become_0_and_1():
    image = jnp.arange(101.0).reshape(1, 101)
    found = ops.normalize_percentile(image, 10, 90)
    np.testing.assert_allclose(found[0, [0, 10, 50, 90, 100]], [0, 0, 0.5, 1, 1])
    sparse = jnp.zeros((10, 100)).at[0, 0].set(8)
    np.testing.assert_array_equal(ops.normalize_percentile(sparse), sparse / 8)
    flat = ops.normalize_percentile(np.full((3, 3), 7, np.uint16))
    np.testing.assert_array_equal(flat, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ops.gaussian_blur(x, 0), "sigma must be positive, or 0 with a"),
        (lambda x: ops.gaussian_blur(x, -1, ksize=3), "got -1"),
        (lambda x: ops.gaussian_blur(x, 1, ksize=4), "ksize must be odd"),
        (lambda x: ops.gaussian_blur(x, 1, mode="wrap"), "mode must be one of"),
        (lambda x: jax.jit(ops.gaussian_blur)(x, 1.0), "needs a ksize"),
        (lambda x: ops.normalize_percentile(x, 90, 10), "low < high"),
    ],
)
def test_what_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call(jnp.ones((4, 4)))
