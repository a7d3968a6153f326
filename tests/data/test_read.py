import threading

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from fluojax.data import masks, pictures, read
from fluojax.errors import UserError

GREY = (np.arange(48).reshape(6, 8) * 5).astype(np.uint8)
DEEP = (np.arange(48).reshape(6, 8) * 1000 + 7).astype(np.uint16)
LABELS = np.zeros((6, 8), np.uint16)
LABELS[:2, :2], LABELS[3:, 3:5], LABELS[3:, 6:] = 1, 2, 3


def picture(path, **options):
    return pictures.as_picture(path, *read.read_image(path), **options)


# --- files ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.npy"])
@pytest.mark.parametrize("array", [GREY, DEEP], ids=["uint8", "uint16"])
def test_grey_pictures_come_back_exactly(tmp_path, disk, name, array):
    got, axes = read.read_image(disk.write(tmp_path / name, array))
    assert axes == "YX" and got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">"},
        {"bigtiff": True},
        {"imagej": True},
        {"tile": (16, 16)},
        {"compression": "lzw"},
        {"compression": "deflate"},
        {"compression": "zstd"},
        {"compression": "jpeg2000"},
        {"predictor": True, "compression": "lzw"},
    ],
    ids=str,
)
def test_dialects_of_tiff_are_read_exactly_in_native_byte_order(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, **options)
    got, axes = read.read_image(tmp_path / "a.tif")
    assert axes == "YX" and got.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(got, DEEP)


def test_big_endian_npy_becomes_the_plain_type(tmp_path):
    np.save(tmp_path / "a.npy", DEEP.astype(">u2"))
    got, _ = read.read_image(tmp_path / "a.npy")
    assert got.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(got, DEEP)


@pytest.mark.parametrize(
    ("shape", "metadata", "axes"),
    [
        ((3, 6, 8), {"axes": "ZYX"}, "ZYX"),
        ((2, 6, 8), {"axes": "CYX"}, "CYX"),
        ((3, 2, 6, 8), {"axes": "ZCYX"}, "ZCYX"),
        ((4, 3, 6, 8), {"axes": "TZYX"}, "TZYX"),
    ],
)
@pytest.mark.parametrize("dialect", ["imagej", "ome"])
def test_axes_come_from_imagej_and_ome(tmp_path, shape, metadata, axes, dialect):
    stack = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata=metadata, **{dialect: True})
    got, got_axes = read.read_image(tmp_path / "a.tif")
    assert got_axes == axes
    np.testing.assert_array_equal(got, stack)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (9, 1)])
def test_images_of_one_row_or_column_keep_their_shape(tmp_path, disk, rows, columns):
    for name in ("a.png", "a.tif", "a.npy"):
        path = disk.write(tmp_path / name, np.ones((rows, columns), np.uint8))
        assert picture(path).shape == (rows, columns, 1)


def test_the_content_decides_the_type_not_the_name(tmp_path, disk):
    path = disk.write(tmp_path / "a.png", GREY, ".tif")
    assert read.file_type(path) == "tiff"
    np.testing.assert_array_equal(read.read_image(path)[0], GREY)


def test_sixteen_bit_colours_keep_all_their_bits(tmp_path):
    colours = np.stack([DEEP, DEEP // 2, DEEP // 3], -1)
    imagecodecs.imwrite(tmp_path / "a.png", colours)
    got, axes = read.read_image(tmp_path / "a.png")
    assert axes == "YXS" and got.dtype == np.uint16
    np.testing.assert_array_equal(got, colours)


def test_palettes_are_colours_in_images_and_indices_in_masks(tmp_path):
    image = Image.fromarray((LABELS % 4).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10, 10, 10, 200])
    image.save(tmp_path / "a.png")
    colours, axes = read.read_image(tmp_path / "a.png")
    assert axes == "YXS" and tuple(colours[0, 0]) == (200, 10, 10)
    np.testing.assert_array_equal(masks.read_mask_plane(tmp_path / "a.png"), LABELS)
    assert read.conversions(tmp_path / "a.png") == ["palette converted to colours"]


@pytest.mark.parametrize("array", [GREY, GREY > 100, DEEP], ids=["8", "1", "16"])
def test_min_is_white_is_inverted_in_images_but_not_in_masks(tmp_path, array):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="miniswhite")
    top = 1 if array.dtype == bool else np.iinfo(array.dtype).max
    expected = top - array.astype(np.int64)
    np.testing.assert_array_equal(picture(path)[..., 0], expected)
    np.testing.assert_array_equal(masks.read_mask_plane(path), array)
    assert read.conversions(path) == ["min-is-white inverted"]


