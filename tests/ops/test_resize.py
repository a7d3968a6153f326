import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.measure import block_reduce

from fluojax import ops

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.mark.parametrize("shape", [(12, 18), (6, 4, 8)])
def test_whole_blocks_become_their_means(shape):
    image = np.random.default_rng(0).random(shape)
    halves = tuple(n // 2 for n in shape)
    expected = block_reduce(image, (2,) * len(shape), np.mean)
    np.testing.assert_allclose(ops.resize_area(image, halves), expected, atol=1e-6)


def test_pixels_that_straddle_count_in_part():
    # Three to two: a pixel covers one and a half.
    found = ops.resize_area(jnp.array([[3.0, 6.0, 9.0]]), (1, 2))
    np.testing.assert_allclose(found, [[4.0, 8.0]])
    found = ops.resize_area(jnp.array([[3, 6, 8]], jnp.uint8), (1, 2))
    np.testing.assert_array_equal(found, jnp.array([[4, 7]], jnp.uint8))
    assert found.dtype == jnp.uint8


def test_the_mean_stays():
    image = np.random.default_rng(0).random((15, 22))
    found = ops.resize_area(image, (7, 13))
    np.testing.assert_allclose(np.mean(found), image.mean(), rtol=1e-6)


def brute(instances, sizes):
    """Every pixel cut into as many as both sizes share."""
    fine = instances
    for axis, m in enumerate(sizes):
        fine = np.repeat(fine, m, axis)
    result = np.zeros(sizes, int)
    steps = instances.shape
    for index in np.ndindex(*sizes):
        part = fine[
            tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, steps, strict=True))
        ]
        ids, counts = np.unique(part[part != 0], return_counts=True)
        if 2 * counts.sum() >= part.size:
            result[index] = ids[np.argmax(counts)]
    return result


@pytest.mark.parametrize(
    ("shape", "sizes"), [((12, 20), (5, 8)), ((5, 7), (9, 7)), ((4, 6, 5), (3, 2, 4))]
)
def test_instances_go_to_the_largest_part(shape, sizes):
    rng = np.random.default_rng(1)
    instances = rng.integers(-1, 4, shape) * 700
    found, lost = jax.jit(lambda x: ops.resize_instances(x, sizes))(instances)
    expected = brute(instances, sizes)
    np.testing.assert_array_equal(found, expected)
    gone = set(np.unique(instances[instances != 0])) - set(np.unique(expected))
    assert int(lost) == len(gone)


def test_an_instance_too_small_is_counted_as_lost():
    instances = np.zeros((8, 8), np.int32)
    instances[:4, :4], instances[6, 6] = 3, 900
    found, lost = ops.resize_instances(instances, (4, 4))
    assert np.unique(found).tolist() == [0, 3]
    assert int(lost) == 1


@pytest.mark.parametrize("resize", [ops.resize_area, ops.resize_instances])
def test_what_is_refused(resize):
    with pytest.raises(ValueError, match="sizes must be 2 positive numbers"):
        resize(np.ones((4, 4), int), (2,))
    with pytest.raises(ValueError, match="got \\(0, 2\\)"):
        resize(np.ones((4, 4), int), (0, 2))
