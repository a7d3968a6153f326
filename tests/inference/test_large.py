"""Maps in files and tiles give the labels of maps in memory."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from fluojax.inference import joined, large, postprocess, scratch


def noise(shape, sigma, seed=0):
    """Probabilities of smooth blobs, about a third above one half."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return (1 / (1 + np.exp(-4 * field / field.std() + 2))).astype(np.float32)


PRESETS = {
    "default": {"closing": 3, "fill_holes": True, "min_area": 15},
    "imsahlo": {"closing": 3, "min_area": 15},
    "wide": {"closing": 7, "fill_holes": True, "smooth_disk": 2, "max_hole_size": 9},
    "apart": {"closing": 3, "apart": True, "fill_holes": True, "min_area": 4},
    "nothing": {"closing": 0, "min_area": 0},
}


CASES = [(p, s) for p in PRESETS for s in (0.8, 2.5, 9.0) if p != "wide"]


@pytest.mark.parametrize(("preset", "sigma"), [*CASES, ("wide", 2.5)])
def test_labels_in_tiles_equal_those_of_the_whole(preset, sigma, tmp_path):
    # Two tiles each way where each window's shape is compiled for.
    probs = noise((64, 64) if preset == "wide" else (131, 97), sigma)
    options = PRESETS[preset]
    found = large.instances_from_probs(
        probs, functools.partial(scratch.mapped, tmp_path), side=32, **options
    )
    expected = postprocess.instances_from_probs(probs, **options)
    assert expected.max() > 2
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32


COARSE = {"closing": 3, "smooth_disk": 1, "max_hole_size": 6, "min_area": 12,
          "max_filter_size": 5, "footprint": 9}  # fmt: skip
NECKS = {"closing": 3, "min_area": 12, "neck_depth": 0.5}


def pairs():
    """Pairs of touching disks, so small that windows are parts of the image."""
    rows, columns = np.mgrid[:170, :160]
    found = np.zeros(rows.shape, bool)
    rng = np.random.default_rng(0)
    for row in range(12, 160, 24):
        for column in range(10, 150, 28):
            y, x = row + rng.integers(-3, 4), column + rng.integers(-2, 3)
            for shift in (0, 9):
                found |= np.hypot(rows - y, columns - x - shift) < 5.6
    return found.astype(np.float32)


@pytest.mark.parametrize(
    ("probs", "side", "options"),
    [
        (noise((150, 130), 1.5, seed=3), 64, COARSE),
        (pairs(), 64, NECKS),
        (noise((150, 130), 1.5, seed=3), 64, NECKS | {"apart": True}),
        pytest.param(pairs(), 24, COARSE, marks=pytest.mark.slow),
    ],
)
def test_touching_cells_are_split_as_in_the_whole(probs, side, options, monkeypatch):
    seen = []
    window = large._window
    monkeypatch.setattr(
        large, "_window", lambda *given: seen.append(window(*given)) or seen[-1]
    )
    found = large.instances_from_probs(probs, np.zeros, side=side, **options)
    expected = postprocess.instances_from_probs(probs, **options)
    assert expected.max() > 10
    np.testing.assert_array_equal(found, expected)
    if side == 24:
        assert expected.max() == 2 * 7 * 5
        assert max(part.stop - part.start for part, _ in seen) < 150


@pytest.mark.parametrize("corners", [False, True])
def test_components_are_those_of_scipy_with_their_facts(corners):
    mask = np.random.default_rng(1).random((45, 38)) < 0.45
    found = joined.label(mask, np.zeros, corners=corners, side=7)
    structure = np.ones((3, 3)) if corners else None
    expected, count = ndimage.label(mask, structure)
    np.testing.assert_array_equal(found.labels, expected)
    areas = np.bincount(expected.ravel())
    np.testing.assert_array_equal(found.area[1:], areas[1:])
    for number, box in enumerate(ndimage.find_objects(expected), start=1):
        sides = (box[0].start, box[1].start, box[0].stop, box[1].stop)
        assert tuple(found.boxes[number]) == sides
        first = np.flatnonzero(expected.ravel() == number)[0]
        assert found.first[number] == first
        touches = 0 in sides[:2] or sides[2] == 45 or sides[3] == 38
        assert found.at_border[number] == touches


def test_a_spiral_through_all_tiles_is_one_component():
    mask = np.zeros((40, 40), bool)
    row = np.arange(0, 40, 4)
    mask[row] = True
    for k, r in enumerate(row[:-1]):
        mask[r : r + 4, 39 if k % 2 else 0] = True
    found = joined.label(mask, np.zeros, corners=False, side=8)
    assert found.labels.max() == 1
    assert found.area[1] == mask.sum()


@pytest.mark.parametrize("mask", [np.zeros((20, 21), bool), np.ones((20, 21), bool)])
def test_empty_and_full_masks(mask):
    found = large.instances_from_probs(
        mask.astype(np.float32), np.zeros, side=8, fill_holes=True
    )
    np.testing.assert_array_equal(found, mask.astype(np.int32))


def test_mapped_arrays_leave_no_file_and_keep_their_values(tmp_path):
    array = scratch.mapped(tmp_path / "new", (300, 5), np.float32)
    assert not array.any()
    array[7] = np.arange(5)
    scratch.release(array, array[3:], np.zeros(3))
    assert array[7].tolist() == [0, 1, 2, 3, 4]
    assert not any((tmp_path / "new").iterdir())
    rows = [band for band in scratch.bands((10, 4), pixels=12)]
    assert [r.start for r in rows] == [0, 3, 6, 9] and rows[-1].stop == 10
