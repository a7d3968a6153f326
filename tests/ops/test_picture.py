import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
