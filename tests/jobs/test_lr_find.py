"""The learning-rate range test."""

import dataclasses

import numpy as np
import pytest

from fluojax.config import Term
from fluojax.console import Console
from fluojax.jobs import lr_find


def test_smoothing_is_a_running_mean_that_forgets():
    values = lr_find.smoothed([1.0, 3.0, 2.0])
    w = 0.98
    third = (w * w * 1 + w * 3 + 2) / (w * w + w + 1)
    assert values == pytest.approx([1.0, (w + 3) / (w + 1), third])


def test_the_valley_is_half_way_down_the_longest_descent():
    # Rises, falls over ten steps (with one small rise inside), explodes.
    losses = [5, 5.1, 5.2, 5, 4.5, 4, 4.1, 3, 2.5, 2, 1.5, 1, 3, 9]
    place = lr_find.valley(np.array(losses))
    assert 5 <= place <= 7
    assert lr_find.valley(np.arange(5.0)) is None
    assert lr_find.valley(np.array([])) is None


def test_a_range_test_suggests_a_rate_and_leaves_the_run_alone(experiment, tmp_path):
    config = dataclasses.replace(
        experiment,
        model="unet",
        model_options={"features": [4, 8]},
        crop=16,
        augmentation="none",
        loss=(Term("dice"),),
        workdir=str(tmp_path / "run"),
    )
    out = tmp_path / "lr.png"
    found = lr_find.lr_find(
        config, low=1e-5, high=10.0, iters=40, out=out, console=Console(quiet=True)
    )
    assert 1e-5 < found < 10.0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["lr.png"]
