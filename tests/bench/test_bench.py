"""`fluojax bench` runs, compares values before times and tells what it did."""

import json

import jax
import numpy as np
import pytest

from fluojax import cli, losses
from fluojax.bench import inputs, networks, peers, rows, run, table, timing, worker
from fluojax.errors import UserError
from fluojax.jobs import bench as job


def bench(*words):
    return cli.main(["bench", *words])


def test_rows_have_their_names_and_every_loss_is_among_them():
    names = [row.name for row in rows.rows("all", "A")]
    assert len(set(names)) == len(names)
    for name in ("loss/dice/A", "loss/blob_50/A", "op/label_components"):
        assert name in names
    timed = {row.function for row in rows.rows("losses", "A")}
    assert len(timed) == len(rows.rows("losses", "A"))
    public = {n for n in losses.__all__ if n.endswith("_loss")} - {"create_loss"}
    assert len(timed) >= len(public)


def test_inputs_are_the_same_every_time_and_hold_the_cells_asked_for():
    first, again = (inputs.loss_batch("small", 5) for _ in range(2))
    for key, array in first.items():
        np.testing.assert_array_equal(array, again[key])
    ids = [np.unique(image[image > 0]) for image in first["instances"]]
    assert all(list(found) == [1, 2, 3, 4, 5] for found in ids)
    guess = first["logits"] > 0
    assert np.mean(guess == (first["labels"] > 0)) > 0.9


def test_a_small_run_prints_rows_and_rewrites_its_file(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench("losses", "--size", "small", "--rows", "loss/dice/*", "--trials", "2",
                 "--json", str(file)) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert "loss/dice/small" in shown and "fluojax" in shown
    told = json.loads(file.read_text())
    (row,) = told["rows"]
    assert row["row"] == "loss/dice/small" and len(row["trials"]) == 2
    assert row["min_s"] == min(row["trials"]) > 0
    for key in ("jax", "devices", "threads", "trials", "precision", "seed", "commit"):
        assert key in told["conditions"]
    assert str(tmp_path) not in file.read_text()
    assert bench("losses", "--size", "small", "--rows", "loss/dice/*", "--trials", "1",
                 "--compare", str(file)) == 0  # fmt: skip
    assert "new / old" in capsys.readouterr().out


def test_peers_are_compared_in_values_before_times(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench("ops", "--size", "small", "--rows", "op/label*", "--peers",
                 "--trials", "2", "--json", str(file)) == 0  # fmt: skip
    told = json.loads(file.read_text())["rows"]
    by_name = {row["contender"]: row for row in told}
    scipy = by_name["SciPy"]
    assert scipy["state"] == "" and len(scipy["trials"]) == 2
    ratio = by_name["fluojax"]["min_s"] / scipy["min_s"]
    assert scipy["ratio"] == pytest.approx(ratio)


def test_a_peer_with_other_values_gets_no_ratio(monkeypatch):
    (row,) = run.chosen("ops", ("small",), "op/label_components/small")
    row = row._replace(agree=lambda ours, theirs: False)
    timings = next(
        run.times([row], trials=1, threads=1, with_peers=True, trial_s=0.001)
    )
    others = [t for t in timings if t.contender == "SciPy"]
    assert others[0].state == "DIFFERS" and others[0].ratio is None
    assert "DIFFERS" in table.line(others[0])


def test_components_may_be_numbered_in_any_way():
    ours = np.array([[1, 0, 2], [1, 0, 2]])
    assert rows._same_partition([ours], [np.array([[7, 0, 3], [7, 0, 3]])])
    assert not rows._same_partition([ours], [np.array([[7, 0, 7], [7, 0, 7]])])
    assert not rows._same_partition([ours], [np.array([[7, 0, 3], [4, 0, 3]])])


def test_a_contender_that_fails_is_told_and_the_process_goes_on():
    with worker.Peers(threads=1) as process:
        process.give({"mask": np.ones((4, 4), bool)})
        with pytest.raises(worker.PeerError, match="KeyError"):
            process.first("label_components", "nobody")
        _, (labels,) = process.first("label_components", "SciPy")
        assert labels.max() == 1
    assert peers.missing({"numpy", "surely_not_installed"}) == ["surely_not_installed"]


def test_interval_of_paired_ratios():
    median, low, high = timing.ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (median, low, high) == (2.0, 2.0, 2.0)
    median, low, high = timing.ratio_interval(
        [1.0, 2.0, 3.0, 9.0], [1.0, 1.0, 1.0, 1.0]
    )
    assert low <= median == 2.5 <= high


def test_a_trial_lasts_as_long_as_asked_and_counts_its_calls():
    calls = []
    seconds = timing.trial(lambda: calls.append(1), at_least_s=0.01)
    assert len(calls) > 10 and seconds * len(calls) >= 0.01


@pytest.mark.parametrize(
    "words, message",
    [
        (("losses", "--rows", "loss/dise/A"), "--rows: nothing fits 'loss/dise/A'"),
        (("losses", "--threads", "0"), "--threads: must lie between 1 and"),
        (("losses", "--trials", "0"), "--trials: must be at least 1, got 0"),
        (("losses", "--compare", "none.json"), "--compare: none.json is no result"),
        (("music",), "invalid choice"),
    ],
)
def test_requests_that_are_refused(words, message, capsys):
    assert bench(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_devices_are_not_compared():
    old = {"conditions": {"devices": ["TPU v5"], "threads": 2}, "rows": []}
    now = {"devices": ["cpu"], "threads": 2}
    with pytest.raises(UserError, match="devices were"):
        table.check_comparable(old, now, force=False)
    table.check_comparable(old, now, force=True)


def test_slower_and_faster_rows_are_marked():
    old = {"rows": [{"row": "a", "contender": run.OURS, "min_s": 1.0},
                    {"row": "b", "contender": run.OURS, "min_s": 1.0}]}  # fmt: skip
    now = [
        run.Timing(name, run.OURS, [s], 0.0, 0) for name, s in (("a", 1.2), ("b", 0.5))
    ]
    lines = table.compared(old, now)
    assert lines[0].endswith("slower") and lines[1].endswith("faster")


def test_sizes_of_the_command_line_are_those_of_the_inputs():
    known = {size for sizes in job.SIZES.values() for size in sizes}
    assert known == set(inputs.BATCHES) == set(inputs.IMAGES)


@pytest.mark.slow
def test_rows_of_networks_are_named_and_step_from_state_to_state():
    names = [row.name for row in networks.train_rows("A") + networks.infer_rows("B")]
    assert {"train/unet_31m", "train/c_resunet", "train/imsahlo"} <= set(names)
    assert {"infer/unet_2m/B", "infer/resenc_unet/B"} <= set(names)
    row = next(r for r in networks.train_rows("small") if "cresunet" in r.name)
    arrays = row.arrays()
    params, _, _, value = jax.eval_shape(row.function, arrays)
    state = [array for name, array in arrays.items() if name.startswith("state/")]
    count = len(jax.tree.leaves(params))
    assert [x.shape for x in jax.tree.leaves(params)] == [
        x.shape for x in state[:count]
    ]
    assert value.shape == ()
