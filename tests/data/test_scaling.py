import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.data import scaling

RNG = np.random.default_rng(0)


def scaled(image, kind):
    """One image `[H, W, C]` through both halves of the scaling."""
    scale = scaling.offset_and_gain(image, kind)
    assert scale.dtype == np.float32 and scale.shape == (2, image.shape[-1])
    got = scaling.apply(jnp.asarray(image)[None], jnp.asarray(scale)[None], kind)[0]
    assert got.dtype == jnp.float32
    return np.asarray(got)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_percentiles_are_those_of_numpy_for_each_channel(dtype):
    image = (RNG.gamma(2, 20, (40, 30, 2)) * [1, 3]).astype(dtype)
    low = np.percentile(image, 1.0, axis=(0, 1))
    high = np.percentile(image, 99.8, axis=(0, 1))
    expected = np.clip((image - low) / (high - low), 0, 1)
    # float32 arithmetic on numbers up to 1e3.
    np.testing.assert_allclose(scaled(image, "percentile"), expected, atol=1e-5)


def test_a_constant_channel_becomes_zero_and_leaves_the_others_alone():
    image = np.stack([np.full((9, 9), 7), np.arange(81).reshape(9, 9)], -1)
    got = scaled(image.astype(np.uint8), "percentile")
    assert (got[..., 0] == 0).all()
    assert got[..., 1].min() == 0 and got[..., 1].max() == 1


def test_a_sparse_image_keeps_its_cells():
    # 5 of 10000 pixels: both percentiles are 0.
    image = np.zeros((100, 100, 1), np.uint16)
    image[:5, 0] = 1000
    got = scaled(image, "percentile")
    assert got[0, 0, 0] == 1 and got.sum() == 5


def test_numbers_too_close_for_float32_are_a_constant():
    image = np.zeros((4, 4, 1), np.float32)
    image[0, 0] = 1e-42
    assert np.isfinite(scaled(image, "percentile")).all()


def test_negative_numbers_and_large_offsets_are_stretched():
    image = np.linspace(-3000, -1000, 400).reshape(20, 20, 1).astype(np.int16)
    got = scaled(image, "percentile")
    assert got.min() == 0 and got.max() == 1 and 0.45 < np.median(got) < 0.55


@pytest.mark.parametrize(
    ("dtype", "top"),
    [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (bool, 1)],
)
def test_fixed_divides_by_the_largest_value_of_the_type(dtype, top):
    image = np.array([0, 0.25, 1]).reshape(1, 3, 1) * top
    image = image.astype(dtype)
    got = scaled(image, "fixed")
    np.testing.assert_allclose(got, image.astype(np.float64) / top, rtol=1e-6)


def test_fixed_does_not_look_at_the_image():
    dim = np.full((5, 5, 1), 3, np.uint8)
    np.testing.assert_allclose(scaled(dim, "fixed"), 3 / 255, rtol=1e-6)


def test_asinh_by_hand():
    image = np.array([0, 20, 255], np.uint8).reshape(1, 3, 1)
    expected = [0, np.arcsinh(1) / np.arcsinh(12.75), 1]
    np.testing.assert_allclose(scaled(image, "asinh").ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fixed", "percentile", "asinh"])
def test_a_batch_is_its_images_one_by_one(kind):
    images = RNG.integers(0, 255, (3, 8, 8, 2)).astype(np.uint8)
    scales = np.stack([scaling.offset_and_gain(image, kind) for image in images])
    got = jax.jit(scaling.apply, static_argnums=2)(images, scales, kind)
    one_by_one = np.stack([scaled(image, kind) for image in images])
    np.testing.assert_allclose(got, one_by_one, atol=1e-6)
    assert got.min() >= 0 and got.max() <= 1
