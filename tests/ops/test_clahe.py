import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import ops

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_one_tile_without_limit_is_the_plain_equalisation():
    image = np.array([[10, 10, 20, 200]], np.uint8)
    # Shares of pixels at or below: 1/2, 3/4, 1 of 255, halves to the even one.
    found = ops.clahe(image, 0, (1, 1))
    np.testing.assert_array_equal(found, [[128, 128, 191, 255]])
    assert found.dtype == jnp.uint8


def test_the_excess_is_dealt_out_by_hand():
    # 512 pixels of one level and a limit of 1 (2 per bin): 510 are cut, one for
    # each of 256 bins and 254 more, one for each of the bins 0 to 253.
    image = np.full((16, 32), 100, np.uint8)
    # Up to level 100: 101 bins of 2, and what level 100 keeps, 2.
    expected = round((101 * 2 + 2) * 255 / 512)
    assert np.unique(ops.clahe(image, 1, (1, 1))).tolist() == [expected]


def plain(image, clip_limit, tiles):
    """Pixel by pixel, in float64."""
    size = [n // t for n, t in zip(image.shape, tiles, strict=True)]
    area = size[0] * size[1]
    tables = np.zeros((*tiles, 256))
    for i, j in np.ndindex(*tiles):
        rows = slice(i * size[0], (i + 1) * size[0])
        tile = image[rows, j * size[1] : (j + 1) * size[1]]
        counts = np.bincount(tile.ravel(), minlength=256)
        limit = max(int(clip_limit * area / 256), 1)
        excess = np.maximum(counts - limit, 0).sum()
        counts = np.minimum(counts, limit) + excess // 256
        rest = excess % 256
        step = max(256 // rest, 1) if rest else 1
        for k in range(rest):
            counts[k * step] += 1
        tables[i, j] = np.round(np.cumsum(counts) * 255 / area)
    found = np.zeros(image.shape)
    for y, x in np.ndindex(*image.shape):
        places = [(y / size[0] - 0.5, tiles[0]), (x / size[1] - 0.5, tiles[1])]
        total = 0
        for up, right in np.ndindex(2, 2):
            weight, tile = 1.0, []
            for (place, count), higher in zip(places, (up, right), strict=True):
                low = int(np.floor(place))
                weight *= (place - low) if higher else 1 - (place - low)
                tile.append(min(max(low + higher, 0), count - 1))
            total += weight * tables[tile[0], tile[1], image[y, x]]
        found[y, x] = total
    return found


@pytest.mark.parametrize("tiles", [(2, 4), (1, 3)])
def test_tables_of_tiles_are_mixed_by_distance(tiles):
    rng = np.random.default_rng(0)
    image = (rng.random((24, 36)) ** 3 * 255).astype(np.uint8)
    found = np.asarray(ops.clahe(image, 3.0, tiles), float)
    np.testing.assert_allclose(found, plain(image, 3.0, tiles), atol=0.501)


def test_sizes_of_tiles_give_as_many_as_fit():
    image = np.random.default_rng(0).integers(0, 256, (20, 33)).astype(np.uint8)
    by_size = ops.clahe(image, 2.0, tile_size=(5, 8))
    np.testing.assert_array_equal(by_size, ops.clahe(image, 2.0, (4, 5)))


def test_floating_point_goes_through_256_levels():
    image = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    found = ops.clahe(image.astype(np.float32) / 255, 3.0, (2, 2))
    assert found.dtype == jnp.float32
    expected = np.asarray(ops.clahe(image, 3.0, (2, 2)))
    np.testing.assert_allclose(found, expected / np.float32(255), atol=1e-6)


@pytest.mark.parametrize(
    ("image", "options", "error", "text"),
    [
        (np.ones((4, 4), np.int32), {}, TypeError, "uint8, uint16 or floating"),
        (np.ones((4, 4, 3)), {}, ValueError, "use jax.vmap"),
        (np.ones((4, 4)), {"clip_limit": -1}, ValueError, "at least 0, got -1"),
        (np.ones((4, 4)), {"tiles": (0, 2)}, ValueError, "two positive"),
        (np.ones((4, 4)), {"tile_size": (0, 2)}, ValueError, "two positive"),
        (np.ones((4, 4), np.uint16), {"bins": 256}, ValueError, "65536 levels"),
    ],
)
def test_what_is_refused(image, options, error, text):
    with pytest.raises(error, match=text):
        ops.clahe(image, **options)
