import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.ops import morphology

pytestmark = pytest.mark.usefixtures("strict_promotion")

CROSS = ndimage.generate_binary_structure(2, 1)
LOPSIDED = np.array([[1, 1, 0], [0, 1, 0]])
AHEAD = np.array([[0, 0, 0, 1, 1]])  # a full box that leaves out the centre
KERNELS = {
    "cross": CROSS,
    "box": np.ones((3, 5), int),
    "even": np.ones((4, 2), int),
    "lopsided": LOPSIDED,
    "ahead": AHEAD,
    "disk": morphology.ellipse(9),
    "deep": ndimage.generate_binary_structure(3, 2),
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def mask(rank, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((13, 11) if rank == 2 else (6, 7, 5)) < 0.6


def grey(rank, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, mask(rank).shape).astype(dtype)


@jax.jit(static_argnames=("kernel", "options"))
def everything(x, kernel, options=()):
    """Erosion, dilation, opening, closing in one program, for speed."""
    functions = morphology.erode, morphology.dilate, morphology.open, morphology.close
    return [f(x, KERNELS[kernel], **dict(options)) for f in functions]


@every_kernel
@pytest.mark.parametrize("iterations", [1, 3])
def test_binary_operations_with_a_black_border_agree_with_scipy(kernel, iterations):
    structure = KERNELS[kernel]
    x = mask(structure.ndim)
    found = everything(x, kernel, (("iterations", iterations), ("border", 0)))
    theirs = (
        ndimage.binary_erosion,
        ndimage.binary_dilation,
        ndimage.binary_opening,
        ndimage.binary_closing,
    )
    for ours, function in zip(found, theirs, strict=True):
        assert ours.dtype == bool
        expected = function(x, structure, iterations=iterations)
        np.testing.assert_array_equal(ours, expected, err_msg=function.__name__)


@every_kernel
def test_grey_levels_agree_with_scipy_where_outside_never_wins(kernel):
    structure = KERNELS[kernel]
    x = grey(structure.ndim)
    options = {"footprint": structure, "mode": "constant"}
    expected_eroded = ndimage.grey_erosion(x.astype(int), cval=999, **options)
    expected_dilated = ndimage.grey_dilation(x.astype(int), cval=-1, **options)
    eroded, dilated, opened, closed = everything(x, kernel)
    # Where no pixel of the image is below the kernel: the extreme of uint8.
    np.testing.assert_array_equal(eroded, np.minimum(expected_eroded, 255))
    np.testing.assert_array_equal(dilated, np.maximum(expected_dilated, 0))
    # An opening takes away, a closing adds, and a second time changes nothing.
    assert np.all(opened <= x) and np.all(closed >= x)
    np.testing.assert_array_equal(everything(opened, kernel)[2], opened)
    np.testing.assert_array_equal(everything(closed, kernel)[3], closed)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, jnp.bfloat16])
def test_every_dtype_is_kept(dtype):
    x = jnp.asarray(grey(2) > 99 if dtype is bool else grey(2) // 4, dtype)

    @jax.jit
    def results(x):
        functions = morphology.close, morphology.gradient, morphology.tophat
        filtered = morphology.maximum_filter(x, 4)
        return [f(x, CROSS, iterations=2) for f in functions] + [filtered]

    for found, wide in zip(results(x), results(x.astype(jnp.int32)), strict=True):
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found.astype(jnp.int32), wide)


def test_a_tophat_is_what_an_opening_takes():
    x = grey(2)
    opened = morphology.open(x, morphology.ellipse(5))
    np.testing.assert_array_equal(
        morphology.tophat(x, morphology.ellipse(5)), x - opened
    )


def test_dilation_is_erosion_of_the_background():
    x = mask(2)
    for kernel in (CROSS, morphology.ellipse(7)):
        expected = ~morphology.erode(~x, kernel)
        np.testing.assert_array_equal(morphology.dilate(x, kernel), expected)


def test_a_mask_that_is_cut_off_erodes_from_the_border_only_on_request():
    x = jnp.ones((4, 5), bool)
    assert morphology.erode(x, CROSS).all()
    inner = morphology.erode(x, CROSS, border=0)
    np.testing.assert_array_equal(inner, np.pad(np.ones((2, 3), bool), 1))
    edge = morphology.gradient(x, CROSS, border=0)
    np.testing.assert_array_equal(edge, ~inner)


def test_no_iteration_changes_nothing():
    x = grey(2)
    np.testing.assert_array_equal(morphology.dilate(x, CROSS, iterations=0), x)


def test_small_ellipses_are_a_point_a_cross_and_a_block_with_tips():
    np.testing.assert_array_equal(morphology.ellipse(1), [[True]])
    np.testing.assert_array_equal(morphology.ellipse(3), CROSS)
    block = np.ones((5, 5), bool)
    block[[0, 0, 0, 0, -1, -1, -1, -1], [0, 1, 3, 4, 0, 1, 3, 4]] = False
    np.testing.assert_array_equal(morphology.ellipse(5), block)
    widths = morphology.ellipse(9).sum(1)  # round(4 sqrt(1 - (d/4)^2)) to each side
    np.testing.assert_array_equal(widths, [1, 7, 7, 9, 9, 9, 7, 7, 1])


