"""The loop with a scripted validation: what is kept, when it ends, what it says."""

import dataclasses

import numpy as np
import pytest

from fluojax.config import Experiment, Term
from fluojax.console import Console
from fluojax.data.record import Dataset, Record
from fluojax.errors import Stopped
from fluojax.train import loop
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.journal import read_journal

CONFIG = Experiment(
    model="unet",
    model_options={"features": [4, 8]},
    crop=16,
    batch_size=4,
    scaling="fixed",
    schedule="constant",
    num_steps=12,
    log_every=2,
    eval_every=2,
    save_every=4,
)


def dataset(cells=1):
    rng = np.random.default_rng(0)
    records = []
    for number in range(3):
        labels = np.zeros((20, 20), np.int32)
        labels[4:10, 5:12] = 1
        if cells > 1:
            labels[12:18, 5:12] = 2
        image = (100 * (labels > 0) + rng.integers(0, 40, labels.shape)).astype(
            np.uint8
        )
        records.append(Record(image[..., None], labels, f"r{number}", f"r{number}"))
    return Dataset("squares", {"train": records, "val": [], "test": []})


def run(workdir, scores, config=CONFIG, foreground=0.1, cells=1):
    """Trains with `scores` as the results of the evaluations, in order."""
    lines = []
    console = Console(quiet=True)
    console.line = lines.append
    scores = iter(scores)

    def validate(variables, eval_step, step):
        return {
            "score": next(scores),
            "foreground": foreground,
            "foreground_true": 0.1,
        }

    data = dataset(cells)
    outcome = loop.run(config, data, workdir, validate=validate, console=console)
    return outcome, lines


def rates(workdir):
    lines = read_journal(workdir / "metrics.jsonl")
    return [round(x["lr"] / 1e-3, 4) for x in lines if x["split"] == "train"]


def test_the_best_evaluation_is_kept_beside_the_newest(tmp_path):
    outcome, _ = run(tmp_path, [0.1, 0.5, 0.3, 0.4, 0.2, 0.5])
    assert (outcome.step, outcome.best_step, outcome.best) == (12, 4, 0.5)
    store = Checkpoints(tmp_path / "checkpoints", say=print)
    assert store.best_step() == 4
    assert store.steps()[0] == 12


def test_patience_ends_a_run_and_is_remembered(tmp_path):
    config = dataclasses.replace(CONFIG, patience=2)
    outcome, _ = run(tmp_path, [0.5, 0.4, 0.3], config)
    assert outcome.step == 6
    # Started again it stays finished; with more patience it goes on.
    outcome, _ = run(tmp_path, [], config)
    assert outcome.step == 6
    outcome, lines = run(
        tmp_path, [0.1, 0.2, 0.9], dataclasses.replace(CONFIG, patience=9)
    )
    assert (outcome.step, outcome.best_step) == (12, 12)
    assert "resuming from step 6" in lines


def test_plateau_lowers_the_rate_after_waiting(tmp_path):
    config = dataclasses.replace(CONFIG, schedule="plateau", plateau_patience=2)
    run(tmp_path, [0.5, 0.4, 0.4, 0.4, 0.4, 0.4], config)
    assert rates(tmp_path) == [1, 1, 1, 0.5, 0.5, 0.25]


def test_the_plateau_survives_a_resume(tmp_path):
    config = dataclasses.replace(CONFIG, schedule="plateau", plateau_patience=2)
    half = dataclasses.replace(config, num_steps=8)
    run(tmp_path / "a", [0.5, 0.4, 0.4, 0.4], half)
    run(tmp_path / "a", [0.4, 0.4], config)
    run(tmp_path / "b", [0.5, 0.4, 0.4, 0.4, 0.4, 0.4], config)
    assert rates(tmp_path / "a") == rates(tmp_path / "b")


def test_a_network_that_sees_nothing_is_told_once(tmp_path):
    _, lines = run(tmp_path, [0.0] * 6, foreground=0.0)
    told = [line for line in lines if "background everywhere" in line]
    assert len(told) == 1
    assert "true 10.000 %" in told[0].replace("%", " %").replace("  ", " ")
    assert "foreground_crops" in told[0]


def test_more_cells_than_an_instance_loss_takes_are_told_once(tmp_path):
    term = Term("blob_loss", options={"max_instances": 1, "loss": "cross_entropy"})
    config = dataclasses.replace(CONFIG, loss=(term,), num_steps=6, crop=20)
    _, lines = run(tmp_path, [0.5] * 3, config, cells=2)
    (told,) = [line for line in lines if "cells, the loss takes" in line]
    assert told.startswith("a crop holds 2 cells, the loss takes 1")
    journal = read_journal(tmp_path / "metrics.jsonl")
    assert {x["most_instances"] for x in journal if x["split"] == "train"} == {2}
    _, lines = run(tmp_path / "fits", [0.5] * 3, config)
    assert not [line for line in lines if "the loss takes" in line]


def test_a_loader_that_raises_is_named_and_loses_nothing(tmp_path, monkeypatch):
    real = loop.pipeline.draw_batch

    def broken(source, seed, step, indices, size):
        if step == 9:
            raise Stopped("images/a.tif: gone")
        return real(source, seed, step, indices, size)

    monkeypatch.setattr(loop.pipeline, "draw_batch", broken)
    with pytest.raises(Stopped, match="images/a.tif: gone"):
        run(tmp_path, [0.1, 0.2, 0.3, 0.4])
    monkeypatch.undo()
    outcome, lines = run(tmp_path, [0.5, 0.6, 0.7])
    assert "resuming from step 8" in lines
    assert outcome.step == 12


def test_time_adds_up_over_resumes(tmp_path):
    first, _ = run(tmp_path, [0.1, 0.2], dataclasses.replace(CONFIG, num_steps=4))
    second, _ = run(tmp_path, [0.3] * 4)
    assert second.seconds > first.seconds / 2
    assert second.seconds > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_precisions_train(tmp_path, precision):
    config = dataclasses.replace(CONFIG, precision=precision, num_steps=4)
    outcome, _ = run(tmp_path, [0.1, 0.2], config)
    assert outcome.step == 4
