import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fluojax.config import DataOptions
from fluojax.data import layouts, pairing
from fluojax.data import splits as splitting
from fluojax.data.folder import read_folder
from fluojax.data.pairing import find_pairs
from fluojax.data.record import Record
from fluojax.errors import UserError


def by_stem(dataset):
    records = [r for part in dataset.splits.values() for r in part]
    return {record.id.split("/")[-1]: record for record in records}


def refusal(root, **options) -> str:
    with pytest.raises(UserError) as error:
        read_folder(root, DataOptions(**options))
    text = str(error.value)
    assert "\n" not in text and error.value.exit_code == 2
    return text


def said(dataset, word: str) -> str:
    """The one note that contains the word."""
    (note,) = [note for note in dataset.notes if word in note]
    return note


# --- layouts ------------------------------------------------------------------------


def test_images_and_masks_in_two_folders(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    disk.clutter(tmp_path, windows[0])
    dataset, problems = read_folder(tmp_path)
    assert problems == []
    assert "layout: images + masks, 5 pairs" in dataset.notes
    records = by_stem(dataset)
    assert sorted(records) == [f"img{k}" for k in range(5)]
    for k, window in enumerate(windows):
        record = records[f"img{k}"]
        assert record.id == record.group == f"images/img{k}" and record.has_labels
        assert record.kind == "instances" and record.instances.dtype == np.int32
        np.testing.assert_array_equal(record.image[..., 0], disk.grey(window))
        np.testing.assert_array_equal(record.instances, window.instances)


def test_split_folders_in_any_case_decide_the_splits(tmp_path, windows, disk):
    disk.split_folders(tmp_path, windows)
    dataset, _ = read_folder(tmp_path)
    ids = {name: [r.id for r in part] for name, part in dataset.splits.items()}
    assert ids == {
        "train": [f"train/Images/img{k}" for k in range(3)],
        "val": ["valid/Images/img3"],
        "test": ["test/Images/img4"],
    }


@pytest.mark.parametrize("images", layouts.IMAGE_FOLDERS)
@pytest.mark.parametrize("masks", layouts.MASK_FOLDERS)
def test_every_name_of_a_folder_is_known(tmp_path, windows, disk, images, masks):
    disk.write(tmp_path / images / "a.png", disk.grey(windows[0]))
    disk.write(tmp_path / masks / "a.png", disk.labels(windows[0]))
    assert len(find_pairs(tmp_path).pairs) == 1


def test_cellpose_folders_ignore_other_outputs(tmp_path, windows, disk):
    disk.cellpose(tmp_path, windows)
    found = find_pairs(tmp_path)
    assert found.layout.startswith("Cellpose") and len(found.pairs) == 5
    assert found.images_without_mask == found.masks_without_image == ()
    dataset, _ = read_folder(tmp_path)
    assert [r.id for r in dataset.splits["test"]] == ["test/img0"]


@pytest.mark.parametrize("image", ["", "_img", "_image"])
@pytest.mark.parametrize("mask", layouts.MASK_ENDINGS)
def test_known_endings_pair(tmp_path, windows, disk, image, mask):
    disk.suffix_pairs(tmp_path, windows[:2], image, mask)
    pairs = find_pairs(tmp_path).pairs
    assert [(p.image.name, p.masks[0].name) for p in pairs] == [
        (f"img{k}{image}.png", f"img{k}{mask}.png") for k in range(2)
    ]


def test_an_ending_may_be_added_to_the_whole_name(tmp_path, windows, disk):
    disk.write(tmp_path / "a_img.png", disk.grey(windows[0]))
    disk.write(tmp_path / "a_img_masks.png", disk.labels(windows[0]))
    assert len(find_pairs(tmp_path).pairs) == 1


def test_an_image_may_be_called_cell_masks_1(tmp_path, windows, disk):
    disk.write(tmp_path / "cell_masks_1.png", disk.grey(windows[0]))
    disk.write(tmp_path / "cell_masks_1_masks.png", disk.labels(windows[0]))
    (pair,) = find_pairs(tmp_path).pairs
    assert pair.image.name == "cell_masks_1.png"


def test_one_mask_per_cell(tmp_path, windows, disk):
    disk.per_cell(tmp_path, windows)
    dataset, _ = read_folder(tmp_path)
    assert "layout: DSB2018 (one mask per cell), 5 pairs" in dataset.notes
    assert "5 images" in said(dataset, "alpha dropped")
    for k, window in enumerate(windows):
        record = by_stem(dataset)[f"img{k}"]
        assert record.id == f"img{k}" and record.kind == "instances"
        assert record.image.shape == (*window.instances.shape, 1)
        np.testing.assert_array_equal(record.instances, window.instances)


def test_an_image_with_a_single_cell_mask_is_one_cell_in_pieces(tmp_path, disk):
    plane = np.zeros((8, 8), np.uint8)
    plane[0, 0] = plane[7, 7] = 255
    for name in ("a", "b"):
        disk.write(tmp_path / f"{name}/images/{name}.png", np.eye(8, dtype=np.uint8))
        disk.write(tmp_path / f"{name}/masks/cell.png", plane)
    records = by_stem(read_folder(tmp_path)[0])
    assert {r.instances.max() for r in records.values()} == {1}


def test_a_cell_mask_that_is_empty_is_told(tmp_path, windows, disk):
    disk.per_cell(tmp_path, windows[:2])
    disk.write(tmp_path / "img0/masks/999.png", np.zeros((48, 64), np.uint8))
    dataset, _ = read_folder(tmp_path)
    assert "in 1 images: img0" in said(dataset, "empty or hidden by others")
    assert by_stem(dataset)["img0"].instances.max() == 2


def test_one_image_and_masks_of_other_names_are_no_cells_of_it(tmp_path, windows, disk):
    for name in ("x.png", "y.png"):
        disk.write(tmp_path / "masks" / name, disk.binary(windows[0]))
    disk.write(tmp_path / "images/a.png", disk.grey(windows[0]))
    assert "1 images, 2 masks, 0 pairs" in refusal(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "train")
    shutil.rmtree(tmp_path / "images")
    shutil.rmtree(tmp_path / "masks")
    assert "1 images, 2 masks, 0 pairs" in refusal(tmp_path)


def test_endings_of_the_user_pair_in_one_folder_and_in_two(tmp_path, windows, disk):
    disk.suffix_pairs(tmp_path / "one", windows[:2], "_ch1", "_cells")
    disk.write(tmp_path / "two/images/img0_ch1.png", disk.grey(windows[0]))
    disk.write(tmp_path / "two/images/img0_ch2.png", disk.grey(windows[1]))
    disk.write(tmp_path / "two/masks/img0_cells.tif", disk.labels(windows[0]))
    options = DataOptions(image_suffix="_ch1", mask_suffix="_cells")
    assert len(find_pairs(tmp_path / "one", options).pairs) == 2
    (pair,) = find_pairs(tmp_path / "two", options).pairs
    assert pair.image.name == "img0_ch1.png"
    with pytest.raises(UserError, match="0 pairs"):
        find_pairs(tmp_path / "one")


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path, windows, disk):
    disk.images_masks(tmp_path / "far", windows[:2])
    root = tmp_path / "near"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "far/images")
    (root / "masks").symlink_to(tmp_path / "far/masks")
    (root / "masks/again").symlink_to(tmp_path / "far")
    assert [p.id for p in find_pairs(root).pairs] == ["images/img0", "images/img1"]


