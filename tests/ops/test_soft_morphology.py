import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.ops import soft_morphology

pytestmark = pytest.mark.usefixtures("strict_promotion")

SHAPES = ((7, 6), (4, 5, 3))
each_shape = pytest.mark.parametrize("shape", SHAPES)


def image(shape, seed=0, low=0.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def slow_erode(x):
    cross = ndimage.generate_binary_structure(x.ndim, 1)
    return ndimage.grey_erosion(x, footprint=cross, mode="constant", cval=np.inf)


def slow_dilate(x):
    return ndimage.grey_dilation(x, (3,) * x.ndim, mode="constant", cval=-np.inf)


def slow_skeleton(x, num_iters):
    """The definition, with the two erosions of each step written out."""
    skeleton = np.maximum(x - slow_dilate(slow_erode(x)), 0)
    for _ in range(num_iters):
        x = slow_erode(x)
        delta = np.maximum(x - slow_dilate(slow_erode(x)), 0)
        skeleton = skeleton + np.maximum(delta - skeleton * delta, 0)
    return skeleton


@pytest.fixture
def float64(strict_promotion):
    # Functions of SciPy hold NumPy's float64.
    with jax.enable_x64(True):
        yield


@each_shape
def test_erosion_dilation_and_opening_are_those_of_scipy(float64, shape):
    x = image(shape, low=-3.0, high=2.0)
    for ours, expected in (
        (soft_morphology.soft_erode, slow_erode(x)),
        (soft_morphology.soft_dilate, slow_dilate(x)),
        (soft_morphology.soft_open, slow_dilate(slow_erode(x))),
    ):
        np.testing.assert_array_equal(ours(x), expected)


@each_shape
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 3.0)])
def test_the_skeleton_follows_the_definition_beyond_0_and_1_too(
    float64, shape, low, high
):
    x = image(shape, low=low, high=high)
    for num_iters in (0, 1, 6):
        found = soft_morphology.soft_skeleton(x, num_iters)
        np.testing.assert_allclose(found, slow_skeleton(x, num_iters), atol=1e-14)


@each_shape
def test_gradients_are_finite_differences(float64, shape):
    x, weights = image(shape), image(shape, seed=1)
    directions = np.random.default_rng(2).normal(size=(8, *shape))
    for function in (
        soft_morphology.soft_erode,
        soft_morphology.soft_dilate,
        functools.partial(soft_morphology.soft_skeleton, num_iters=4),
    ):
        weighted = jax.jit(lambda x, f=function: jnp.sum(f(x) * weights))
        slope = jax.grad(weighted)(jnp.asarray(x))
        for direction in directions:
            # Without ties the functions are smooth within so small a step.
            ahead, behind = (weighted(x + s * 1e-7 * direction) for s in (1, -1))
            expected = (ahead - behind) / 2e-7
            np.testing.assert_allclose(np.vdot(slope, direction), expected, rtol=1e-5)


def test_of_equal_values_the_first_gets_the_gradient():
    x = jnp.ones((3, 4))
    dilated = jax.grad(lambda x: soft_morphology.soft_dilate(x)[1, 2])(x)
    chex.assert_trees_all_equal(dilated, jnp.zeros((3, 4)).at[0, 1].set(1.0))
    eroded = jax.grad(lambda x: soft_morphology.soft_erode(x)[1, 2])(x)
    chex.assert_trees_all_equal(eroded, jnp.zeros((3, 4)).at[0, 2].set(1.0))


@pytest.mark.parametrize("function", ["soft_erode", "soft_dilate", "soft_skeleton"])
def test_ties_lose_no_gradient(function):
    # Whatever pixel an extreme is taken from, its slopes add up to 1.
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (9, 8)), jnp.float32)
    if function == "soft_skeleton":
        jax.tree.map(
            lambda slope: chex.assert_tree_all_finite(slope),
            jax.grad(lambda x: soft_morphology.soft_skeleton(x, 3).sum())(x),
        )
        return
    slope = jax.grad(lambda x: getattr(soft_morphology, function)(x).sum())(x)
    assert slope.sum() == x.size


