"""Predicting with ROIs, in shards, and over changed images."""

import json

import numpy as np
import pytest
import roifile
import tifffile

from fluojax import cli
from fluojax.jobs.predict import find_images


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


def test_lengths_in_micrometres_follow_the_pixel_size_of_each_image(trained, tmp_path):
    picture = np.full((48, 56), 40, np.uint8)
    picture[8:20, 6:22] = picture[28:37, 30:40] = 220  # about 192 and 90 pixels
    half = {"resolution": (2, 2), "metadata": {"unit": "um"}, "imagej": True}
    for name, options in (("half", half), ("unknown", {})):
        tifffile.imwrite(tmp_path / f"{name}.tif", picture, **options)
    words = ["--set", "postprocess_options.min_area=30",
             "--set", "postprocess_options.units=um"]  # fmt: skip
    out = tmp_path / "out"
    # 30 um² are 120 pixels of half a micrometre: the small cell goes.
    assert predict(trained, tmp_path / "half.tif", out, *words) == 0
    assert tifffile.imread(out / "half_masks.tif").max() == 1
    with tifffile.TiffFile(out / "half_masks.tif") as file:
        assert file.pages[0].tags["XResolution"].value == (20000, 1)
    table = (out / "half_cells.csv").read_text().splitlines()[1].split(",")
    assert float(table[3]) == pytest.approx(float(table[2]) / 4)
    # An image that does not tell is refused by name, unless the user does.
    out = tmp_path / "unknown"
    assert predict(trained, tmp_path / "unknown.tif", out, *words) == 4
    failure = json.loads((out / "predict.json").read_text())["failures"]["unknown.tif"]
    assert "does not tell its pixel size; give --pixel-size" in failure
    words += ["--pixel-size", "1", "--overwrite"]
    assert predict(trained, tmp_path / "unknown.tif", out, *words) == 0
    assert tifffile.imread(out / "unknown_masks.tif").max() == 2


def test_outputs_may_lie_beside_the_images_which_are_found_once(trained, images):
    kinds = "masks,cells,rois,overlay,geojson,probs"
    assert predict(trained, images, images, "--save", kinds) == 0
    found = find_images([str(images), str(images / "p0.tif"), f"{images}/*.tif"])
    assert [path.name for path in found] == [f"p{k}.tif" for k in range(5)]


def test_two_calls_write_the_same_bytes(trained, images, tmp_path):
    outs = [tmp_path / name for name in ("one", "other")]
    for out in outs:
        kinds = "masks,cells,rois,overlay,geojson,probs"
        assert predict(trained, images, out, "--save", kinds) == 0
    names = sorted(path.name for path in outs[0].iterdir())
    assert len(names) == 5 * 6 + 2
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