def test_one_folder_under_two_names_is_refused(tmp_path, windows, disk):
    disk.images_masks(tmp_path / "train", windows[:2])
    (tmp_path / "test").symlink_to(tmp_path / "train")
    text = refusal(tmp_path)
    assert "test and train are one" in text or "train and test are one" in text
    assert "remove the link" in text


def test_links_that_cross_end_at_once(tmp_path, windows, disk):
    disk.images_masks(tmp_path / "train", windows[:2])
    disk.images_masks(tmp_path / "val", windows[2:4])
    for number in range(3):
        (tmp_path / f"train/v{number}").symlink_to(tmp_path / "val")
        (tmp_path / f"val/t{number}").symlink_to(tmp_path / "train")
    assert "are one, by a link" in refusal(tmp_path)


def test_one_image_in_two_splits_by_a_link_is_refused(tmp_path, windows, disk):
    disk.images_masks(tmp_path / "train", windows[:2])
    disk.images_masks(tmp_path / "test", windows[2:4])
    linked = tmp_path / "test/images/again.png"
    linked.symlink_to(next((tmp_path / "train/images").iterdir()))
    disk.write(tmp_path / "test/masks/again.png", disk.labels(windows[0]))
    text = refusal(tmp_path)
    assert "test/images/again.png" in text and "train/images/" in text


