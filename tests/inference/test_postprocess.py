"""From probabilities to labels, by hand and against SciPy and scikit-image."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import measure, morphology

from fluojax.inference import postprocess

CROSS = ndimage.generate_binary_structure(2, 1)


def noise(seed, shape):
    field = np.random.default_rng(seed).random(shape)
    return ndimage.uniform_filter(field, 3)


def test_clean_up_by_hand():
    probs = np.zeros((9, 15))
    probs[2:6, 2:6] = 0.9  # 16 pixels stay
    probs[3, 9:14] = 0.9  # 5 pixels go
    probs[5:8, 9:14] = 0.5  # not above the threshold
    labels = postprocess.instances_from_probs(probs)
    assert labels.dtype == np.int32 and labels.max() == 1
    np.testing.assert_array_equal(labels > 0, (probs == 0.9) & (np.arange(15) < 6))


def test_an_object_of_exactly_the_smallest_area_stays():
    probs = np.zeros((6, 12))
    probs[0:3, 0:5] = 1.0  # 15
    probs[0:2, 6:12] = 1.0  # 12
    probs[2, 6:8] = 1.0  # 14 together
    assert postprocess.instances_from_probs(probs, closing=0).max() == 1
    assert postprocess.instances_from_probs(probs, closing=0, min_area=14).max() == 2


@pytest.mark.parametrize("shape", [(40, 51), (12, 14, 13)])
@pytest.mark.parametrize("seed", range(3))
def test_labels_equal_those_of_scikit_image(seed, shape):
    probs = noise(seed, shape)
    cross = ndimage.generate_binary_structure(len(shape), 1)
    threshold = np.quantile(probs, 0.85)
    # Grey closing repeats the last pixel, which for a cross changes nothing.
    closed = ndimage.grey_closing(
        (probs > threshold).astype(int), footprint=cross, mode="nearest"
    )
    expected = measure.label(closed, connectivity=len(shape))
    areas = np.bincount(expected.ravel())
    large = np.where(areas[expected] >= 9, expected, 0)
    expected = measure.label(large > 0, connectivity=len(shape))
    actual = postprocess.instances_from_probs(probs, threshold=threshold, min_area=9)
    assert actual.max() > 1
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", [(40, 51), (12, 14, 13)])
def test_components_are_numbered_in_raster_order_like_scikit_image(shape):
    mask = noise(7, shape) > 0.52
    expected = measure.label(mask, connectivity=len(shape))
    np.testing.assert_array_equal(postprocess.components(mask), expected)
    small = postprocess.instances_from_probs(mask, closing=0, min_area=1)
    np.testing.assert_array_equal(small, expected)


def test_numbers_stay_consecutive_after_small_objects_went():
    labels = postprocess.instances_from_probs(
        noise(1, (60, 60)), threshold=0.55, min_area=6
    )
    present = np.unique(labels)
    np.testing.assert_array_equal(present, np.arange(present[-1] + 1))
    first = [np.flatnonzero(labels == k)[0] for k in present[1:]]
    assert first == sorted(first)


def test_diagonal_neighbours_belong_together():
    assert postprocess.components(np.eye(4)).max() == 1
    corner = np.zeros((2, 2, 2))
    corner[0, 0, 0] = corner[1, 1, 1] = 1
    assert postprocess.components(corner).max() == 1


def test_closing_fills_a_gap_of_one_pixel_and_keeps_the_border():
    probs = np.ones((7, 9))
    probs[3, 4] = 0.0
    np.testing.assert_array_equal(postprocess.instances_from_probs(probs), 1)
    assert postprocess.instances_from_probs(probs, closing=0)[3, 4] == 0
    corner = np.zeros((6, 6))
    corner[:4, :4] = 1.0  # at the image's edge nothing is eroded
    np.testing.assert_array_equal(postprocess.instances_from_probs(corner), corner)


def test_the_kernel_is_the_ellipse_of_opencv():
    np.testing.assert_array_equal(postprocess._ellipse(3, 2), CROSS)
    five = np.ones((5, 5), bool)
    five[[0, 0, 0, 0, 4, 4, 4, 4], [0, 1, 3, 4] * 2] = False
    np.testing.assert_array_equal(postprocess._ellipse(5, 2), five)
    assert postprocess._ellipse(3, 3).sum() == 7


def test_holes_are_filled_on_request():
    probs = morphology.disk(7).astype(float)
    probs[5:10, 5:10] = 0.0
    ring = postprocess.instances_from_probs(probs)
    disk = postprocess.instances_from_probs(probs, fill_holes=True)
    assert ring[7, 7] == 0 and disk[7, 7] == 1


def test_nothing_above_the_threshold_gives_no_label():
    assert not postprocess.instances_from_probs(np.full((5, 5), np.nan)).any()
    assert not postprocess.instances_from_probs(np.zeros((1, 1))).any()


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"take one channel with x\[..., 0\]"):
        postprocess.instances_from_probs(np.zeros((1, 4, 4, 1)))
    with pytest.raises(
        ValueError, match="closing must be 0 or odd and positive, got 2"
    ):
        postprocess.instances_from_probs(np.zeros((4, 4)), closing=2)


def test_cells_a_line_apart_touch_and_stay_two():
    probs = np.zeros((9, 12))
    probs[1:8, 1:5] = probs[1:8, 7:11] = 1
    merged = postprocess.instances_from_probs(probs)
    apart = postprocess.instances_from_probs(probs, apart=True)
    assert merged.max() == 1
    assert apart.max() == 2
    # Closing with a cross fills the line except at its ends.
    np.testing.assert_array_equal((apart > 0)[2:7], (merged > 0)[2:7])
    np.testing.assert_array_equal(apart[4, 4:8], [1, 1, 2, 2])


def test_specks_that_are_dropped_do_not_grow_back_beside_cells():
    probs = np.zeros((12, 12))
    probs[1:6, 1:6] = 1
    probs[9, 9] = 1
    assert postprocess.instances_from_probs(probs, apart=True)[8:, 8:].max() == 0


def touching(width):
    """Two discs of radius 12 that share a neck, a third alone, and a speck."""
    y, x = np.mgrid[:40, :90]
    centres = ((18, 20), (18, 20 + width), (20, 75))
    discs = [(y - i) ** 2 + (x - j) ** 2 <= 144 for i, j in centres]
    mask = np.any(discs, axis=0)
    mask[2, 2] = True
    return mask * 0.9


def test_the_watershed_of_the_study_splits_what_touches():
    probs = touching(21)
    options = {"closing": 0, "min_area": 50}
    assert postprocess.instances_from_probs(probs, **options).max() == 2
    split = postprocess.instances_from_probs(
        probs, **options, max_filter_size=9, footprint=12
    )
    assert split.max() == 3
    assert split[18, 20] != split[18, 41]
    assert not split[2, 2]


def test_smoothing_and_small_holes_also_without_a_watershed():
    probs = touching(21)
    probs[18:20, 18:20] = 0  # a hole of four pixels
    probs[18, 31:58] = 0.9
    labels = postprocess.instances_from_probs(probs, closing=0, smooth_disk=3)
    assert not labels[2, 2] and not labels[18, 57]
    labels = postprocess.instances_from_probs(probs, closing=0, max_hole_size=5)
    assert labels[18, 18]
    labels = postprocess.instances_from_probs(probs, closing=0, max_hole_size=4)
    assert not labels[18, 18]


def test_cells_are_parted_at_necks_and_numbered_in_raster_order():
    probs = touching(21)
    options = {"closing": 0, "min_area": 50, "neck_depth": 0.75}
    labels = postprocess.instances_from_probs(probs, **options)
    np.testing.assert_array_equal(labels > 0, (probs > 0.5) & (labels != 0))
    assert [labels[18, 20], labels[18, 41], labels[20, 75]] == [1, 2, 3]
    assert not labels[2, 2]
    options["neck_depth"] = 9  # no neck of these cells is that deep
    assert postprocess.instances_from_probs(probs, **options).max() == 2


def test_necks_are_found_before_closing_if_cells_are_learned_apart():
    probs = touching(21)
    probs[18, 64:66] = probs[17, 54:64] = 0  # a cut through the cell alone
    probs[:, 62] = 0
    options = {"min_area": 50, "neck_depth": 0.75, "apart": True}
    labels = postprocess.instances_from_probs(probs, **options)
    assert labels.max() == 3
    closed = postprocess.instances_from_probs(probs, closing=0, min_area=50)
    assert (labels > 0).sum() > (closed > 0).sum()


def test_two_ways_of_parting_cells_are_refused():
    with pytest.raises(ValueError, match="max_filter_size and neck_depth .* 9 and 1"):
        postprocess.instances_from_probs(
            np.ones((9, 9)), max_filter_size=9, neck_depth=1
        )