def test_a_jpeg_is_turned_as_its_exif_entry_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read.read_image(tmp_path / "a.jpg")[0].shape == (16, 8)
    assert read.exif_orientation(tmp_path / "a.jpg") == 6
    assert read.conversions(tmp_path / "a.jpg") == ["rotated as its EXIF entry says"]


def test_reading_leaves_the_limit_of_pillow_alone_also_in_threads(tmp_path, disk):
    path, before = disk.write(tmp_path / "a.png", GREY), Image.MAX_IMAGE_PIXELS
    work = [
        threading.Thread(target=lambda: [read.read_image(path) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == before


def broken(tmp_path, name: str):
    path = tmp_path / name
    if name == "empty.png":
        path.write_bytes(b"")
    elif name == "text.tif":
        path.write_text("<html>not found</html>")
    elif name == "header.tif":
        path.write_bytes(b"II*\x00\x08\x00\x00\x00")
    elif name == "dangling.png":
        path.symlink_to(tmp_path / "nothing")
    elif name == "folder.tif":
        path.mkdir()
    elif name == "fifo.png":
        import os

        os.mkfifo(path)
    elif name == "pickled.npy":
        np.save(path, np.array([{}], object))
    elif name == "complex.npy":
        np.save(path, np.zeros((3, 3), complex))
    elif name == "line.npy":
        np.save(path, np.zeros(3))
    elif name == "cmyk.jpg":
        Image.fromarray(np.zeros((8, 8, 4), np.uint8), "CMYK").save(path)
    elif name == "cell.czi":
        path.write_bytes(b"ZISRAWFILE" + bytes(100))
    elif name == "cell.lif":
        path.write_bytes(b"p\x00\x00\x00" + bytes(100))
    elif name == "frames.gif":
        frames = [Image.fromarray(GREY + k) for k in range(3)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif name == "series.tif":
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(GREY)
            tiff.write(np.zeros((12, 9), np.uint8))
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.png", "the file is empty"),
        ("text.tif", "not an image; readable are .tif .tiff .png .jpg .npy"),
        ("header.tif", "a TIFF without images"),
        ("dangling.png", "no such file"),
        ("folder.tif", "not a regular file"),
        ("fifo.png", "not a regular file"),
        ("pickled.npy", "damaged NPY"),
        ("complex.npy", "complex128 values"),
        ("line.npy", "no image"),
        ("cmyk.jpg", "CMYK; save it as RGB or grey"),
        ("cell.czi", "convert it to TIFF with Fiji or bioio"),
        ("cell.lif", "convert it to TIFF with Fiji or bioio"),
        ("frames.gif", "3 frames; save the one you mean"),
        ("series.tif", "2 images of different shapes"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line_that_names_it(tmp_path, name, reason):
    path = broken(tmp_path, name)
    with pytest.raises(read.UnreadableFile) as error:
        read.read_image(path)
    assert str(error.value).startswith(f"{path}: ") and reason in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.npy", "z.tif"])
def test_a_file_cut_in_half_is_refused(tmp_path, disk, name):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = disk.write(tmp_path / name, noise)
    if name == "z.tif":
        tifffile.imwrite(path, noise, compression="zlib", tile=(16, 16))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(read.UnreadableFile, match=f"{name}: damaged"):
        read.read_image(path)


def test_a_picture_with_a_wrong_checksum_is_refused(tmp_path, disk):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    path = disk.write(tmp_path / "a.png", noise)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(read.UnreadableFile, match="a.png: damaged image"):
        read.read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_the_size_is_checked_before_pixels_are_read(tmp_path, disk, name):
    # Message 16: size, memory, what to type.
    path = disk.write(tmp_path / name, np.zeros((40, 50), np.uint8))
    with pytest.raises(read.UnreadableFile) as error:
        read.read_image(path, max_pixels=1999)
    text = str(error.value)
    assert "2,000 pixels" in text and "limit is 1,999" in text
    assert "GB of memory" in text and "--max-pixels N" in text
    assert read.read_image(path, max_pixels=2000)[0].shape == (40, 50)


# --- pictures -----------------------------------------------------------------------


def test_equal_colours_are_one_channel_and_alpha_goes(tmp_path, disk):
    alpha = np.full((6, 8), 255, np.uint8)
    rgba = disk.write(tmp_path / "a.png", np.stack([GREY] * 3 + [alpha], -1))
    np.testing.assert_array_equal(picture(rgba), GREY[..., None])
    varying = np.stack([GREY, GREY // 2, GREY // 3, GREY], -1)
    np.testing.assert_array_equal(
        picture(disk.write(tmp_path / "b.png", varying)), varying[..., :3]
    )
    Image.fromarray(np.stack([GREY, alpha], -1), "LA").save(tmp_path / "c.png")
    np.testing.assert_array_equal(picture(tmp_path / "c.png"), GREY[..., None])


def test_channels_of_a_microscope_stay_even_if_equal_or_constant(tmp_path):
    for count in (2, 3, 4):
        stack = np.stack([GREY] * (count - 1) + [np.zeros_like(GREY)])
        path = tmp_path / f"{count}.tif"
        tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "CYX"})
        assert picture(path).shape == (6, 8, count)
    tifffile.imwrite(path, np.stack([GREY] * 3), imagej=True, metadata={"axes": "CYX"})
    assert picture(path).shape == (6, 8, 3)


def test_planar_colours_become_the_last_axis(tmp_path):
    planes = np.stack([GREY, GREY // 2, GREY // 3])
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate"
    )
    np.testing.assert_array_equal(
        picture(tmp_path / "a.tif"), np.moveaxis(planes, 0, -1)
    )


def test_one_channel_can_be_chosen(tmp_path, disk):
    path = disk.write(tmp_path / "a.png", np.stack([GREY, GREY // 2, GREY // 3], -1))
    np.testing.assert_array_equal(picture(path, channel=1)[..., 0], GREY // 2)
    with pytest.raises(read.UnreadableFile, match="channel 3 of 3; they count from 0"):
        picture(path, channel=3)


def test_five_channels_need_a_choice(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([GREY] * 5), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(read.UnreadableFile, match="5 channels.*--channel N"):
        picture(path)
    assert picture(path, channel=4).shape == (6, 8, 1)


def test_a_stack_needs_an_instruction(tmp_path):
    # Message 10: shape, axes, the options.
    stack = np.stack([DEEP, DEEP + 100, DEEP + 200])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(read.UnreadableFile) as error:
        picture(path)
    text = str(error.value)
    assert "(3, 6, 8)" in text and "axes ZYX" in text
    assert "--z max" in text and "index" in text
    assert "--axes ..." in text
    np.testing.assert_array_equal(picture(path, z="max")[..., 0], DEEP + 200)
    np.testing.assert_array_equal(picture(path, z="1")[..., 0], DEEP + 100)
    np.testing.assert_allclose(picture(path, z="mean")[..., 0], DEEP + 100.0)
    for wrong in ("3", "-1", "first"):
        with pytest.raises(read.UnreadableFile, match="none of max, mean, 0..2"):
            picture(path, z=wrong)


def test_two_stacks_are_never_reduced_at_once(tmp_path):
    path = tmp_path / "a.tif"
    series = np.zeros((2, 3, 6, 8), np.uint16)
    tifffile.imwrite(path, series, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(read.UnreadableFile, match="axes TZYX; only one stack"):
        picture(path, z="max")


def test_axes_can_be_given_where_files_do_not_tell(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.stack([DEEP, DEEP // 2]))
    with pytest.raises(read.UnreadableFile, match="axes QYX"):
        picture(path)
    assert picture(path, given_axes="CYX").shape == (6, 8, 2)
    assert picture(path, given_axes="zyx", z="max").shape == (6, 8, 1)
    with pytest.raises(read.UnreadableFile, match="--axes YX does not fit"):
        picture(path, given_axes="YX")


def test_pixels_that_are_not_finite_are_counted(tmp_path):
    # Message 13.
    values = np.ones((10, 10), np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(read.UnreadableFile, match=r"a.tif: 2 pixels \(2.00%\) are NaN"):
        picture(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_float32(tmp_path, dtype):
    np.save(tmp_path / "a.npy", DEEP.astype(dtype) / 2)
    got = picture(tmp_path / "a.npy")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[..., 0], (DEEP.astype(dtype) / 2))


def test_floats_beyond_float32_stay_finite_and_in_proportion(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0.0, 5e299], [1e300, 2.5e299]]))
    np.testing.assert_allclose(
        picture(tmp_path / "a.npy")[..., 0], [[0, 0.5], [1, 0.25]]
    )


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int32, bool])
def test_other_numbers_keep_their_type(tmp_path, dtype):
    values = np.array([[0, 1], [-3 if np.dtype(dtype).kind == "i" else 1, 0]], dtype)
    np.save(tmp_path / "a.npy", values)
    got = picture(tmp_path / "a.npy")
    assert got.dtype == dtype
    np.testing.assert_array_equal(got[..., 0], values)


# --- masks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full", "dtype"), [(1, np.uint8), (255, np.uint8), (65535, np.uint16), (1, bool)]
)
def test_binary_masks_of_every_scale_give_components(tmp_path, disk, full, dtype):
    path = disk.write(tmp_path / "a.png", ((LABELS > 0) * full).astype(dtype))
    got = masks.read_mask(path, "binary")
    assert got.dtype == np.int32 and got.max() == 3
    np.testing.assert_array_equal(got > 0, LABELS > 0)


def test_soft_edges_are_cut_at_half_of_the_maximum(tmp_path, disk):
    mask = np.array([[0, 100, 127, 128, 255, 255, 255, 255, 200]], np.uint8)
    got = masks.read_mask(disk.write(tmp_path / "a.png", mask), "binary")
    # 127.5 is half.
    np.testing.assert_array_equal(got, [[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    assert masks.looks_soft(np.array([[0, 100, 255, 255]])) is np.True_
    assert not masks.looks_soft(np.array([[0, 100, 200, 255]]))
    assert not masks.looks_soft(np.array([[0, 100, 250, 250, 250]]))


def test_diagonal_pixels_are_one_component():
    assert masks.to_instances(np.eye(3, dtype=np.uint8), "binary").max() == 1


def test_an_empty_mask_has_no_instances_of_either_kind():
    for kind in ("binary", "instances"):
        got = masks.to_instances(np.zeros((3, 4), np.uint8), kind)
        assert got.shape == (3, 4) and got.max() == 0


def test_ids_with_gaps_and_beyond_16_bits_are_renumbered_in_order():
    plane = np.array([[0, 70_000, 70_000], [300, 0, 9]])
    np.testing.assert_array_equal(
        masks.to_instances(plane, "instances"), [[0, 3, 3], [2, 0, 1]]
    )


def test_a_label_image_without_background_loses_no_cell():
    plane = np.array([[4, 4, 7]])
    np.testing.assert_array_equal(masks.to_instances(plane, "instances"), [[1, 1, 2]])


def test_torn_labels_stay_one_cell_and_are_counted():
    plane = np.array([[5, 0, 5, 0, 6]])
    instances = masks.to_instances(plane, "instances")
    np.testing.assert_array_equal(instances, [[1, 0, 1, 0, 2]])
    assert masks.count_pieces(instances) == 3


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_labels_come_back_exactly_at_the_limits_of_types(tmp_path, disk, name):
    for top in (255, 256, 65_535):
        plane = np.zeros((4, 4), np.uint16)
        plane[0, 0], plane[2, 2] = 1, top
        got = masks.read_mask_plane(disk.write(tmp_path / name, plane))
        np.testing.assert_array_equal(got, plane)


def test_grey_stored_as_colours_is_a_mask(tmp_path, disk):
    plane = LABELS.astype(np.uint8)
    path = disk.write(tmp_path / "a.png", np.stack([plane] * 3, -1))
    np.testing.assert_array_equal(masks.read_mask_plane(path), plane)
    assert read.mask_conversions(path) == [
        "masks with equal colours, read as one channel,"
    ]
    alpha = np.full_like(plane, 255)
    path = disk.write(tmp_path / "b.png", np.stack([plane] * 3 + [alpha], -1))
    np.testing.assert_array_equal(masks.read_mask_plane(path), plane)


def test_a_mask_in_colours_is_refused_with_their_number(tmp_path, disk):
    # Message 5.
    plane = LABELS.astype(np.uint8)
    path = disk.write(tmp_path / "a.png", np.stack([plane, plane * 2, plane], -1))
    with pytest.raises(read.UnreadableFile, match="4 colours; a mask has one channel"):
        masks.read_mask_plane(path)


def test_every_colour_but_black_is_a_cell_where_colours_are_asked_for(tmp_path, disk):
    colours = np.zeros((6, 8, 3), np.uint8)
    colours[1:3, 1:3], colours[1:3, 3:5] = (9, 0, 0), (9, 0, 1)
    colours[5, 7] = (9, 0, 0)
    expected = np.zeros((6, 8), np.int32)
    expected[1:3, 1:3], expected[1:3, 3:5], expected[5, 7] = 1, 2, 1
    alpha = np.full((6, 8, 1), 200, np.uint8)
    for name, array in (
        ("a.png", colours),
        ("b.png", np.concatenate([colours, alpha], axis=-1)),
    ):
        path = disk.write(tmp_path / name, array)
        got = masks.read_mask(path, "colours")
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, expected)
    # A mask without black has no background, a grey one has its values.
    path = disk.write(tmp_path / "c.png", colours + 3)
    assert masks.read_mask(path, "colours").min() == 1
    path = disk.write(tmp_path / "d.png", LABELS.astype(np.uint8))
    np.testing.assert_array_equal(
        masks.read_mask(path, "colours"), masks.read_mask(path, "instances")
    )
    np.save(tmp_path / "e.npy", np.zeros((4, 5), np.float32))
    with pytest.raises(read.UnreadableFile, match="e.npy: float32, axes YX; no colour"):
        masks.read_mask(tmp_path / "e.npy", "colours")


def test_pieces_of_one_value_are_cells_of_their_own_also_over_corners():
    plane = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [2, 0, 1, 0], [0, 2, 0, 1]])
    expected = [[1, 1, 0, 2], [0, 0, 0, 0], [3, 0, 4, 0], [0, 3, 0, 4]]
    np.testing.assert_array_equal(masks.equal_values(plane), expected)


def test_whole_floats_are_labels_and_fractions_are_not(tmp_path):
    # Message 8.
    np.save(tmp_path / "a.npy", LABELS.astype(np.float32))
    np.testing.assert_array_equal(
        masks.read_mask(tmp_path / "a.npy", "instances"), LABELS
    )
    np.save(tmp_path / "b.npy", LABELS * 1.5)
    with pytest.raises(read.UnreadableFile, match="fractions such as 0, 1.5, 3, 4.5"):
        masks.read_mask_plane(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.array([[0.2, 0.4], [0.8, 0.0]]))
    np.testing.assert_array_equal(
        masks.read_mask(tmp_path / "c.npy", "binary"), [[0, 1], [1, 0]]
    )
    with pytest.raises(read.UnreadableFile, match="fractions such as 0.2, 0.4, 0.8"):
        masks.read_mask(tmp_path / "c.npy", "instances")


@pytest.mark.parametrize(
    ("plane", "reason"),
    [
        (np.array([[0, -1]], np.int16), r"negative labels \(lowest -1\)"),
        (np.array([[0, np.nan]]), "NaN or infinite values in a mask"),
        (np.zeros((5, 3, 2), np.uint8), r"shape \(5, 3, 2\).*a mask is \[rows"),
    ],
)
def test_impossible_masks_are_refused(tmp_path, plane, reason):
    np.save(tmp_path / "a.npy", plane)
    with pytest.raises(read.UnreadableFile, match=reason):
        masks.read_mask_plane(tmp_path / "a.npy")
