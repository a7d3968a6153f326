"""Reconstruction, h-maxima, and cells parted at their necks."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import morphology
from skimage.segmentation import watershed as queue_watershed

from fluojax.ops import h_maxima, reconstruct, split_necks

HILLS = jnp.array([[0, 5, 3, 4, 1, 2, 2, 0, 9, 8.5, 9]])


def test_a_reconstruction_by_hand():
    found = reconstruct(HILLS - 2, HILLS)
    expected = [[0, 3, 3, 3, 1, 1, 1, 0, 7, 7, 7]]
    np.testing.assert_array_equal(found, expected)


def test_maxima_by_hand_fall_by_more_than_h_on_every_way_up():
    at = lambda h: np.flatnonzero(h_maxima(HILLS, h)).tolist()  # noqa: E731
    assert at(0) == [1, 3, 5, 6, 8, 10]
    assert at(0.4) == [1, 3, 5, 6, 8, 10]
    assert at(0.6) == [1, 3, 5, 6, 8, 9, 10]
    assert at(1.5) == [1, 8, 9, 10]
    assert at(20) == list(range(11))


def test_a_mask_is_the_whole_world():
    mask = jnp.array([[1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0]])
    found = h_maxima(HILLS, 1.5, mask=mask)
    np.testing.assert_array_equal(found, [[0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0]])


@pytest.mark.parametrize("shape", [(40, 37), (11, 12, 13)])
def test_both_agree_with_scikit_image(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, shape).astype(np.int32)
    faces = ndimage.generate_binary_structure(len(shape), 1)
    for h in (1, 5, 15):
        expected = morphology.reconstruction(image - h, image, footprint=faces)
        np.testing.assert_array_equal(reconstruct(image - h, image), expected)
        expected = morphology.local_maxima(expected, faces)
        for dtype in (np.int32, np.uint8, np.float32):
            np.testing.assert_array_equal(h_maxima(image.astype(dtype), h), expected)


def discs(shape, *circles):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = [np.hypot(rows - y, columns - x) <= r for y, x, r in circles]
    return np.any(inside, axis=0)


def test_small_and_large_cells_are_parted_in_one_image():
    mask = discs((60, 90), (30, 20, 16), (30, 45, 12), (12, 70, 5), (12, 79, 4))
    mask[50, 80] = True  # a speck is a cell of its own
    labels = np.asarray(split_necks(mask))
    np.testing.assert_array_equal(labels > 0, mask)
    assert labels.max() == 5
    assert len({labels[30, 20], labels[30, 45], labels[12, 70], labels[12, 80]}) == 4
    assert int(split_necks(mask, depth=6.0).max()) == 3


def test_labels_are_those_of_a_queue_on_the_same_distances():
    rng = np.random.default_rng(1)
    circles = zip(rng.integers(8, 110, 30), rng.integers(8, 110, 30), rng.uniform(4, 9, 30), strict=True)  # fmt: skip
    mask = discs((120, 120), *circles)
    depth, sigma = 0.5, 1.0
    height = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), sigma)
    inside = np.where(mask, height, -100)
    lowered = morphology.reconstruction(
        inside - depth, inside, footprint=ndimage.generate_binary_structure(2, 1)
    )
    faces = ndimage.generate_binary_structure(2, 1)
    peaks = morphology.local_maxima(np.where(mask, lowered, -200), faces) & mask
    expected = queue_watershed(-height, ndimage.label(peaks)[0], mask=mask)
    found = np.asarray(split_necks(mask, depth=depth, sigma=sigma))
    assert found.max() == expected.max() > 12
    for label in range(1, expected.max() + 1):
        cell = expected == label
        inside = np.bincount(found[cell]).max()
        assert inside / cell.sum() > 0.95


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: reconstruct(np.zeros(3), np.zeros(3)), "reconstruct: marker must"),
        (
            lambda: reconstruct(np.zeros((3, 3)), np.zeros((3, 4))),
            "shape of the marker",
        ),
        (lambda: h_maxima(np.zeros(3), 1), "h_maxima: image must"),
        (lambda: h_maxima(np.zeros((3, 3)), 1, mask=np.ones((2, 3))), r"got \(2, 3\)"),
        (
            lambda: split_necks(np.zeros((3, 3)), depth=0),
            "depth must be above 0, got 0",
        ),
        (lambda: split_necks(np.zeros((3, 3)), sigma=-1), "sigma must be above 0"),
    ],
)
def test_what_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
