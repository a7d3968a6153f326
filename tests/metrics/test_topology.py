"""Components, holes and centre lines: by hand, SciPy, scikit-image, loops."""

import jax
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import euler_number

from fluojax import metrics, ops

pytestmark = pytest.mark.usefixtures("strict_promotion")

EMPTY = np.zeros((5, 5), bool)
RING = EMPTY.copy()
RING[1:4, 1:4] = True
RING[2, 2] = False
DIAMOND = EMPTY.copy()  # touches across corners only
DIAMOND[[1, 2, 2, 3], [2, 1, 3, 2]] = True
SHELL = np.pad(np.ones((3, 3, 3), bool), 1)
SHELL[2, 2, 2] = False
TUNNEL = SHELL.copy()
TUNNEL[:, 2, 2] = False


def random_mask(shape, seed):
    return np.random.default_rng(seed).random(shape) < (0.55, 0.4)[seed % 2]


def slow_betti(mask):
    """Components of foreground and background by SciPy, tunnels by what is left."""
    rank = mask.ndim
    components = ndimage.label(mask, np.ones((3,) * rank))[1]
    enclosed = ndimage.label(np.pad(~mask, 1, constant_values=True))[1] - 1
    if rank == 2:
        return [components, enclosed]
    euler = euler_number(mask, connectivity=3)
    return [components, components + enclosed - euler, enclosed]


@pytest.mark.parametrize(
    ("mask", "numbers"),
    [
        (EMPTY, [0, 0]),
        (~EMPTY, [1, 0]),
        (RING, [1, 1]),
        (DIAMOND, [1, 1]),
        (~DIAMOND, [1, 4]),
        (SHELL, [1, 0, 1]),
        (TUNNEL, [1, 1, 0]),
    ],
)
def test_betti_numbers_by_hand(mask, numbers):
    found = metrics.betti_numbers(mask)
    assert found.tolist() == numbers and found.dtype == np.int32
    signs = (-1) ** np.arange(len(numbers))
    assert metrics.euler_number(mask) == np.dot(signs, numbers)


@pytest.mark.parametrize("shape", [(9, 13), (6, 5, 7)])
@pytest.mark.parametrize("seed", range(4))
def test_betti_and_euler_numbers_equal_those_of_other_programs(shape, seed):
    mask = random_mask(shape, seed)
    assert metrics.betti_numbers(mask).tolist() == slow_betti(mask)
    for connectivity in (1, len(shape)):
        expected = euler_number(mask, connectivity=connectivity)
        assert metrics.euler_number(mask, connectivity=connectivity) == expected


def test_a_diamond_is_four_pieces_across_faces():
    assert metrics.euler_number(DIAMOND, connectivity=1) == 4
    assert metrics.euler_number(RING, connectivity=1) == 0


def test_errors_are_differences_per_dimension():
    assert metrics.betti_error(RING, EMPTY).tolist() == [1, 1]
    assert metrics.betti_error(SHELL, TUNNEL).tolist() == [0, 1, 1]
    # As many holes elsewhere are no error, unless patches are looked at.
    pair = np.zeros((2, 5, 10), bool)
    pair[0, :, :5] = pair[1, :, 5:] = RING
    assert metrics.betti_error(*pair).tolist() == [0, 0]
    assert metrics.betti_error(*pair, patch=5).tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(9, 13), (6, 5, 7)])
def test_patches_stand_alone_and_the_last_ones_may_be_smaller(shape):
    true, pred = random_mask(shape, 0), random_mask(shape, 1)
    errors = []
    for corner in np.ndindex(*(-(-length // 4) for length in shape)):
        box = tuple(slice(4 * i, 4 * i + 4) for i in corner)
        difference = np.subtract(slow_betti(true[box]), slow_betti(pred[box]))
        errors.append(np.abs(difference))
    found = metrics.betti_error(true, pred, patch=4)
    np.testing.assert_allclose(found, np.mean(errors, axis=0), rtol=1e-6)


def test_centre_line_dice_by_hand():
    true, pred = np.zeros((2, 5, 12), bool)
    true[1:4, 1:11] = True
    pred[1:4, 1:7] = True
    lines = np.zeros((2, 5, 12), bool)
    lines[0, 2, 1:11] = True  # 10 pixels, 6 of them in the prediction
    lines[1, 2, 3:9] = True  # 6 pixels, all in the truth
    scores = metrics.cldice(true, pred, skeletons=(lines[0], lines[1]))
    assert (scores.hits_pred, scores.n_pred) == (6, 6)
    assert (scores.hits_true, scores.n_true) == (6, 10)
    expected = (2 * 0.6 / 1.6, 1.0, 0.6)
    np.testing.assert_allclose(scores[:3], expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(14, 17), (8, 7, 9)])
def test_skeletons_are_our_own_unless_given(shape):
    true = ndimage.binary_dilation(random_mask(shape, 1) & random_mask(shape, 3))
    pred = np.roll(true, 1, axis=0)
    lines = tuple(ops.skeletonize(mask) for mask in (true, pred))
    found = metrics.cldice(true, pred)
    np.testing.assert_array_equal(found, metrics.cldice(true, pred, skeletons=lines))
    assert 0 < found.cldice < 1
    assert metrics.cldice(true, true).cldice == 1.0


def test_centre_line_dice_of_empty_and_of_separate_masks():
    dot, other = np.eye(5, dtype=bool), ~RING
    assert np.isnan(metrics.cldice(EMPTY, EMPTY).cldice)
    missed, invented = metrics.cldice(dot, EMPTY), metrics.cldice(EMPTY, dot)
    assert missed.cldice == invented.cldice == 0.0
    assert np.isnan(missed.precision) and missed.sensitivity == 0.0
    assert np.isnan(invented.sensitivity) and invented.precision == 0.0
    assert metrics.cldice(RING, other & ~RING).cldice == 0.0


@pytest.mark.parametrize(
    "metric",
    [
        lambda t, p: metrics.cldice(t, p),
        lambda t, p: metrics.betti_error(t, p),
        lambda t, p: metrics.betti_error(t, p, patch=4),
    ],
    ids=["cldice", "betti_error", "patches"],
)
def test_a_batch_under_vmap_equals_its_images(metric):
    true = np.stack([random_mask((9, 10), seed) for seed in range(3)])
    pred = np.roll(true, 1, axis=2)
    pred[1] = False
    batch = jax.jit(jax.vmap(metric))(true, pred)
    single = [metric(*pair) for pair in zip(true, pred, strict=True)]
    single = jax.tree.map(lambda *leaves: np.stack(leaves), *single)
    jax.tree.map(np.testing.assert_array_equal, batch, single)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="euler_number: connectivity must be 1 or 3"):
        metrics.euler_number(SHELL, connectivity=2)
    with pytest.raises(ValueError, match="betti_error: patch must be at least 1"):
        metrics.betti_error(RING, RING, patch=0)
    with pytest.raises(ValueError, match="cldice: skeletons must have the shape"):
        metrics.cldice(RING, RING, skeletons=(RING, RING[1:]))
    with pytest.raises(ValueError, match="betti_error: true and pred must have one"):
        metrics.betti_error(RING, RING[1:])
    with pytest.raises(ValueError, match="betti_numbers: mask must be"):
        metrics.betti_numbers(np.zeros((1, 2, 3, 4)))
