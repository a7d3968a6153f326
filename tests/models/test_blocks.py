import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fluojax.models import blocks


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("sizes", [(6, 8), (4, 6, 2)])
def test_pooling_is_a_window_maximum(sizes):
    x = normal(2, *sizes, 3)
    window = (1, *(2,) * len(sizes), 1)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    np.testing.assert_array_equal(blocks.max_pool(x), expected)


def test_pooling_shares_the_gradient_of_a_tie():
    x = jnp.array([[3.0, 3.0], [1.0, 3.0]])[None, :, :, None]
    grad = jax.grad(lambda x: blocks.max_pool(x).sum())(x)[0, :, :, 0]
    np.testing.assert_allclose(grad, [[1 / 3, 1 / 3], [0, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 5), (2, 3, 4)])
def test_up_convolution_is_a_transposed_convolution(sizes):
    rank = len(sizes)
    x, kernel = normal(2, *sizes, 3), normal(*(2,) * rank, 3, 4, seed=1)
    layout = "DHW"[-rank:]
    numbers = (f"N{layout}C", f"{layout}IO", f"N{layout}C")
    with jax.default_matmul_precision("highest"):
        expected = lax.conv_transpose(
            x, kernel, (2,) * rank, "VALID", dimension_numbers=numbers
        )
        found = blocks.up_convolve(x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_up_convolution_by_hand():
    # One pixel: the block is the kernel read back to front.
    kernel = jnp.arange(4.0).reshape(2, 2, 1, 1)
    found = blocks.up_convolve(jnp.full((1, 1, 1, 1), 2.0), kernel)
    np.testing.assert_array_equal(found[0, :, :, 0], [[6.0, 4.0], [2.0, 0.0]])


def test_aligned_corners_by_hand():
    x = jnp.array([0.0, 3.0])[None, :, None, None]
    found = blocks.resize_linear(x, (4, 1), align_corners=True)
    np.testing.assert_allclose(found[0, :, 0, 0], [0, 1, 2, 3], atol=1e-6)
    repeated = blocks.resize_linear(x, (2, 3), align_corners=True)
    np.testing.assert_array_equal(repeated, jnp.repeat(x, 3, axis=2))


def test_half_pixel_resize_equals_jax():
    x = normal(2, 4, 5, 6, 2)
    found = blocks.resize_linear(x, (8, 9, 24))
    expected = jax.image.resize(x, found.shape, "bilinear")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = blocks.resize_linear(x, (2, 3, 6))
    expected = jax.image.resize(x, found.shape, "bilinear", antialias=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("sizes", [(8, 9), (1, 3), (4, 13)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_gradient_of_a_resize_is_its_transpose(sizes, align_corners):
    x = normal(2, 4, 5, 3)

    def resize(x):
        return blocks.resize_linear(x, sizes, align_corners=align_corners)

    y = resize(x)
    slopes = normal(*y.shape, seed=1)
    (found,) = jax.vjp(resize, x)[1](slopes)
    # Of a linear map A, <slopes, A x> = <A' slopes, x> for every x.
    for k in range(3):
        probe = normal(*x.shape, seed=2 + k)
        left, right = jnp.sum(slopes * resize(probe)), jnp.sum(found * probe)
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


def test_padding_mirrors_where_it_can_and_repeats_where_it_must():
    x = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 4, 2))
    padded = blocks.pad_to_multiple(x, 4)
    assert padded.shape == (1, 4, 4, 2)
    np.testing.assert_array_equal(padded[0, :, 0, 0], [0, 1, 2, 1])
    repeated = blocks.pad_to_multiple(x, 8)
    np.testing.assert_array_equal(repeated[0, :, 0, 0], [0, 1, 2, 2, 2, 2, 2, 2])


def test_padding_of_a_multiple_is_the_identity():
    x = normal(1, 8, 16, 2)
    assert blocks.pad_to_multiple(x, 8) is x


@pytest.mark.parametrize("norm, groups", [("group", 8), ("instance", 24), ("layer", 1)])
def test_norms_of_one_image_against_float64(norm, groups):
    layers = blocks.Layers(norm=norm, act="relu")
    x = 3.0 + normal(2, 3, 4, 24)

    class Model(blocks.nn.Module):
        @blocks.nn.compact
        def __call__(self, x):
            return layers.norm_act(x, "norm", True)

    found, variables = Model().init_with_output(jax.random.key(0), x)
    assert variables["params"]["norm"]["scale"].shape == (24,)
    values = np.asarray(x, np.float64).reshape(2, 12, groups, 24 // groups)
    mean = values.mean((1, 3), keepdims=True)
    values = (values - mean) / np.sqrt(values.var((1, 3), keepdims=True) + 1e-5)
    expected = np.maximum(values, 0).reshape(x.shape)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_reach_by_hand():
    # One level, two convolutions of 3: two pixels.
    assert blocks.halo("batch", (2,)) == 2
    # Two levels: 4 + 2·2 + 1 = 9, the next multiple of 2.
    assert blocks.halo(None, (4, 2)) == 10
    assert blocks.halo("batch", (4, 4, 4, 4, 2)) == 112  # 92 + 15
    assert blocks.halo("instance", (4, 2)) is None
