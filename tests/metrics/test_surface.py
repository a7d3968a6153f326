"""Outlines: by hand, against loops over pixels, and what empty masks give."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax import metrics
from fluojax.metrics.surface import edge_pixels

pytestmark = pytest.mark.usefixtures("strict_promotion")

EMPTY = np.zeros((6, 7), bool)
DOT = EMPTY.copy()
DOT[2, 3] = True
SHAPES = [((12, 14), None), ((12, 14), (2.0, 0.7)), ((6, 7, 5), (1.5, 1.0, 0.5))]
DISTANCES = {
    "hd": metrics.hausdorff,
    "hd95": lambda t, p: metrics.hausdorff(t, p, percentile=95),
    "asd": lambda t, p: metrics.average_surface_distance(t, p, kind="asd"),
    "assd": metrics.average_surface_distance,
    "masd": lambda t, p: metrics.average_surface_distance(t, p, kind="masd"),
}
SHARES = {
    "nsd": metrics.surface_dice,
    "nsd_subpixel": metrics.surface_dice_subpixel,
    "f1": lambda t, p: metrics.boundary_f1(t, p).f1,
    "biou": metrics.boundary_iou,
}


def random_masks(shape, seed):
    rng = np.random.default_rng(seed)
    true = ndimage.gaussian_filter(rng.normal(size=shape), 1.2) > 0.1
    pred = np.roll(true, 1, axis=-1) ^ (rng.random(shape) < 0.05)
    return true, pred


def slow_edge(mask):
    """Pixels with a face neighbour outside, one after the other."""
    padded, edge = np.pad(mask, 1), np.zeros_like(mask)
    for place in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            near = place + 1
            near[axis] += step
            edge[tuple(place)] |= not padded[tuple(near)]
    return edge


def slow_distances(true, pred, spacing):
    """float64 distances from every edge pixel of `pred`, and of `true`."""
    spacing = np.ones(true.ndim) if spacing is None else np.array(spacing)
    places = [np.argwhere(slow_edge(mask)) * spacing for mask in (pred, true)]
    table = np.linalg.norm(places[0][:, None] - places[1][None], axis=-1)
    return table.min(axis=1), table.min(axis=0)


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_distances_and_shares_equal_a_loop_over_edge_pixels(shape, spacing):
    true, pred = random_masks(shape, 0)
    forth, back = slow_distances(true, pred, spacing)
    options = {"spacing": spacing}
    for q in (0, 33.3, 50, 95, 100):
        expected = [np.percentile(d, q) for d in (forth, back)]
        found = metrics.hausdorff(true, pred, percentile=q, **options)
        np.testing.assert_allclose(found, max(expected), rtol=1e-5, err_msg=str(q))
        found = metrics.hausdorff(true, pred, percentile=q, directed=True, **options)
        np.testing.assert_allclose(found, expected[0], rtol=1e-5, err_msg=str(q))
    means = {
        "asd": forth.mean(),
        "assd": np.concatenate([forth, back]).mean(),
        "masd": (forth.mean() + back.mean()) / 2,
    }
    for kind, mean in means.items():
        found = metrics.average_surface_distance(true, pred, kind=kind, **options)
        np.testing.assert_allclose(found, mean, rtol=1e-5, err_msg=kind)
    near = (forth <= 1.1).sum(), (back <= 1.1).sum()
    found = metrics.surface_dice(true, pred, tolerance=1.1, **options)
    np.testing.assert_allclose(found, sum(near) / (forth.size + back.size), rtol=1e-6)
    scores = metrics.boundary_f1(true, pred, tolerance=1.1, **options)
    assert (scores.near_pred, scores.near_true) == near
    assert (scores.n_pred, scores.n_true) == (forth.size, back.size)
    p, r = near[0] / forth.size, near[1] / back.size
    np.testing.assert_allclose(
        scores[:3], (2 * p * r / (p + r), p, r), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_bands_equal_those_of_a_distance_transform(shape, spacing):
    true, pred = random_masks(shape, 1)
    bands = []
    for mask in (true, pred):
        edge = slow_edge(mask)
        np.testing.assert_array_equal(edge_pixels(mask), edge)
        bands.append(mask & (ndimage.distance_transform_edt(~edge, spacing) < 1.2))
    expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
    found = metrics.boundary_iou(true, pred, distance=1.2, spacing=spacing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_square_moved_by_three_pixels():
    true = np.zeros((20, 20), bool)
    true[4:10, 4:10] = True
    pred = np.roll(true, 3, axis=1)
    assert metrics.hausdorff(true, pred) == 3.0
    assert metrics.hausdorff(true, pred, spacing=(1.0, 0.5)) == 1.5
    # The sides along the move stay near: 4 pixels of each share two rows.
    scores = metrics.boundary_f1(true, pred, tolerance=0.0)
    assert (scores.near_pred, scores.n_pred) == (6, 20)
    assert metrics.surface_dice(true, pred, tolerance=3.0) == 1.0
    assert metrics.boundary_iou(true, pred) == np.float32(6 / 34)


def test_percentiles_keep_the_directions_apart():
    # All predicted pixels are true; one true pixel of 21 is 10 away.
    pred = np.zeros((1, 40), bool)
    pred[0, :20] = True
    true = pred.copy()
    true[0, 29] = True
    assert metrics.hausdorff(true, pred) == 10.0
    assert metrics.hausdorff(true, pred, directed=True) == 0.0
    assert metrics.hausdorff(true, pred, percentile=95) == 0.0
    # Rank 0.98 * 20 = 19.6: 6/10 of the way from 0 to 10.
    found = metrics.hausdorff(true, pred, percentile=98)
    np.testing.assert_allclose(found, 6.0, rtol=1e-6)
    assert metrics.average_surface_distance(true, pred, kind="asd") == 0.0
    found = metrics.average_surface_distance(true, pred)
    np.testing.assert_allclose(found, 10 / 41, rtol=1e-6)


@pytest.mark.parametrize("long", [False, True])
def test_a_tolerance_of_a_diagonal_reaches_it(long):
    # The square of sqrt(13) is below 13.
    true, pred = DOT, np.roll(DOT, (2, 3), (0, 1))
    with jax.enable_x64(long):
        for unit in (1.0, 3.0):
            options = {"tolerance": unit * float(np.sqrt(13)), "spacing": unit}
            assert metrics.surface_dice(true, pred, **options) == 1.0
            options["tolerance"] *= 0.999
            assert metrics.surface_dice(true, pred, **options) == 0.0


def test_outlines_between_pixels_by_hand():
    # A pixel has four corners of half a diagonal each; one step aside, two of
    # the four are shared and the others one pixel away.
    moved = np.roll(DOT, 1, axis=1)
    assert metrics.surface_dice_subpixel(DOT, moved, tolerance=0.5) == 0.5
    assert metrics.surface_dice_subpixel(DOT, moved, tolerance=1.0) == 1.0
    # Two rows of four pixels against the first alone, rows being 2 apart. A side
    # of four pixels has three points of length 1 between its corners.
    true, pred = np.zeros((2, 6, 8), bool)
    true[1:3, 2:6] = pred[1:2, 2:6] = True
    corner = np.sqrt(2**2 + 1) / 2
    length_true, length_pred = 4 * corner + 2 * 3 + 2 * 2, 4 * corner + 2 * 3
    # In common: the upper side, and the points where the lower corners of the
    # one are in the middle of the left and the right side of the other.
    shared_true, shared_pred = 2 * corner + 3 + 2 * 2, 2 * corner + 3 + 2 * corner
    expected = (shared_true + shared_pred) / (length_true + length_pred)
    found = metrics.surface_dice_subpixel(true, pred, tolerance=0.0, spacing=(2.0, 1.0))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pixels_that_touch_at_a_corner_have_two_half_diagonals_there():
    true = np.zeros((5, 5), bool)
    true[1, 1] = true[2, 2] = True
    pred = np.zeros_like(true)
    pred[1, 1] = True
    # 6 single corners and one double one; the other mask has 4 single ones.
    found = metrics.surface_dice_subpixel(true, pred, tolerance=0.0)
    np.testing.assert_allclose(found, (3 + 2 + 4) / (6 + 2 + 4), rtol=1e-6)


@pytest.mark.parametrize("name", [*DISTANCES, *SHARES])
def test_empty_masks_are_undefined_and_one_empty_mask_is_the_worst(name):
    score = (DISTANCES | SHARES)[name]
    worst, best = (np.inf, 0.0) if name in DISTANCES else (0.0, 1.0)
    full = ~EMPTY
    assert np.isnan(score(EMPTY, EMPTY))
    for mask in (DOT, full):
        assert score(mask, EMPTY) == worst and score(EMPTY, mask) == worst
        assert score(mask, mask) == best


def test_precision_and_recall_are_undefined_without_edge_pixels_of_their_own():
    missed = metrics.boundary_f1(DOT, EMPTY)
    assert np.isnan(missed.precision) and missed.recall == 0.0
    invented = metrics.boundary_f1(EMPTY, DOT)
    assert np.isnan(invented.recall) and invented.precision == 0.0
    assert metrics.boundary_f1(DOT, np.roll(DOT, 3, 1)).f1 == 0.0


@pytest.mark.parametrize("name", [*DISTANCES, *SHARES])
def test_a_batch_under_vmap_equals_its_images(name):
    score = (DISTANCES | SHARES)[name]
    pairs = [random_masks((12, 14), seed) for seed in range(3)]
    true, pred = (np.stack(masks) for masks in zip(*pairs, strict=True))
    true[1] = False
    batch = jax.jit(jax.vmap(score))(true, pred)
    single = [score(*pair) for pair in zip(true, pred, strict=True)]
    np.testing.assert_allclose(batch, single, rtol=1e-6)


def test_masks_of_any_dtype_and_float64():
    true, pred = random_masks((12, 14), 2)
    expected = metrics.hausdorff(true, pred, percentile=90)
    for dtype in (np.uint8, np.int32, np.float32):
        found = metrics.hausdorff(3 * true.astype(dtype), pred, percentile=90)
        assert found == expected and found.dtype == np.float32
    with jax.enable_x64(True):
        options = {"percentile": 90, "spacing": 0.3}
        found = metrics.hausdorff(true, pred, **options)
        assert found.dtype == np.float64
        assert metrics.surface_dice_subpixel(true, pred).dtype == np.float64
        assert metrics.boundary_f1(true, pred).f1.dtype == np.float64
    forth, back = slow_distances(true, pred, (0.3, 0.3))
    expected = max(np.percentile(forth, 90), np.percentile(back, 90))
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="hausdorff: percentile must be 0 to 100"):
        metrics.hausdorff(DOT, DOT, percentile=101)
    with pytest.raises(ValueError, match="kind must be asd, assd or masd"):
        metrics.average_surface_distance(DOT, DOT, kind="mean")
    with pytest.raises(ValueError, match="surface_dice: tolerance must be 0 or more"):
        metrics.surface_dice(DOT, DOT, tolerance=-1.0)
    with pytest.raises(ValueError, match="boundary_iou: distance must be positive"):
        metrics.boundary_iou(DOT, DOT, distance=0.0)
    with pytest.raises(ValueError, match="boundary_f1: spacing must be one positive"):
        metrics.boundary_f1(DOT, DOT, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="hausdorff: true and pred must have one"):
        metrics.hausdorff(DOT, DOT[1:])
    volume = jnp.zeros((3, 3, 3))
    with pytest.raises(ValueError, match="use surface_dice for volumes"):
        metrics.surface_dice_subpixel(volume, volume)