def test_names_with_odd_characters_pair(tmp_path, windows, disk):
    names = ["a b", "%s", 'quo"te', "zelle_ä", "🔬", "line\nbreak"]
    for name in names:
        disk.write(tmp_path / f"images/{name}.png", disk.grey(windows[0]))
        disk.write(tmp_path / f"masks/{name}.png", disk.labels(windows[0]))
    assert len(find_pairs(tmp_path).pairs) == len(names)


def test_order_depends_on_names_alone(tmp_path, windows, disk, monkeypatch):
    for k in (3, 1, 4, 0, 2):
        disk.write(tmp_path / f"images/img{k}.png", disk.grey(windows[k]))
        disk.write(tmp_path / f"masks/img{k}.png", disk.labels(windows[k]))
    first = read_folder(tmp_path)[0]
    walk = os.walk

    def backwards(*arguments, **options):
        for place, folders, files in walk(*arguments, **options):
            folders.sort(reverse=True)
            yield place, folders, sorted(files, reverse=True)

    monkeypatch.setattr(pairing.os, "walk", backwards)
    shutil.copytree(tmp_path, tmp_path.parent / "elsewhere", dirs_exist_ok=True)
    second = read_folder(tmp_path.parent / "elsewhere")[0]
    for split in first.splits:
        assert [r.id for r in first.splits[split]] == [
            r.id for r in second.splits[split]
        ]


# --- messages about the folder (users.md 7 in the order of its table) ------------------


def test_message_1_a_folder_that_is_missing(tmp_path):
    (tmp_path / "my_cells").mkdir()
    text = refusal(tmp_path / "my_cell")
    assert str(tmp_path / "my_cell") in text and f"{tmp_path.name}/" in text
    assert "did you mean my_cells?" in text
    deep = refusal(tmp_path / "my_cell/train/images")
    assert "did you mean my_cells?" in deep and f"{tmp_path.name}/" in deep
    (tmp_path / "a.tif").write_bytes(b"x")
    assert "--data needs the folder above it" in refusal(tmp_path / "a.tif")


def test_message_2_a_folder_without_images(tmp_path):
    for k in range(12):
        (tmp_path / f"{k}.czi").write_bytes(b"ZISRAW")
    for k in range(3):
        (tmp_path / f"{k}.txt").write_text("")
    text = refusal(tmp_path)
    assert f"no images in {tmp_path}: found 12 × .czi, 3 × .txt; " in text
    assert "readable are .tif .tiff .png .jpg .npy" in text
    assert "convert microscope formats with Fiji or bioio" in text
    (tmp_path / "empty").mkdir()
    text = refusal(tmp_path / "empty")
    assert "found nothing" in text and "Fiji" not in text


def test_message_3_nothing_pairs(tmp_path, windows, disk):
    for k in range(7):
        disk.write(tmp_path / f"images/img{k}.png", disk.grey(windows[0]))
        disk.write(tmp_path / f"masks/other{k}.png", disk.labels(windows[0]))
    text = refusal(tmp_path)
    assert "7 images, 7 masks, 0 pairs" in text
    assert "images/img4.png and 2 more" in text and "masks/other0.png" in text
    assert "img5" not in text and str(tmp_path / "images") not in text
    assert "pairs share a stem (images/a.tif, masks/a.png) or end in _masks" in text
    assert "--mask-suffix _x" in text


