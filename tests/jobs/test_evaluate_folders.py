"""Two folders of masks: joined completely, or the rest is named."""

import json

import numpy as np
import pytest
import tifffile

from fluojax import cli


def write(path, cells=1):
    """A mask with so many cells of 4 x 4 pixels."""
    labels = np.zeros((24, 24), np.uint8)
    for number in range(cells):
        labels[2:6, 6 * number : 6 * number + 4] = number + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, labels)


def evaluate(capsys, tmp_path, *options):
    out = tmp_path / "out"
    sides = ["--pred", str(tmp_path / "p"), "--true", str(tmp_path / "t")]
    code = cli.main(["evaluate", *sides, "--out", str(out), *options])
    told = capsys.readouterr()
    results = out / "results.json"
    found = json.loads(results.read_text()) if results.is_file() else None
    return code, told.out + told.err, found


@pytest.fixture
def four(tmp_path):
    """Four true masks of two cells; the last has no prediction, one has no truth."""
    for number in range(4):
        write(tmp_path / f"t/a{number}_masks.tif", 2)
    for number in (0, 1, 2, 9):
        write(tmp_path / f"p/a{number}_cp_masks.tif", 2)


def test_cells_of_an_image_without_prediction_are_missed(capsys, tmp_path, four):
    code, told, results = evaluate(capsys, tmp_path)
    assert code == 0
    assert "1 of 4 true masks have no prediction" in told and "a3" in told
    assert "1 predictions have no true mask: a9" in told
    assert results["pairing"] == {
        "missing": "count", "without_prediction": ["a3"], "without_truth": ["a9"],
    }  # fmt: skip
    # 6 of 8 cells found, none too many; counts 2, 2, 2, 0 of 2 each.
    assert results["scores"]["f1_iou"] == pytest.approx(12 / 14)
    assert results["scores"]["mae"] == 0.5 and results["scores"]["n_images"] == 4
    rows = (tmp_path / "out/per_image.csv").read_text().splitlines()
    assert len(rows) == 5 and any(row.startswith("a3,") for row in rows)


def test_images_without_prediction_may_be_left_out_or_refused(capsys, tmp_path, four):
    code, told, _ = evaluate(capsys, tmp_path, "--missing", "refuse")
    assert code == 2 and "no prediction: a3" in told
    assert not (tmp_path / "out").exists()
    code, told, results = evaluate(capsys, tmp_path, "--missing", "skip")
    assert code == 0 and "left out: a3" in told
    assert results["pairing"]["missing"] == "skip"
    assert len((tmp_path / "out/per_image.csv").read_text().splitlines()) == 4


def test_equal_names_in_sub_folders_are_different_images(capsys, tmp_path):
    for well in ("a", "b"):
        for side in "pt":
            write(tmp_path / side / well / "1.tif")
    code, _, results = evaluate(capsys, tmp_path)
    assert code == 0 and results["pairing"]["without_prediction"] == []
    rows = (tmp_path / "out/per_image.csv").read_text()
    assert "a/1," in rows and "b/1," in rows


def test_dots_belong_to_the_name_and_ome_tif_is_one_suffix(capsys, tmp_path):
    for number in (1, 2):
        write(tmp_path / f"t/P1-1.{number}.ome.tif")
        write(tmp_path / f"p/P1-1.{number}_masks.tif")
    code, _, results = evaluate(capsys, tmp_path)
    assert code == 0 and results["pairing"]["without_prediction"] == []


def test_two_masks_of_one_image_are_refused_and_named(capsys, tmp_path):
    write(tmp_path / "t/1_masks.tif")
    for name in ("1_masks.tif", "1_masks.tiff"):
        write(tmp_path / "p" / name)
    code, told, _ = evaluate(capsys, tmp_path)
    assert code == 2 and "1_masks.tif and 1_masks.tiff" in told


def test_files_that_are_no_masks_by_their_names_are_told(capsys, tmp_path, four):
    write(tmp_path / "t/b.tif")
    write(tmp_path / "t/a1.tif")  # the image of a mask
    _, told, _ = evaluate(capsys, tmp_path)
    assert "no masks by their names: b.tif\n" in told


def test_the_folder_of_a_run_is_not_written_into(capsys, tmp_path, four):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json").write_text("{}")
    code, told, results = evaluate(capsys, tmp_path)
    assert code == 2 and "holds a run" in told and results is None
