"""Rows of `fluojax bench input`."""

import itertools

import numpy as np
import pytest

from fluojax import cli
from fluojax.bench import loader, run, table


def test_rows_keep_their_names():
    names = [row.name for row in loader.loader_rows("A")]
    assert names == ["input/augment", "input/augment_fast", "input/step"]
    assert all(row.name.endswith("/small") for row in loader.loader_rows("small"))
    assert [row.name for row in run.chosen("input", ("A",), "input/s*")] == names[2:]


def test_crops_are_coloured_and_their_cells_bright():
    given = loader._crops((9, 32, 48))
    assert given["image"].shape == (9, 32, 48, 3) and given["image"].dtype == np.uint8
    cells = given["instances"] > 0
    assert given["image"][cells].min() >= 150 > 60 > given["image"][~cells].max()


def test_a_trial_takes_its_batches_from_the_feed_and_tells_seconds_per_step():
    taken = []

    def step(state, batch):
        taken.append(batch)
        return state + 1, {"loss": np.float32(0)}

    state, seconds = loader._run(step, 0, itertools.count())
    assert taken == list(range(loader._STEPS)) and state == loader._STEPS
    assert 0 < seconds < 1


def test_the_ratio_is_that_of_the_minima_and_images_per_second_are_told():
    (_, _, row) = loader.loader_rows("A")
    row = row._replace(paired=lambda trials: loader.Paired(9.0, [3.0, 2.1], [2.0, 2.0]))
    ours, fixed = run._fed(row, 2)
    assert ours.contender == run.OURS and ours.first_s == 9.0
    assert fixed.ratio == pytest.approx(1.05) and fixed.interval[0] == 1.275
    assert "1.9 images/s" in table.line(ours)  # 4 in 2.1 s
    assert "1.05 (median 1.27" in table.line(fixed)


@pytest.mark.slow
def test_the_small_rows_run(tmp_path, capsys):
    words = ["bench", "input", "--size", "small", "--trials", "1"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("images/s") == 3 and "fixed batch" in shown