def test_message_3_leftovers_over_a_tenth_stop_training_not_the_check(
    tmp_path, windows, disk
):
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "images/lonely.png", disk.grey(windows[0]))
    disk.write(tmp_path / "masks/orphan.png", disk.labels(windows[0]))
    text = refusal(tmp_path)
    assert "6 images, 6 masks, 5 pairs" in text
    assert "1 images without mask: images/lonely.png" in text
    assert "1 masks without image: masks/orphan.png" in text
    assert "pairs share a stem" in text
    dataset, problems = read_folder(tmp_path, strict=False)
    assert sum(map(len, dataset.splits.values())) == 5 and len(problems) == 1
    kept, _ = read_folder(tmp_path, DataOptions(skip_bad=True))
    assert "images/lonely.png" in said(kept, "left out")


def test_few_leftovers_are_a_note(tmp_path, windows, disk):
    for k in range(9):
        disk.write(tmp_path / f"images/img{k}.png", disk.grey(windows[k % 5]))
        disk.write(tmp_path / f"masks/img{k}.png", disk.labels(windows[k % 5]))
    disk.write(tmp_path / "images/lonely.png", disk.grey(windows[0]))
    dataset, problems = read_folder(tmp_path)
    assert problems == [] and "lonely" in said(dataset, "1 images without mask")


def test_unlabelled_images_can_be_used(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows[:3])
    for k in range(4):
        disk.write(tmp_path / f"images/plain{k}.png", disk.grey(windows[k]))
    dataset, problems = read_folder(tmp_path, DataOptions(unlabelled="use"))
    assert problems == []
    plain = [r for r in dataset.splits["train"] if not r.has_labels]
    assert [r.id for r in plain] == [f"images/plain{k}" for k in range(4)]
    assert not any(r.instances.any() for r in plain)
    assert all(r.has_labels for r in dataset.splits["val"])


@pytest.mark.parametrize("layout", ["images/a", "a"])
def test_the_same_stem_twice_is_refused(tmp_path, windows, disk, layout):
    mask = "masks/a" if "/" in layout else "a_masks"
    for suffix in (".png", ".tif"):
        disk.write(tmp_path / f"{layout}{suffix}", disk.grey(windows[0]))
    disk.write(tmp_path / f"{mask}.png", disk.labels(windows[0]))
    text = refusal(tmp_path)
    assert f"the same image twice: {layout}.png, {layout}.tif" in text


@pytest.mark.parametrize(
    "masks", [("a_masks.png", "a_masks.tif"), ("a_labels.png", "a_mask.png")]
)
def test_two_masks_of_one_image_are_refused(tmp_path, windows, disk, masks):
    disk.write(tmp_path / "a.png", disk.grey(windows[0]))
    for name in masks:
        disk.write(tmp_path / name, disk.labels(windows[0]))
    text = refusal(tmp_path)
    assert "2 masks of one image" in text and "--mask-suffix _x" in text
    assert all(name in text for name in masks)


def test_message_4_sizes_differ(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "masks/img0.tif", disk.labels(windows[0])[:-1])
    disk.write(tmp_path / "masks/img1.tif", disk.labels(windows[1]).T)
    text = refusal(tmp_path)
    assert "images/img0.png: 48x64, its mask img0.tif 47x64; both need one size" in text
    assert "images/img1.png: 48x64, its mask img1.tif 64x48; the mask is trans" in text
    assert "--skip-bad" in text and text.count(str(tmp_path)) == 1


def test_message_5_colours_in_masks(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows[:3], suffix=".png")
    plane = disk.labels(windows[0], np.uint8)
    disk.write(tmp_path / "masks/img0.png", np.stack([plane] * 3, -1))
    dataset, _ = read_folder(tmp_path)
    assert "1 images: images/img0" in said(dataset, "masks with equal colours")
    disk.write(tmp_path / "masks/img0.png", np.stack([plane, plane, 2 * plane], -1))
    text = refusal(tmp_path)
    assert "masks/img0.png: 3 colours; a mask has one channel" in text


