import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from fluojax.ops import skeleton

pytestmark = pytest.mark.usefixtures("strict_promotion")


def blobs(shape, seed, share=0.5):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return smooth > np.quantile(smooth, 1 - share)


def betti(mask):
    """Components, and holes (and cavities), with a background all around."""
    padded = np.pad(mask, 1)
    full = padded.ndim
    components = ndimage.label(padded, np.ones((3,) * full))[1]
    cavities = ndimage.label(~padded)[1] - 1
    if full == 2:
        return components, cavities
    euler = measure.euler_number(padded, connectivity=3)
    return components, components + cavities - euler, cavities


def is_simple(around):
    """By counting components on both sides of the centre, `[3, ...]` of bool."""
    rank, centre = around.ndim, (1,) * around.ndim
    cells = around.copy()
    cells[centre] = False
    if ndimage.label(cells, np.ones((3,) * rank))[1] != 1:
        return False
    away = np.abs(np.indices(around.shape) - 1).sum(0)
    near = ~around & (away <= 2 if rank == 3 else away >= 0)
    near[centre] = False
    labels, _ = ndimage.label(near)
    beside = labels[(away == 1) & near]
    return len(np.unique(beside)) == 1


def removable(mask):
    padded = np.pad(mask, 1)
    windows = (padded[tuple(slice(i, i + 3) for i in at)] for at in np.argwhere(mask))
    return sum(around.sum() > 2 and is_simple(around) for around in windows)


def slow_skeleton(mask, num_iters):
    """One pixel after the other, in the published order of the parity classes."""
    padded = np.pad(mask, 1)
    for _ in range(num_iters):
        before = padded.copy()
        for parity in itertools.product((0, 1), repeat=mask.ndim):
            for at in np.argwhere(padded):
                window = tuple(slice(i - 1, i + 2) for i in at)
                if tuple(at % 2) != parity[::-1] or before[window].sum() <= 2:
                    continue
                if is_simple(padded[window]):
                    padded[tuple(at)] = False
    return padded[(slice(1, -1),) * mask.ndim]


topological_skeleton = jax.jit(
    skeleton.topological_skeleton, static_argnames=("num_iters", "method", "ties")
)
skeletonize = jax.jit(skeleton.skeletonize)


@pytest.mark.parametrize("shape", [(17, 14), (8, 7, 9)])
@pytest.mark.parametrize("method", ["boolean", "euler"])
def test_thinning_is_that_of_a_slow_loop(shape, method):
    for seed in range(3):
        mask = blobs(shape, seed)
        for num_iters in (0, 1, 3):
            found = topological_skeleton(mask, num_iters, method=method)
            expected = slow_skeleton(mask, num_iters)
            assert found.dtype == jnp.float32
            np.testing.assert_array_equal(found > 0, expected)


def test_every_neighbourhood_in_2d_and_many_in_3d_are_judged_as_by_counting():
    around = np.array(list(itertools.product((False, True), repeat=9)))
    rng = np.random.default_rng(0)
    for cubes in (
        around.reshape(-1, 3, 3),
        rng.random((300, 3, 3, 3)) < rng.random((300, 1, 1, 1)),
    ):
        simple = jax.jit(jax.vmap(lambda part: skeleton._is_simple(part, "boolean")))
        found = np.asarray(simple(cubes)).reshape(len(cubes))
        np.testing.assert_array_equal(found, [is_simple(cube) for cube in cubes])


@pytest.mark.parametrize("shape", [(32, 32), (10, 10, 10)])
def test_a_skeleton_is_thin_and_keeps_the_topology(shape):
    for seed in range(3):
        mask = blobs(shape, seed)
        thin = np.asarray(skeletonize(mask))
        assert thin.dtype == bool and not np.any(thin & ~mask)
        assert betti(thin) == betti(mask)
        assert removable(thin) == 0
        np.testing.assert_array_equal(skeletonize(thin), thin)


def test_small_solids_keep_a_pixel_and_rings_their_hole():
    ring = np.zeros((12, 12), bool)
    ring[2:10, 2:10] = True
    ring[5:7, 5:7] = False
    block = np.zeros((12, 12), bool)
    block[3:5, 6:8] = True
    full = np.ones((12, 12), bool)
    for mask in (ring, block, full, np.zeros((12, 12), bool)):
        thin = np.asarray(skeletonize(mask))
        assert betti(thin) == betti(mask)
        assert removable(thin) == 0
    assert np.asarray(skeletonize(block)).sum() == 1


