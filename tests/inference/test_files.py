"""Files: exact labels, the same bytes every time, pictures that show the cells."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from fluojax.inference import files


def many(count):
    """An image with `count` cells of one pixel each."""
    side = int(np.ceil(np.sqrt(count + 1)))
    labels = np.zeros(side * side, np.int32)
    labels[1 : count + 1] = np.arange(1, count + 1)
    return labels.reshape(side, side)


@pytest.mark.parametrize(
    ("count", "dtype"),
    [(0, np.uint16), (255, np.uint16), (256, np.uint16), (65_535, np.uint16),
     (65_536, np.uint32)],
)  # fmt: skip
def test_labels_are_exact_whatever_their_number(count, dtype):
    labels = many(count)
    stored = tifffile.imread(io.BytesIO(files.labels_tiff_bytes(labels)))
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, labels)


def test_labels_are_compressed_and_keep_axes_and_pixel_size():
    data = files.labels_tiff_bytes(many(50), (0.5, 0.25))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        assert file.series[0].axes == "YX"
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        # Pixels per centimetre, columns first.
        assert page.tags["XResolution"].value == (40_000, 1)
        assert page.tags["YResolution"].value == (20_000, 1)
        assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        assert {"DateTime", "Software", "HostComputer"}.isdisjoint(page.tags.keys())


def test_volumes_keep_their_axes():
    data = files.labels_tiff_bytes(np.arange(24, dtype=int).reshape(2, 3, 4), 0.5)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.series[0].axes == "ZYX" and file.asarray().shape == (2, 3, 4)


def test_probabilities_are_float32():
    probs = np.random.default_rng(0).random((5, 7)).astype(np.float16)
    stored = tifffile.imread(io.BytesIO(files.probs_tiff_bytes(probs)))
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, probs)


def test_repeated_calls_give_the_same_bytes():
    labels, image = many(30), np.random.default_rng(0).random((6, 6, 2))
    for make in (
        lambda: files.labels_tiff_bytes(labels, 0.3),
        lambda: files.probs_tiff_bytes(labels / 30.0),
        lambda: files.overlay_png_bytes(image, labels, "a: 30 cells"),
    ):
        assert make() == make()


def test_labels_that_no_file_can_hold_are_refused():
    for bad in (np.array([[-1]]), np.array([[0.5]]), np.array([[2**32]])):
        with pytest.raises(ValueError, match="labels must be integers from 0 to"):
            files.labels_tiff_bytes(bad)
    with pytest.raises(ValueError, match="labels_tiff_bytes: the array must be"):
        files.labels_tiff_bytes(np.zeros(3, int))


def overlay(image, labels, caption="x"):
    return np.asarray(
        Image.open(io.BytesIO(files.overlay_png_bytes(image, labels, caption)))
    )


def test_outlines_are_one_pixel_wide_and_inside_the_cells():
    labels = np.zeros((12, 30), int)
    labels[2:8, 3:9] = 1
    labels[2:8, 9:14] = 2  # touches the first
    picture = overlay(np.zeros((12, 30)), labels)[:12, :30]
    coloured = picture.any(axis=-1)
    expected = labels > 0
    expected[3:7, 4:8] = expected[3:7, 10:13] = False
    np.testing.assert_array_equal(coloured, expected)
    assert not np.array_equal(picture[5, 8], picture[5, 9])


def test_a_cell_at_the_edge_of_the_image_has_no_outline_there():
    labels = np.zeros((9, 9), int)
    labels[:4, :4] = 1
    assert not overlay(np.zeros((9, 9)), labels)[0, :3].any()


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 5])
def test_images_of_any_number_of_channels_fill_the_range(channels):
    shape = (20, 24) if channels is None else (20, 24, channels)
    image = np.random.default_rng(1).integers(100, 4000, shape).astype(np.uint16)
    picture = overlay(image, np.zeros((20, 24), int))[:20, :24]
    assert picture.shape == (20, 24, 3) and picture.dtype == np.uint8
    assert picture.max() == 255
    if channels in (None, 1):
        assert np.ptp(picture, axis=-1).max() == 0


def test_the_caption_is_shown_below_whatever_it_contains():
    image, labels = np.zeros((10, 4)), np.zeros((10, 4), int)
    short = overlay(image, labels, "")
    long = overlay(image, labels, "细胞\nimage ü: 1,204 cells")
    assert not short.any() and long[10:].any() and not long[:10].any()
    assert long.shape[1] > short.shape[1]


def test_an_overlay_of_another_size_is_refused():
    with pytest.raises(ValueError, match="overlay_png_bytes: image must be"):
        files.overlay_png_bytes(np.zeros((4, 5)), np.zeros((5, 4), int), "x")