@pytest.mark.parametrize("cellpose", [False, True])
def test_message_6_masks_as_jpeg(tmp_path, windows, disk, cellpose):
    image, mask = (
        ("a.png", "a_mask.jpg") if cellpose else ("images/a.png", "masks/a.jpg")
    )
    disk.write(tmp_path / image, disk.grey(windows[4]))
    disk.write(tmp_path / mask, disk.binary(windows[4]))
    text = refusal(tmp_path)
    assert f"{mask}: JPEG blurs labels: " in text and "different values" in text
    assert "save masks as PNG or TIFF" in text


def test_message_7_binary_masks(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows, mask=disk.binary, suffix=".png")
    dataset, problems = read_folder(tmp_path)
    assert problems == []
    note = said(dataset, "read as binary")
    counts = [r.instances.max() for r in by_stem(dataset).values()]
    assert (
        f"cells found by connected components, {np.mean(counts):.1f} per image" in note
    )
    assert "masks hold 0 and 255" in note and "touching cells are merged" in note
    assert "for separate cells save labels 1..N" in note
    assert {r.kind for r in by_stem(dataset).values()} == {"binary"}


def test_binary_masks_of_several_scales_and_soft_edges_are_one_kind(
    tmp_path, windows, disk
):
    disk.images_masks(tmp_path, windows)
    masks = [
        disk.binary(windows[0]),
        disk.binary(windows[1], 65535, np.uint16),
        disk.soft(windows[2]),
        np.zeros((48, 64), np.uint8),
        disk.binary(windows[4], 1),
    ]
    for k, mask in enumerate(masks):
        disk.write(tmp_path / f"masks/img{k}.tif", mask)
    dataset, _ = read_folder(tmp_path)
    assert "masks hold 0 and 1, 255, 65535" in said(dataset, "read as binary")
    for k in (0, 1, 2, 4):
        got = by_stem(dataset)[f"img{k}"].instances > 0
        np.testing.assert_array_equal(got, windows[k].instances > 0)
    assert "images/img3" in said(dataset, "without cells")


def test_a_faint_soft_mask_does_not_make_the_others_instances(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows, mask=disk.binary)
    smear = np.zeros((48, 64), np.uint8)
    smear[10, 10:20] = range(5, 55, 5)
    disk.write(tmp_path / "masks/img0.tif", smear)
    dataset, _ = read_folder(tmp_path)
    assert "images/img0" in said(dataset, "below half of the full value")
    assert {r.kind for r in by_stem(dataset).values()} == {"binary"}
    assert (by_stem(dataset)["img0"].instances > 0).sum() == 6  # 25, 30, ... 50


def test_the_kind_is_decided_for_the_folder_not_the_file(tmp_path, windows, disk):
    # A file with one cell holds 0 and 1, like a binary mask.
    single = np.zeros((48, 64), np.uint16)
    single[:3, :3] = single[10:, 10:] = 1
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "masks/img0.tif", single)
    dataset, _ = read_folder(tmp_path)
    assert "up to 9 values" in said(dataset, "read as instances")
    assert by_stem(dataset)["img0"].instances.max() == 1
    assert "images/img0" in said(dataset, "in several pieces, each kept as one cell")
    forced, _ = read_folder(tmp_path, DataOptions(mask_kind="binary"))
    assert by_stem(forced)["img0"].instances.max() == 2


def test_message_8_gaps_fractions_and_negative_labels(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows, suffix=".npy")
    gaps = disk.labels(windows[0], np.int32) * 1000
    disk.write(tmp_path / "masks/img0.npy", gaps)
    dataset, _ = read_folder(tmp_path)
    assert "relabelled 1..N" in said(dataset, "labels with gaps")
    np.testing.assert_array_equal(
        by_stem(dataset)["img0"].instances, windows[0].instances
    )
    disk.write(tmp_path / "masks/img0.npy", gaps * 0.0015)
    disk.write(tmp_path / "masks/img1.npy", -disk.labels(windows[1], np.int32))
    disk.write(tmp_path / "masks/img2.npy", disk.binary(windows[2], 1) * 0.5)
    text = refusal(tmp_path)
    assert "masks/img0.npy: fractions such as 0, 1.5, 3" in text
    assert "masks/img1.npy: negative labels (lowest -4)" in text
    assert "masks/img2.npy: fractions such as 0.5" in text
    assert "--mask-kind binary" in text
    soft, problems = read_folder(
        tmp_path, DataOptions(mask_kind="binary", skip_bad=True)
    )
    assert len(problems) == 2 and sorted(by_stem(soft)) == ["img2", "img3", "img4"]


