"""Pages of a run, from its folder alone."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from fluojax import cli


@pytest.fixture
def copy(trained, tmp_path):
    """The run without checkpoints, under its own name."""
    folder = tmp_path / trained[0].name
    shutil.copytree(
        trained[0], folder, ignore=shutil.ignore_patterns("checkpoints", "evaluation")
    )
    return folder


def test_the_pages_are_made_again_from_the_folder_alone(trained, copy):
    expected = [(trained[0] / f"report.{e}").read_text() for e in ("md", "html")]
    for name in ("report.md", "report.html"):
        (copy / name).unlink()
    assert cli.main(["-q", "report", str(copy)]) == 0
    assert [(copy / f"report.{e}").read_text() for e in ("md", "html")] == expected


def test_the_page_tells_what_a_reader_asks(trained):
    workdir, results = trained
    page = (workdir / "report.md").read_text()
    for part in ("What was run", "Scores on test", "Training", "Images", "F1 over IoU",
                 "Counts", "Failures", "Every image", "Cost", "How to repeat"):  # fmt: skip
        assert f"## {part}\n" in page
    assert "| model_options.base_features | 4 |" in page
    assert "| eval_every | 30 |" in page
    assert "save_best" not in page and "| weight_decay |" not in page
    low, high = results["scores"]["intervals"]["dice"]
    dice = results["scores"]["dice"]
    assert f"| Dice, pixels pooled | {dice:.3f} | {low:.3f} to {high:.3f} |" in page
    assert low <= dice <= high
    assert page.count("![") == 6
    html = (workdir / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 6
    for text in (page, html):  # nothing about this machine
        assert str(workdir.parent) not in text
        assert results["config"]["data"] not in text


def test_the_curve_over_iou_starts_at_the_score_of_one_half(trained):
    scores = trained[1]["scores"]
    curve = scores["f1_curve"]
    assert curve["iou"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert curve["f1"][0] == pytest.approx(scores["f1_50"])
    assert all(a >= b for a, b in zip(curve["f1"], curve["f1"][1:], strict=False))


def test_an_unfinished_run_has_a_page_that_says_so(copy):
    (copy / "results.json").unlink()
    (copy / "per_image.csv").unlink()
    assert cli.main(["-q", "report", str(copy)]) == 0
    page = (copy / "report.md").read_text()
    assert "The run has not finished" in page
    assert "## Training" in page and "## Scores" not in page


@pytest.mark.parametrize(
    ("name", "told"),
    [("none", "no such run folder"), ("empty", "config.json is missing")],
)
def test_folders_that_are_no_runs_are_refused(tmp_path, capsys, name, told):
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / name)]) == 2
    assert told in capsys.readouterr().err


def test_names_from_disk_stay_text(copy):
    results = json.loads((copy / "results.json").read_text())
    results["split"] = "<img src=x>"
    (copy / "results.json").write_text(json.dumps(results))
    assert cli.main(["-q", "report", str(copy)]) == 0
    assert "<img src=x>" not in (copy / "report.html").read_text()
    assert "Scores on &lt;img src=x&gt;" in (copy / "report.html").read_text()


def test_one_image_without_cells_has_undefined_scores_and_still_a_page(tmp_path):
    for kind in ("true", "pred"):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(tmp_path / kind / "a.tif", np.zeros((30, 40), np.uint16))
    words = ["evaluate", "--pred", str(tmp_path / "pred"), "--true"]
    out = tmp_path / "out"
    assert cli.main(["-q", *words, str(tmp_path / "true"), "--out", str(out)]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores["dice"] is None and scores["intervals"]["mae"] is None
    assert scores["mae"] == 0 and scores["n_skipped"] == 1
    assert scores["f1_curve"]["f1"] == [None] * 10
    page = (out / "report.md").read_text()
    assert "| Dice, pixels pooled | undefined | undefined |" in page
    assert page.count("![") == 3  # the image, the curve and the counts
