"""From a folder of images to scores, predictions and pages."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

import fluojax
from fluojax import cli, config, runs
from fluojax.console import Console
from fluojax.errors import UserError
from fluojax.jobs import evaluate, predict, train
from fluojax.train.journal import read_journal


def said(job, *args, **kwargs):
    """What a job tells a person, and its result."""
    lines = []
    console = Console(quiet=True)
    console.line = lines.append
    return job(*args, console=console, **kwargs), lines


def test_a_run_learns_bright_rectangles_and_leaves_everything_behind(trained):
    workdir, results = trained
    assert results["scores"]["dice"] > 0.8
    assert results["scores"]["f1_iou"] > 0.7
    assert results["split"] == "test"
    assert results["scores"]["reference"] == "instances"
    assert not results["scores"]["collapsed"]
    for name in ("config.json", "command.txt", "environment.json", "log.txt",
                 "metrics.jsonl", "results.json", "per_image.csv", "report.md",
                 "figures/curves.png", "figures/panels/000060.png",
                 "figures/worst.png"):  # fmt: skip
        assert (workdir / name).stat().st_size > 0, name
    assert json.loads((workdir / "results.json").read_text()) == json.loads(
        json.dumps(results)
    )


def test_results_hold_the_whole_experiment(trained, experiment):
    _, results = trained
    found = config.from_dict(results["config"])
    assert found == experiment
    assert results["jax"] and results["devices"]
    keys = {"dice", "iou", "f1_iou", "f1_distance", "f1_50", "ap", "pq", "aji"}
    keys |= {"mae", "medae", "mpe", "n_images", "n_skipped", "reference"}
    keys |= {"collapsed", "diverged"}
    assert keys <= set(results["scores"])


def test_the_journal_has_no_step_twice(trained):
    workdir, _ = trained
    lines = read_journal(workdir / "metrics.jsonl")
    keys = [(line["step"], line["split"]) for line in lines]
    assert len(keys) == len(set(keys))
    assert (60, "val") in keys


def test_one_value_per_image_adds_up_to_the_scores(trained):
    workdir, results = trained
    with open(workdir / "per_image.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    tp, fp, fn = (sum(int(r[f"{k}_iou"]) for r in rows) for k in ("tp", "fp", "fn"))
    assert 2 * tp / (2 * tp + fp + fn) == pytest.approx(results["scores"]["f1_iou"])


def test_evaluating_again_gives_the_same_scores(trained, tmp_path):
    workdir, results = trained
    scores, _ = said(evaluate.evaluate_run, workdir, out=tmp_path)
    for name in ("dice", "f1_iou", "f1_50", "ap", "mae"):
        assert scores[name] == pytest.approx(results["scores"][name], nan_ok=True)
    assert "objects count against instances" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "scores.json").exists()


def test_a_split_that_is_not_there_is_refused(trained, folder, tmp_path):
    workdir, _ = trained
    shutil.copytree(folder / "train", tmp_path / "train")
    with pytest.raises(UserError, match="no test split; it has train, val"):
        said(evaluate.evaluate_run, workdir, split="test", data=str(tmp_path))


@pytest.fixture(scope="module")
def predicted(trained, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    code, lines = said(
        predict.predict_files, trained[0], [str(folder / "test")], out,
        save=("masks", "cells", "overlay", "probs"),
    )  # fmt: skip
    return out, code, lines


def test_predictions_equal_the_scored_ones(predicted, trained, folder):
    out, code, lines = predicted
    assert code == 0
    assert lines[-1].startswith("3 images, ")
    scores, _ = said(
        evaluate.evaluate_folders, out, folder / "test" / "masks", out=out / "scored"
    )
    assert scores["f1_iou"] == pytest.approx(trained[1]["scores"]["f1_iou"])
    assert scores["dice"] == pytest.approx(trained[1]["scores"]["dice"])


def test_tables_counts_and_pictures_agree_with_the_masks(predicted):
    out, _, _ = predicted
    with open(out / "counts.csv", encoding="utf-8") as file:
        counts = {row["image"]: int(row["count"]) for row in csv.DictReader(file)}
    for number in range(3):
        labels = tifffile.imread(out / f"c{number}_masks.tif")
        assert labels.dtype == np.uint16
        with open(out / f"c{number}_cells.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == labels.max() == counts[f"c{number}.tif"]
        assert sum(int(r["area_px"]) for r in rows) == (labels > 0).sum()
        assert Image.open(out / f"c{number}_overlay.png").width >= 40


def test_a_second_call_skips_and_a_deleted_file_comes_back_the_same(
    predicted, trained, folder
):
    out, _, _ = predicted
    files = sorted(p for p in out.glob("c[0-9]*") if p.is_file())
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    (out / "c1_masks.tif").unlink()
    said(
        predict.predict_files, trained[0], [str(folder / "test" / "images")], out,
        save=("masks", "cells", "overlay", "probs"),
    )  # fmt: skip
    for path in files:
        content, time = before[path.name]
        assert path.read_bytes() == content
        if not path.name.startswith("c1"):
            assert path.stat().st_mtime_ns == time
    assert not list(out.glob(".*.tmp"))


def test_other_settings_do_not_mix_with_earlier_results(predicted, trained, folder):
    out, _, _ = predicted
    with pytest.raises(UserError, match="predictions of other settings"):
        said(predict.predict_files, trained[0], [str(folder / "test")], out,
             threshold=0.123)  # fmt: skip


def test_a_damaged_image_is_skipped_and_listed(trained, folder, tmp_path):
    for number in range(2):
        shutil.copy(folder / "test" / "images" / f"c{number}.tif", tmp_path)
    (tmp_path / "c0.tif").write_bytes(b"II*\x00broken")
    code, lines = said(
        predict.predict_files, trained[0], [str(tmp_path)], tmp_path / "out"
    )
    assert code == 4
    assert any("skipped" in line and "c0.tif" in line for line in lines)
    record = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert list(record["failures"]) == ["c0.tif"]
    assert (tmp_path / "out" / "c1_masks.tif").exists()
    # The image is tried again and, once mended, done.
    shutil.copy(folder / "test" / "images" / "c0.tif", tmp_path)
    code, _ = said(predict.predict_files, trained[0], [str(tmp_path)], tmp_path / "out")
    assert code == 0


def test_nothing_found_says_what_to_look_at(trained, tmp_path):
    tifffile.imwrite(tmp_path / "dark.tif", np.full((40, 40), 40, np.uint8))
    _, lines = said(
        predict.predict_files, trained[0], [str(tmp_path / "dark.tif")],
        tmp_path / "out", threshold=0.9999,
    )  # fmt: skip
    (line,) = [x for x in lines if "0 cells in 1 of 1 images" in x]
    assert "highest probability" in line and "threshold 0.9999" in line
    assert "input 1-99.8 % = 40-40, training " in line
    assert "--threshold" in line


def test_tiles_give_the_masks_of_the_whole_image(trained, tmp_path):
    image = np.tile(_wide(), (8, 9))
    tifffile.imwrite(tmp_path / "wide.tif", image)
    for name, tile in (("whole", None), ("tiles", 64)):
        said(
            predict.predict_files, trained[0], [str(tmp_path / "wide.tif")],
            tmp_path / name, tile=tile, save=("masks", "probs"),
        )  # fmt: skip
    whole, tiles = (
        [tifffile.imread(tmp_path / n / f"wide_{k}.tif") for k in ("masks", "probs")]
        for n in ("whole", "tiles")
    )
    np.testing.assert_array_equal(whole[0], tiles[0])
    np.testing.assert_allclose(whole[1], tiles[1], atol=1e-5)


def _wide():
    rng = np.random.default_rng(3)
    image = rng.integers(40, 60, (40, 41)).astype(np.uint8)
    image[8:20, 5:18] += 150
    return image


@pytest.mark.parametrize(
    ("name", "told"),
    [("nothing", "no such file or folder"), ("*.png", "no match")],
)
def test_requests_without_images_are_refused(trained, tmp_path, name, told):
    with pytest.raises(UserError, match=told):
        said(predict.predict_files, trained[0], [str(tmp_path / name)], tmp_path)


def test_two_images_of_one_stem_are_refused(trained, tmp_path):
    for suffix in (".tif", ".png"):
        (tmp_path / f"a{suffix}").write_bytes(b"x")
    with pytest.raises(UserError, match="would both write a_masks.tif"):
        said(predict.predict_files, trained[0], [str(tmp_path)], tmp_path / "out")


def test_wrong_channels_are_named(trained, tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colour, photometric="rgb")
    code, lines = said(
        predict.predict_files, trained[0], [str(tmp_path)], tmp_path / "out"
    )
    assert code == 4
    assert "3 channels, the network was trained on 1" in lines[0]


def test_folders_without_common_names_list_both(folder, tmp_path):
    shutil.copy(folder / "test" / "masks" / "c0.tif", tmp_path / "other_masks.tif")
    with pytest.raises(UserError, match="no common names: .* has other; .* has c0, c1"):
        said(evaluate.evaluate_folders, tmp_path, folder / "test" / "masks",
             out=tmp_path / "scored")  # fmt: skip


def test_evaluate_of_one_folder_against_itself_is_perfect(folder, tmp_path):
    masks = folder / "test" / "masks"
    scores, _ = said(evaluate.evaluate_folders, masks, masks, out=tmp_path)
    for name in ("dice", "iou", "f1_iou", "f1_distance", "f1_50", "ap", "pq", "aji"):
        assert scores[name] == pytest.approx(1)
    assert (scores["mae"], scores["mpe"]) == (0, 0)


def test_a_run_folder_is_read_as_data(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained[0], copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(UserError, match="not readable"):
        runs.open_run(copy)
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match="config.json is missing"):
        runs.open_run(copy)


def test_a_workdir_that_is_a_file_is_refused(experiment, tmp_path):
    (tmp_path / "file").write_text("")
    other = dataclasses.replace(experiment, workdir=str(tmp_path / "file"))
    with pytest.raises(UserError, match="a file; choose another --workdir"):
        train.train(other)


def test_a_batch_that_devices_cannot_share_names_the_nearest(experiment, tmp_path):
    other = dataclasses.replace(experiment, batch_size=6, workdir=str(tmp_path / "x"))
    with pytest.raises(UserError, match="--batch-size 4, --batch-size 8"):
        train.train(other, dry_run=True)


def test_a_dry_run_checks_and_leaves_nothing(experiment, tmp_path, capsys):
    other = dataclasses.replace(experiment, workdir=str(tmp_path / "x"))
    assert train.train(other, dry_run=True) == {}
    assert not (tmp_path / "x").exists()


def test_options_that_do_not_exist_are_refused_before_training(experiment, tmp_path):
    for field, told in (
        ({"model_options": {"base_feature": 4}}, "model_options: .*base_features"),
        ({"optimizer_options": {"b3": 1}}, "optimizer_options: .*b3"),
        ({"loss": (config.Term("dice_loss", 1, {"smoth": 1}),)}, "loss: .*smoth"),
    ):
        other = dataclasses.replace(experiment, workdir=str(tmp_path / "x"), **field)
        with pytest.raises(UserError, match=told):
            train.train(other, dry_run=True)


def test_the_python_interface_does_the_same(trained, folder):
    model = fluojax.load(trained[0])
    image = tifffile.imread(folder / "test" / "images" / "c0.tif")
    truth = tifffile.imread(folder / "test" / "masks" / "c0.tif")
    out = model(image)
    assert out.instances.shape == image.shape
    assert len(out.table["area_px"]) == out.instances.max()
    assert out.overlay().startswith(b"\x89PNG")
    scores = fluojax.evaluate(out.instances, truth)
    assert scores.tp + scores.fn == len(np.unique(truth)) - 1
    perfect = fluojax.evaluate(truth, truth)
    assert (perfect.f1, perfect.count_error) == (1, 0)
    with pytest.raises(ValueError, match=r"must be \[rows, columns, 1\]"):
        model(np.zeros((16, 16, 3)))


def test_a_fitted_run_shows_its_figures(trained):
    # A finished run is not trained again.
    fields = {k: v for k, v in trained[1]["config"].items() if k != "data"}
    run = fluojax.fit(trained[1]["config"]["data"], **fields)
    assert run.folder == trained[0]
    assert run["scores"]["dice"] == trained[1]["scores"]["dice"]
    assert len(run.curves().axes) == 3
    titles = [axis.get_title() for axis in run.panel(2).axes]
    assert titles[1:3] == ["truth: 3 cells", titles[2]]
    with pytest.raises(IndexError, match="test has 3 labelled images, got 3"):
        run.panel(3)


def test_only_a_run_s_data_and_clean_up_can_be_changed(trained):
    run = runs.open_run(trained[0])
    changed = runs.with_overrides(run, {"postprocess_options.min_area": "40"})
    assert config.postprocess_options(changed.config)["min_area"] == 40
    with pytest.raises(UserError, match="a trained run can change"):
        runs.with_overrides(run, {"model": "unet"})
    run = dataclasses.replace(run, diameter=20.0)
    scaled = runs.with_overrides(run, {"postprocess": "study_scaled"}).config
    assert scaled.postprocess_options["footprint"] == 20


def test_the_commands_reach_the_jobs(trained, folder, tmp_path, capsys):
    words = ["evaluate", str(trained[0]), "--out", str(tmp_path / "e"), "-q"]
    assert cli.main(words) == 0
    image = str(folder / "test" / "images" / "c0.tif")
    words = ["predict", str(trained[0]), image, "--out", str(tmp_path / "p")]
    assert cli.main(words) == 0
    assert "1 images" in capsys.readouterr().out


@pytest.mark.slow
def test_validation_images_below_the_least_size_are_scored(experiment, tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / split / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, shape in (("train", (40, 40)), ("val", (5, 30))):
        image = rng.integers(0, 99, shape).astype(np.uint8)
        labels = np.zeros(shape, np.uint8)
        labels[1:4, 3:9] = 1
        labels[1:4, 12:15] = 2
        tifffile.imwrite(tmp_path / split / "images" / "a.tif", image)
        tifffile.imwrite(tmp_path / split / "masks" / "a.tif", labels)
    small = dataclasses.replace(
        experiment, data=str(tmp_path), num_steps=2, workdir=str(tmp_path / "run")
    )
    assert train.train(small)["scores"]["n_images"] == 1


def test_a_lost_configuration_is_asked_for_beside_checkpoints_only(tmp_path):
    """Another process of a new run may have made their folder already."""
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError, match="config.json is missing beside checkpoints"):
        runs.start_run(config.Experiment(), tmp_path, {})
    (tmp_path / "checkpoints" / "5").rmdir()
    runs.start_run(config.Experiment(), tmp_path, {})
    assert runs.read_config(tmp_path) == config.Experiment()


def test_pixels_that_are_not_finite_are_mended_and_told(trained, folder, tmp_path):
    image = tifffile.imread(folder / "test" / "images" / "c0.tif").astype(np.float32)
    image /= 255
    clean = image.copy()
    image[0, :3] = np.nan, np.inf, -np.inf
    clean[0, :3] = np.delete(image.ravel(), [0, 1, 2]).min()
    for name, array in (("a", image), ("b", clean)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array)
    code, lines = said(
        predict.predict_files, trained[0], [str(tmp_path)], tmp_path / "out"
    )
    assert code == 4
    assert "a.tif: 3 NaN or infinite pixels (0.19%) set to the image minimum" in lines
    first, second = (
        tifffile.imread(tmp_path / "out" / f"{name}_masks.tif") for name in "ab"
    )
    np.testing.assert_array_equal(first, second)
    tifffile.imwrite(tmp_path / "c.tif", np.full((9, 9), np.nan, np.float32))
    _, lines = said(
        predict.predict_files, trained[0], [str(tmp_path / "c.tif")], tmp_path / "o"
    )
    assert "all pixels are NaN or infinite" in lines[0]