def test_cubes_that_other_skeletons_lose_keep_a_voxel():
    for size in (2, 4):
        cube = jnp.zeros((6, 6, 6), bool).at[1 : 1 + size, 1:5, 2:4].set(True)
        assert betti(np.asarray(skeletonize(cube))) == (1, 0, 0)


def test_a_line_stays_and_a_bar_becomes_one():
    line = jnp.zeros((7, 12), bool).at[3, 2:10].set(True)
    np.testing.assert_array_equal(skeletonize(line), line)
    thin = np.asarray(skeletonize(jnp.zeros((9, 20), bool).at[2:7, 2:18].set(True)))
    assert betti(thin) == (1, 0) and thin.sum(0).max() == 1


def test_the_gradient_by_hand():
    # Of three pixels in a row and one below the middle, only the last is simple
    # and no end, so that the others and the far background stay ties.
    x = jnp.zeros((5, 5)).at[2, 1:4].set(0.9).at[3, 2].set(0.9)

    def slopes(ties):
        f = lambda x: topological_skeleton(x, 2, ties=ties).sum()  # noqa: E731
        return np.asarray(jax.grad(f)(x))

    thin = np.asarray(topological_skeleton(x, 2)) > 0
    mask = np.asarray(x) > 0.5
    for ties, kept in (("half", 0.25), ("image", 1.0)):
        slope = slopes(ties)
        np.testing.assert_array_equal(slope[thin], kept)
        np.testing.assert_array_equal(slope[mask & ~thin], 0.0)
        assert slope[0, 0] == 1.0
    assert slopes("image")[~mask].min() == 1.0
    # Background beside the row is simple, so that deleting it would be a tie.
    assert slopes("half")[1, 2] < 1.0


def test_noise_draws_the_mask_and_its_sigmoid_has_the_gradient():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(0.05, 0.95, (6, 7)), jnp.float32)
    noise = jnp.asarray(rng.uniform(0.01, 0.99, (6, 7)), jnp.float32)

    def drawn(x):
        return topological_skeleton(x, 0, noise=noise, beta=0.5, tau=2.0)

    logits = np.log(x / (1 - x)) + 0.5 * np.log(noise / (1 - noise))
    np.testing.assert_array_equal(drawn(x), logits > 0)
    soft = 1 / (1 + np.exp(-logits / 2.0))
    expected = soft * (1 - soft) / 2.0 / (x * (1 - x))
    slope = jax.grad(lambda x: drawn(x).sum())(x)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_certain_pixels_with_extreme_noise_have_finite_gradients():
    x = jnp.array([[0.0, 1.0, 0.0], [1.0, 0.5, 1.0]])
    noise = jnp.array([[0.0, 1.0, 1.0], [0.0, 1e-38, 0.5]])
    value, slope = jax.value_and_grad(
        lambda x: topological_skeleton(x, 2, noise=noise).sum()
    )(x)
    chex.assert_tree_all_finite((value, slope))


def test_a_batch_is_vmap_and_float64_stays():
    masks = np.stack([blobs((9, 8), seed) for seed in range(3)])
    batched = jax.jit(jax.vmap(skeleton.skeletonize))(masks)
    alone = [skeletonize(mask) for mask in masks]
    np.testing.assert_array_equal(batched, np.stack(alone))
    with jax.enable_x64(True):
        thin = topological_skeleton(jnp.asarray(masks[0], jnp.float64), 1)
        assert thin.dtype == jnp.float64


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_iters": -1}, "num_iters must be 0 or more"),
        ({"num_iters": 1, "method": "exact"}, "method must be boolean or euler"),
        ({"num_iters": 1, "ties": "first"}, "ties must be half or image"),
        ({"num_iters": 1, "noise": np.zeros(4)}, r"shape of x \(4, 4\), got \(4,\)"),
    ],
)
def test_refusals_say_what_is_wrong(options, text):
    with pytest.raises(ValueError, match=text):
        skeleton.topological_skeleton(np.zeros((4, 4)), **options)
    with pytest.raises(ValueError, match=r"mask must be \[rows, columns\]"):
        skeleton.skeletonize(np.zeros(4))
