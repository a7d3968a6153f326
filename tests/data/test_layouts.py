"""Layouts of other programs that name images and masks in ways of their own."""

import numpy as np
import pytest

from fluojax.config import DataOptions
from fluojax.data.folder import read_folder
from fluojax.data.pairing import find_pairs, folder_fingerprint
from fluojax.errors import UserError


def nnunet(root, records, disk, channels=1, tested=()):
    """Two or more cases in Tr, of which `tested` are in Ts instead."""
    for number, record in enumerate(records):
        part = "Ts" if number in tested else "Tr"
        for channel in range(channels):
            name = f"Dataset7_Cells/images{part}/c_{number:03d}_{channel:04d}.png"
            disk.write(root / name, record.image[..., channel])
        if part == "Tr":
            label = root / f"Dataset7_Cells/labelsTr/c_{number:03d}.png"
            disk.write(label, disk.labels(record))
    (root / "Dataset7_Cells/dataset.json").write_text('{"channel_names": {}}')
    return root


def test_nnunet_pairs_cases_and_numbers_channels(tmp_path, windows, disk):
    root = nnunet(tmp_path, windows, disk, channels=2)
    found = find_pairs(root)
    assert found.layout.startswith("nnU-Net")
    assert [pair.id for pair in found.pairs] == [
        f"Dataset7_Cells/imagesTr/c_{number:03d}" for number in range(5)
    ]
    dataset, problems = read_folder(root)
    assert not problems
    records = {r.id[-3:]: r for part in dataset.splits.values() for r in part}
    for number, window in enumerate(windows):
        record = records[f"{number:03d}"]
        np.testing.assert_array_equal(record.image, window.image[..., :2])
        np.testing.assert_array_equal(record.instances > 0, window.instances > 0)


def test_one_channel_of_nnunet_can_be_chosen(tmp_path, windows, disk):
    root = nnunet(tmp_path, windows, disk, channels=2)
    dataset, _ = read_folder(root, DataOptions(channel=1))
    image = dataset.splits["train"][0].image
    assert image.shape[-1] == 1
    number = int(dataset.splits["train"][0].id[-3:])
    np.testing.assert_array_equal(image[..., 0], windows[number].image[..., 1])
    with pytest.raises(UserError, match="channel 2 of 2"):
        read_folder(root, DataOptions(channel=2))


def test_test_images_of_nnunet_need_no_labels(tmp_path, windows, disk):
    root = nnunet(tmp_path, windows, disk, tested=(3, 4))
    dataset, problems = read_folder(root)
    assert not problems and not dataset.splits["test"]
    assert any("2 images without mask" in note for note in dataset.notes)
    used, _ = read_folder(root, DataOptions(unlabelled="use"))
    assert sum(len(part) for part in used.splits.values()) == 5


def test_channels_of_different_size_are_refused(tmp_path, windows, disk):
    root = nnunet(tmp_path, windows, disk, channels=2)
    path = root / "Dataset7_Cells/imagesTr/c_000_0001.png"
    disk.write(path, windows[0].image[:20, :20, 1])
    with pytest.raises(UserError, match="c_000_0000.png: its channels differ in size"):
        read_folder(root)


def test_a_changed_second_channel_is_another_folder(tmp_path, windows, disk):
    root = nnunet(tmp_path, windows, disk, channels=2)
    options = DataOptions()
    before = folder_fingerprint(find_pairs(root), options)
    disk.write(root / "Dataset7_Cells/imagesTr/c_000_0001.png", np.zeros((9, 9), "u1"))
    assert folder_fingerprint(find_pairs(root), options) != before


def test_smp_masks_lie_in_a_folder_ending_in_annot(tmp_path, windows, disk):
    for number, record in enumerate(windows):
        split = ("train", "train", "train", "val", "test")[number]
        disk.write(tmp_path / split / f"x{number}.png", record.image)
        if number != 1:
            mask = tmp_path / f"{split}annot/x{number}.png"
            disk.write(mask, disk.binary(record, full=1))
    disk.write(tmp_path / "trainannot/lonely.png", disk.binary(windows[0]))
    found = find_pairs(tmp_path)
    assert found.layout.startswith("SMP")
    assert [pair.id for pair in found.pairs] == [
        "test/x4",
        "train/x0",
        "train/x2",
        "val/x3",
    ]
    assert [pair.split for pair in found.pairs] == ["test", "train", "train", "val"]
    assert [p.name for p in found.images_without_mask] == ["x1.png"]
    assert [p.name for p in found.masks_without_image] == ["lonely.png"]


@pytest.mark.parametrize("other", [".npy", ".tif"])
def test_two_masks_of_one_image_are_a_question(tmp_path, windows, disk, other):
    root = nnunet(tmp_path, windows, disk)
    disk.write(root / f"Dataset7_Cells/labelsTr/c_000{other}", disk.labels(windows[0]))
    with pytest.raises(UserError, match="2 masks of one image"):
        find_pairs(root)