def test_ids_beyond_a_byte_survive(tmp_path, disk):
    plane = np.zeros((48, 64), np.uint16)
    plane[::2, ::2] = np.arange(1, 24 * 32 + 1).reshape(24, 32)
    disk.write(tmp_path / "images/a.png", np.eye(48, 64, dtype=np.uint8))
    disk.write(tmp_path / "masks/a.tif", plane)
    dataset, _ = read_folder(tmp_path)
    assert sum(r.instances.max() for r in by_stem(dataset).values()) == 24 * 32


def test_eight_bit_labels_that_reach_255_are_told(tmp_path, disk):
    plane = np.zeros((48, 64), np.uint8)
    plane[:32:2, :32:2] = np.arange(256).reshape(16, 16)
    for name in ("a", "b"):
        disk.write(tmp_path / f"images/{name}.png", np.eye(48, 64, dtype=np.uint8))
        disk.write(tmp_path / f"masks/{name}.png", plane)
    assert "may have wrapped" in said(read_folder(tmp_path)[0], "255 in 8 bits")


def test_an_image_given_as_mask_is_refused(tmp_path, windows, disk):
    noise = np.random.default_rng(0).integers(0, 200, (48, 64)).astype(np.uint8)
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "masks/img0.tif", noise)
    text = refusal(tmp_path)
    assert "img0.tif: 199 values in" in text and "a picture rather than a mask?" in text
    kept, _ = read_folder(tmp_path, DataOptions(skip_bad=True))
    assert sorted(by_stem(kept)) == ["img1", "img2", "img3", "img4"]


def test_message_9_empty_and_full_masks(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "masks/img0.tif", np.zeros((48, 64), np.uint16))
    disk.write(tmp_path / "masks/img1.tif", np.ones((48, 64), np.uint16))
    dataset, _ = read_folder(tmp_path)
    assert "1 images without cells: images/img0" in dataset.notes
    assert "images/img1" in said(dataset, "inverted?")
    for k in range(5):
        disk.write(tmp_path / f"masks/img{k}.tif", np.zeros((48, 64), np.uint16))
    assert "every mask is empty: nothing to learn" in refusal(tmp_path)
    _, problems = read_folder(tmp_path, strict=False)
    assert problems == ["every mask is empty: nothing to learn"]


def test_a_train_split_without_any_cell_is_refused(tmp_path, windows, disk):
    disk.split_folders(tmp_path, windows)
    for k in range(3):
        np.save(tmp_path / f"train/Labels/img{k}.npy", np.zeros((48, 64), np.uint8))
    assert "the masks of train are empty: nothing to learn" in refusal(tmp_path)


def test_message_10_stacks(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows[:2])
    for k in range(2):
        np.save(tmp_path / f"images/img{k}.npy", np.stack([disk.grey(windows[k])] * 5))
        (tmp_path / f"images/img{k}.png").unlink()
    text = refusal(tmp_path)
    assert "images/img0.npy: shape (5, 48, 64), axes QYX" in text
    assert "--z max" in text and "--axes" in text
    dataset, _ = read_folder(tmp_path, DataOptions(z="max"))
    np.testing.assert_array_equal(
        by_stem(dataset)["img0"].image[..., 0], disk.grey(windows[0])
    )