@pytest.mark.parametrize("size", [1, 2, 5, 8, 40, (3, 4)])
def test_maximum_filter_agrees_with_scipy(size):
    x = grey(2, np.float32)
    expected = ndimage.maximum_filter(x, size, mode="constant", cval=-1.0)
    np.testing.assert_array_equal(morphology.maximum_filter(x, size), expected)


def test_maximum_filter_of_negative_numbers_and_volumes_ignores_the_outside():
    x = -1 - grey(3, np.int32)
    expected = ndimage.maximum_filter(x, (2, 3, 6), mode="constant", cval=-999)
    np.testing.assert_array_equal(morphology.maximum_filter(x, (2, 3, 6)), expected)


def test_the_contour_of_a_square_by_hand():
    square = jnp.zeros((9, 9), jnp.int32).at[3:6, 3:6].set(7)
    sizes = {
        (mode, width): int(morphology.contour_map(square, width, mode).sum())
        for mode in ("inner", "outer", "both")
        for width in (0, 1, 2)
    }
    assert sizes == {
        ("inner", 0): 0, ("inner", 1): 8, ("inner", 2): 9,
        ("outer", 0): 0, ("outer", 1): 16, ("outer", 2): 40,
        ("both", 0): 0, ("both", 1): 24, ("both", 2): 49,
    }  # fmt: skip


@pytest.mark.parametrize("rank", [2, 3])
def test_wide_contours_are_gradients_of_several_iterations(rank):
    x, box = mask(rank), np.ones((3,) * rank)
    eroded = ndimage.binary_erosion(x, box, 2, border_value=1)
    dilated = ndimage.binary_dilation(x, box, 2)
    np.testing.assert_array_equal(morphology.contour_map(x, 2), dilated & ~eroded)
    inner, outer = (morphology.contour_map(x, 2, mode) for mode in ("inner", "outer"))
    np.testing.assert_array_equal(inner, x & ~eroded)
    np.testing.assert_array_equal(outer, dilated & ~x)


def test_a_cut_off_object_has_no_contour_along_the_cut():
    x = jnp.ones((4, 4, 4), bool)
    assert not morphology.contour_map(x).any()
    half = x.at[:, :, 2:].set(False)
    expected = jnp.zeros_like(x).at[:, :, 1:3].set(True)
    np.testing.assert_array_equal(morphology.contour_map(half), expected)


def test_jit_and_vmap_change_nothing():
    batch = np.stack([mask(2, seed) for seed in range(3)])
    for function in (
        lambda x: morphology.close(x, morphology.ellipse(5), iterations=2),
        lambda x: morphology.maximum_filter(x, 3),
        lambda x: morphology.contour_map(x, 2),
    ):
        alone = np.stack([function(x) for x in batch])
        np.testing.assert_array_equal(jax.jit(jax.vmap(function))(batch), alone)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ([[1, 1, 1]], [[0.0, 1.0, 3.0, 0.0]]),  # pixel 0 sees 1, the others 5
        ([[1, 0, 1]], [[0.0, 1.0, 2.0, 1.0]]),  # and pixel 2 the 2 beside it
    ],
)
def test_the_gradient_of_a_dilation_goes_to_the_greatest_pixel(kernel, expected):
    x = jnp.array([[0.0, 1.0, 5.0, 2.0]])
    slope = jax.grad(lambda x: morphology.dilate(x, kernel).sum())(x)
    chex.assert_trees_all_close(slope, jnp.array(expected))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: morphology.erode(np.zeros(4), CROSS), r"x must be \[rows, columns\]"),
        (lambda: morphology.open(np.zeros((2, 4, 4)), CROSS), "must have rank 3"),
        (lambda: morphology.close(mask(2), np.zeros((3, 3))), "entry that is not 0"),
        (lambda: morphology.dilate(mask(2), CROSS, border=1), 'must be "ignore" or 0'),
        (lambda: morphology.tophat(mask(2), CROSS, iterations=-1), "0 or more, got -1"),
        (lambda: morphology.gradient(mask(2), AHEAD), "must contain its centre"),
        (lambda: morphology.ellipse(0), "k must be at least 1"),
        (lambda: morphology.maximum_filter(mask(2), (3, 3, 3)), "or 2 of them"),
        (lambda: morphology.contour_map(mask(2), mode="thick"), "both, inner or outer"),
        (lambda: morphology.contour_map(mask(2), -1), "width must be 0 or more"),
    ],
)
def test_refusals_say_what_is_wrong(call, text):
    with pytest.raises(ValueError, match=text):
        call()
