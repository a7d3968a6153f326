"""Predicting with ROIs, in shards, and over changed images."""

import json

import numpy as np
import pytest
import roifile
import tifffile

from fluojax import cli


@pytest.fixture
def images(tmp_path):
    """Five pictures of bright rectangles."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        picture = np.full((48, 56), 20, np.uint8)
        picture[8:20, 6 + number : 22] = picture[28:40, 30:50] = 200
        tifffile.imwrite(folder / f"p{number}.tif", picture)
    return folder


def predict(trained, images, out, *options):
    words = ["predict", trained[0], images, "--out", out, *options]
    return cli.main(["-q", *map(str, words)])


def test_rois_have_the_areas_of_the_masks(trained, images, tmp_path):
    out = tmp_path / "out"
    assert predict(trained, images, out, "--save", "masks,rois,geojson") == 0
    found = 0
    for number in range(5):
        labels = tifffile.imread(out / f"p{number}_masks.tif")
        if labels.max() == 0:
            continue
        rois = roifile.roiread(out / f"p{number}_rois.zip")
        rois = rois if isinstance(rois, list) else [rois]
        names = [feature["properties"]["name"] for feature in json.loads(
            (out / f"p{number}.geojson").read_text())["features"]]  # fmt: skip
        assert names == [str(label) for label in range(1, labels.max() + 1)]
        for roi in rois:
            x, y = roi.coordinates().T
            area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
            assert area >= (labels == int(roi.name)).sum()  # equal without holes
            found += 1
    assert found > 0


def test_shards_together_give_what_one_call_gives(trained, images, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert predict(trained, images, whole) == 0
    for number in (2, 1, 3):
        assert not (parts / "counts.csv").exists()
        assert predict(trained, images, parts, "--shard", f"{number}/3") == 0
    names = {path.name for path in whole.iterdir()}
    own = {f"{name}.{k}-of-3.{end}" for k in (1, 2, 3)
           for name, end in (("counts", "csv"), ("predict", "json"))}  # fmt: skip
    assert {path.name for path in parts.iterdir()} == names | own
    for name in names:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_views_change_the_probabilities_a_little(trained, images, tmp_path):
    found = []
    for tta in ("off", "5", "8"):
        out = tmp_path / tta
        assert predict(trained, images, out, "--save", "probs", "--tta", tta) == 0
        found.append(tifffile.imread(out / "p0_probs.tif"))
    off, five, eight = found
    assert 0 < np.abs(five - off).max() and 0 < np.abs(eight - off).max()
    assert np.abs(eight - off).mean() < 0.2


def test_full_measures_are_columns_of_the_table(trained, images, tmp_path):
    assert predict(trained, images, tmp_path / "o", "--measure", "full") == 0
    header = (tmp_path / "o" / "p0_cells.csv").read_text().splitlines()[0]
    assert header.endswith("eccentricity,orientation_rad,perimeter_px,solidity")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "2", "a/b"])
def test_a_shard_out_of_range_is_refused(trained, images, tmp_path, shard, capsys):
    assert predict(trained, images, tmp_path / "o", "--shard", shard) == 2
    assert f"K from 1 to N, got '{shard}'" in capsys.readouterr().err
