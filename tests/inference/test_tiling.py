"""Tiles equal the whole image where they should, and blend where they cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.inference import tiling

DIVISOR = 4
# Two 3 x 3 convolutions before pooling by 4 and one after: 2 + 4 (+ 3 of the
# pooling cell) pixels at most on either side.
HALO = 12


@pytest.fixture(scope="module")
def network():
    """`[B, *s, C] -> [B, *s, 2]` with pooling by 4 and zero padding, jitted."""
    keys = jax.random.split(jax.random.key(0), 3)

    def kernel(key, rank, inputs, outputs):
        return 0.3 * jax.random.normal(key, (3,) * rank + (inputs, outputs))

    def convolve(x, weights):
        letters = "DHW"[-(x.ndim - 2) :]
        layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        return jax.lax.conv_general_dilated(
            x, weights, (1,) * len(letters), "SAME", dimension_numbers=layout
        )

    @jax.jit
    def apply(x):
        x = jnp.asarray(x)
        rank = x.ndim - 2
        fine = jnp.tanh(convolve(x, kernel(keys[0], rank, x.shape[-1], 3)))
        fine = jnp.tanh(convolve(fine, kernel(keys[1], rank, 3, 3)))
        window = (1, *(DIVISOR,) * rank, 1)
        coarse = jax.lax.reduce_window(
            fine, -jnp.inf, jax.lax.max, window, window, "VALID"
        )
        coarse = convolve(coarse, kernel(keys[2], rank, 3, 2))
        for axis in range(1, rank + 1):
            coarse = jnp.repeat(coarse, DIVISOR, axis)
        return coarse + fine[..., :2]

    return apply


def image(shape, channels=2, seed=0):
    values = np.random.default_rng(seed).normal(size=(*shape, channels))
    return values.astype(np.float32)


@pytest.mark.parametrize("shape", [(64, 64), (61, 70), (33, 95), (7, 80), (3, 2)])
@pytest.mark.parametrize("tile", [8, 13, 32])
def test_tiles_equal_the_whole_image(network, shape, tile):
    picture = image(shape)
    whole = tiling.predict_whole(network, picture, divisor=DIVISOR)
    tiles = tiling.predict_tiles(
        network, picture, tile=tile, halo=HALO, divisor=DIVISOR
    )
    assert tiles.shape == (*shape, 2) and tiles.dtype == np.float32
    # Only the order of sums within a convolution may differ.
    np.testing.assert_allclose(tiles, whole, atol=2e-6)


def test_volumes_are_tiled_too(network):
    picture = image((9, 22, 40))
    whole = tiling.predict_whole(network, picture, divisor=DIVISOR)
    tiles = tiling.predict_tiles(network, picture, tile=8, halo=HALO, divisor=DIVISOR)
    np.testing.assert_allclose(tiles, whole, atol=2e-6)


def test_a_halo_that_is_too_small_shows(network):
    picture = image((64, 64))
    whole = tiling.predict_whole(network, picture, divisor=DIVISOR)
    tiles = tiling.predict_tiles(network, picture, tile=16, halo=0, divisor=DIVISOR)
    assert np.abs(tiles - whole).max() > 1e-2


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("halo", [8, None])
def test_every_call_has_one_shape_and_windows_lie_inside(batch_size, halo):
    shapes = []

    def apply(batch):
        shapes.append(batch.shape)
        return batch

    picture = image((70, 45), channels=3)
    options = {"tile": 16, "halo": halo, "divisor": 8, "batch_size": batch_size}
    result = tiling.predict_tiles(apply, picture, **options)
    np.testing.assert_allclose(result, picture, atol=1e-6)
    side = 16 if halo is None else 32
    assert set(shapes) == {(batch_size, side, side, 3)}


def test_padding_is_that_of_the_models():
    seen = []

    def apply(batch):
        seen.append(batch)
        return batch

    picture = image((5, 2), channels=1)
    result = tiling.predict_whole(apply, picture, divisor=8)
    expected = np.pad(picture, ((0, 3), (0, 0), (0, 0)), mode="reflect")
    expected = np.pad(expected, ((0, 0), (0, 6), (0, 0)), mode="edge")
    np.testing.assert_array_equal(seen[0][0], expected)
    np.testing.assert_array_equal(result, picture)


def test_blended_tiles_average_smoothly_what_each_window_says():
    # A network that answers with the mean of its window.
    def mean(batch):
        return np.broadcast_to(batch.mean((1, 2, 3), keepdims=True), batch.shape)

    picture = np.linspace(0, 1, 96, dtype=np.float32)[None, :, None].repeat(32, 0)
    result = tiling.predict_tiles(mean, picture, tile=32, halo=None)
    steps = np.diff(result[16, :, 0])
    assert result.shape == picture.shape
    assert (steps > -1e-6).all() and steps.max() < 0.05
    assert result.min() >= picture[:, :32].mean() - 1e-6


def test_the_limit_decides_about_tiles():
    assert not tiling.needs_tiles((100, 100), 10_000)
    assert tiling.needs_tiles((100, 101), 10_000)
    assert tiling.needs_tiles((100_000, 100_000), 2**31)


def test_wrong_ranks_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"add the channel with x\[..., None\]"):
        tiling.predict_whole(lambda x: x, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="halo None or at least 0, got 0, 1, 1 and 2"):
        tiling.predict_tiles(lambda x: x, np.zeros((4, 4, 1)), tile=0, halo=2)