def test_the_middle_of_a_bar_is_its_skeleton():
    bar = jnp.zeros((9, 12)).at[3:6, 2:10].set(1.0)
    thin = soft_morphology.soft_skeleton(bar, 3)
    # One erosion leaves columns 3 to 8 of the middle row, another one takes one
    # more from each end; corners are lost in every opening by a cross.
    expected = jnp.zeros((9, 12)).at[4, 3:9].set(1.0)
    chex.assert_trees_all_equal(thin, expected)


def test_a_full_and_an_empty_image_have_no_skeleton():
    for x in (jnp.ones((6, 7)), jnp.zeros((6, 7))):
        found = soft_morphology.soft_skeleton(x, 10)
        chex.assert_trees_all_equal(found, jnp.zeros((6, 7)))


def _kept(num_iters, shape=(16, 16)):
    """Images that the gradient keeps from the forward pass."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    skeleton = functools.partial(soft_morphology.soft_skeleton, num_iters=num_iters)
    _, pull = jax.eval_shape(lambda x: jax.vjp(skeleton, x), x)
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(pull)) / np.prod(shape)


def test_memory_grows_with_the_root_of_the_iterations():
    for num_iters in (0, 3, 10, 50, 200):
        assert _kept(num_iters) <= 2 * np.ceil(np.sqrt(num_iters + 1))


def test_temporary_memory_of_50_iterations_is_less_than_twice_that_of_10():
    def bytes_of(num_iters):
        def loss(x):
            thin = functools.partial(soft_morphology.soft_skeleton, num_iters=num_iters)
            return soft_morphology.over_images(thin, x).sum()

        x = jax.ShapeDtypeStruct((4, 32, 32), jnp.float32)
        memory = jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis()
        return memory.temp_size_in_bytes + 2 * memory.output_size_in_bytes

    # 2 of 4 images for each of 3 and of 7 stretches, and one stretch of 4 or 8
    # steps of one image.
    assert bytes_of(50) <= 2 * bytes_of(10)


def test_the_program_does_not_grow_with_the_iterations():
    def lines(num_iters):
        thin = functools.partial(soft_morphology.soft_skeleton, num_iters=num_iters)
        slope = jax.grad(lambda x: thin(x).sum())
        return len(str(jax.make_jaxpr(slope)(jnp.zeros((8, 8)))).splitlines())

    assert lines(50) == lines(10)


def test_a_batch_is_its_images_one_by_one_however_it_is_run():
    x = jnp.asarray(image((3, 8, 9)), jnp.float32)
    thin = functools.partial(soft_morphology.soft_skeleton, num_iters=3)

    def slopes(run):
        return jax.jit(jax.value_and_grad(lambda x: (run(thin, x) ** 2).sum()))(x)

    mapped = slopes(soft_morphology.over_images)
    batched = slopes(lambda function, x: jax.vmap(function)(x))
    chex.assert_trees_all_close(mapped, batched, rtol=1e-6)
    alone = jnp.stack([thin(one) for one in x])
    chex.assert_trees_all_close(soft_morphology.over_images(thin, x), alone, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, bool])
def test_short_types_are_computed_in_float32(dtype):
    x = jnp.asarray(image((6, 6)) > 0.4, dtype)
    found = soft_morphology.soft_skeleton(x, 2)
    assert found.dtype == jnp.float32
    wide = soft_morphology.soft_skeleton(x.astype(jnp.float32), 2)
    chex.assert_trees_all_equal(found, wide)


def test_refusals_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"soft_skeleton: x must be \[rows, columns\]"):
        soft_morphology.soft_skeleton(np.zeros((1, 4, 4, 1)), 3)
    with pytest.raises(ValueError, match="num_iters must be 0 or more, got -1"):
        soft_morphology.soft_skeleton(np.zeros((4, 4)), -1)
