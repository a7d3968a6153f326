from pathlib import Path

import pytest

from fluojax.data import names


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.tif", "a", ".tif"),
        ("a.OME.TIF", "a", ".ome.tif"),
        ("P1-1.8_slide0.ome.tiff", "P1-1.8_slide0", ".ome.tiff"),
        ("P1-1.8_slide0.png", "P1-1.8_slide0", ".png"),
        ("scan.nii.gz", "scan", ".nii.gz"),
        ("scan.gz", "scan", ".gz"),
        ("a.home.tif", "a.home", ".tif"),
        ("no_suffix", "no_suffix", ""),
        (".ome.tif", ".ome", ".tif"),
        ("Zähl ung µ2.npy", "Zähl ung µ2", ".npy"),
    ],
)
def test_a_double_suffix_is_one_and_other_dots_belong_to_the_name(name, stem, suffix):
    assert names.suffix(name) == suffix
    assert names.stem(Path("folder.d") / name) == stem


@pytest.mark.parametrize(
    ("stem", "base"),
    [
        ("img_masks", "img"),
        ("img_cp_masks", "img"),
        ("img_seg", "img"),
        ("img", "img"),
        ("_masks", "_masks"),
        ("img_masks_2", "img_masks_2"),
    ],
)
def test_the_longest_ending_goes_once(stem, base):
    assert names.without_ending(stem) == base


def test_a_key_holds_the_folders_below_the_one_named():
    root = Path("plate")
    for name in ("img0.tif", "img0_masks.tif", "img0.ome.tif", "img0_cp_masks.png"):
        assert names.key(root / "w1" / name, root) == "w1/img0"
    assert names.key(root / "img0.tif", root) == "img0"