def test_message_11_channel_numbers_differ(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "images/img0.png", windows[0].image)
    text = refusal(tmp_path, skip_bad=True)
    assert "channel numbers differ: 4 images with 1, 1 images with 3" in text
    assert "--channel N" in text
    _, problems = read_folder(tmp_path, strict=False)
    assert len(problems) == 1
    dataset, _ = read_folder(tmp_path, DataOptions(channel=0))
    assert {r.image.shape[-1] for r in by_stem(dataset).values()} == {1}


def test_message_12_mixed_types_and_constant_images(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    disk.write(tmp_path / "images/img0.png", disk.grey(windows[0]).astype(np.uint16))
    disk.write(tmp_path / "images/img1.png", np.full((48, 64), 7, np.uint8))
    dataset, _ = read_folder(tmp_path)
    assert (
        said(dataset, "mixed types")
        == "mixed types: uint8 (4 files) and uint16 (1 files)"
    )
    assert "images/img1" in said(dataset, "constant images, skipped in training")


def test_message_13_pixels_that_are_not_finite(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    values = disk.grey(windows[0]).astype(np.float32)
    values[:3, 0] = np.nan
    (tmp_path / "images/img0.png").unlink()
    disk.write(tmp_path / "images/img0.tif", values)
    assert "images/img0.tif: 3 pixels (0.10%) are NaN or infinite" in refusal(tmp_path)


def test_message_14_damaged_files_are_all_listed_or_left_out(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows)
    (tmp_path / "images/img0.png").write_bytes(b"")
    (tmp_path / "masks/img3.tif").write_bytes(b"II*\x00")
    text = refusal(tmp_path)
    assert "2 problems: images/img0.png: the file is empty; masks/img3.tif: " in text
    assert "--skip-bad" in text
    dataset, problems = read_folder(tmp_path, strict=False)
    assert len(problems) == 2 and len(by_stem(dataset)) == 3
    kept, _ = read_folder(tmp_path, DataOptions(skip_bad=True))
    assert len(by_stem(kept)) == 3 and "img0.png" in said(kept, "left out")
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    text = refusal(tmp_path)
    assert "no readable pair" in text


def test_at_most_five_problems_are_told(tmp_path, windows, disk):
    for k in range(8):
        disk.write(tmp_path / f"masks/img{k}.png", disk.labels(windows[0]))
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / f"images/img{k}.png").write_bytes(b"GIF")
    disk.write(tmp_path / "images/img7.png", disk.grey(windows[0]))
    text = refusal(tmp_path)
    assert "7 problems" in text and "img4.png" in text
    assert "img5.png" not in text and "; and 2 more" in text


def test_message_16_images_over_the_limit(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows[:2])
    text = refusal(tmp_path, max_pixels=3000)
    assert "images/img0.png: 3,072 pixels" in text and "--max-pixels N" in text


# --- splits -----------------------------------------------------------------------


def named(names, groups=None):
    image, cells = np.zeros((10, 4, 1), np.uint8), np.ones((10, 4), np.int32)
    groups = groups or names
    return [Record(image, cells, n, g) for n, g in zip(names, groups, strict=True)]


def test_the_hash_is_the_documented_one():
    digest = hashlib.sha256(b"saltname").digest()
    expected = int.from_bytes(digest[:8], "big") / 2**64
    assert splitting.hash_share("name", "salt") == expected
    # Fixed for ever: a new release must not move images between splits.
    assert splitting.hash_share("images/img0") == pytest.approx(0.8756271092226156)


def test_validation_is_what_the_hash_says_and_about_fifteen_per_cent():
    names = [f"images/{k}" for k in range(400)]
    splits = splitting.split_records(named(names), [None] * 400, [])
    val = {r.id for r in splits["val"]}
    assert val == {n for n in names if splitting.hash_share(n) < 0.15}
    assert 0.1 < len(val) / 400 < 0.2 and splits["test"] == []


def test_the_split_of_an_image_does_not_depend_on_the_others():
    names = [f"images/{k}" for k in range(60)]
    full = {r.id for r in splitting.split_records(named(names), [None] * 60, [])["val"]}
    half = names[::-2]
    part = {r.id for r in splitting.split_records(named(half), [None] * 30, [])["val"]}
    assert part == full & set(half)


def test_a_group_is_never_divided(tmp_path, windows, disk):
    for field in range(6):
        for tile in range(3):
            name = f"field{field}_tile{tile}"
            disk.write(tmp_path / f"images/{name}.png", disk.grey(windows[tile]))
            disk.write(tmp_path / f"masks/{name}.png", disk.labels(windows[tile]))
    dataset, _ = read_folder(tmp_path, DataOptions(group=r"field\d+"))
    parts = [{r.group for r in dataset.splits[s]} for s in ("train", "val")]
    assert parts[0] and parts[1] and not parts[0] & parts[1]
    assert parts[0] | parts[1] == {f"field{k}" for k in range(6)}
    with pytest.raises(UserError, match="data_options.group"):
        read_folder(tmp_path, DataOptions(group="("))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_train_and_validation_are_never_empty(count):
    for start in range(30):
        names = [f"{start}/{k}" for k in range(count)]
        splits = splitting.split_records(named(names), [None] * count, [])
        assert splits["train"] and splits["val"]
        lowest = min(names, key=splitting.hash_share)
        assert lowest in {r.id for r in splits["val"]}


def test_given_splits_are_kept_and_only_a_missing_validation_is_drawn():
    names = [f"{k}" for k in range(20)]
    given = ["train"] * 10 + ["val"] * 5 + ["test"] * 5
    splits = splitting.split_records(named(names), given, [])
    assert [len(splits[s]) for s in ("train", "val", "test")] == [10, 5, 5]
    splits = splitting.split_records(named(names), ["train"] * 15 + ["test"] * 5, [])
    assert len(splits["test"]) == 5 and splits["val"] and splits["train"]


def test_one_image_is_cut_into_strips(tmp_path, windows, disk):
    disk.images_masks(tmp_path, windows[4:])
    dataset, _ = read_folder(tmp_path)
    assert "last fifth is validation" in said(dataset, "cut into strips")
    (top,), (bottom,) = dataset.splits["train"], dataset.splits["val"]
    assert (top.id, bottom.id) == ("images/img0#top", "images/img0#bottom")
    assert top.image.shape[0] == 38 and bottom.image.shape[0] == 10
    np.testing.assert_array_equal(
        np.concatenate([top.image, bottom.image])[..., 0], disk.grey(windows[4])
    )
    for part in (top, bottom):
        ids = np.unique(part.instances)
        np.testing.assert_array_equal(ids, np.arange(len(ids)))


def test_a_component_cut_in_two_pieces_counts_as_two():
    cells = np.zeros((10, 5), np.int32)
    cells[2:, 1] = cells[2:, 3] = cells[2, 1:4] = 1  # a bridge in the upper strip
    image = np.zeros((10, 5, 1), np.uint8)
    record = Record(image, cells, "a", "a", kind="binary")
    splits = splitting.split_records([record], [None], [])
    assert splits["train"][0].instances.max() == 1
    assert splits["val"][0].instances.max() == 2


def test_folders_without_training_images_say_so(tmp_path, windows, disk):
    disk.write(tmp_path / "test/images/a.png", disk.grey(windows[0]))
    disk.write(tmp_path / "test/masks/a.png", disk.labels(windows[0]))
    dataset, _ = read_folder(tmp_path)
    assert said(dataset, "no training images")
    assert len(dataset.splits["test"]) == 1 and dataset.splits["val"] == []


# --- fingerprint of the files -------------------------------------------------------


def test_the_fingerprint_changes_with_files_and_options_not_with_the_place(
    tmp_path, windows, disk
):
    root = disk.images_masks(tmp_path / "a", windows)

    def digest(place: Path, **options):
        options = DataOptions(**options)
        return pairing.folder_fingerprint(find_pairs(place, options), options)

    first = digest(root)
    assert len(first) == 12 and digest(root) == first
    assert digest(shutil.copytree(root, tmp_path / "b")) == first
    assert digest(root, mask_kind="binary") != first
    os.utime(root / "masks/img2.tif", (1, 1))
    assert digest(root) != first
