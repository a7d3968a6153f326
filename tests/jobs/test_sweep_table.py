"""Tables of sweeps from written results: states, means, comparisons, files."""

import csv
import json
import math

import numpy as np
import pytest

from fluojax import cli
from fluojax.sweep import pages, statistics, table
from fluojax.sweep.members import SCORES, read_members, read_plan
from fluojax.sweep.statistics import Summary, summarise

COUNTS = ("tp_iou", "fp_iou", "fn_iou")
CONFIG = {"data": "/x/cells", "model": "unet", "num_steps": 9, "batch_size": 2}
CONFIG |= {"crop": 32, "precision": "float32"}
RESULTS = {"config": CONFIG, "hours": 0.01, "cpus": 2, "devices": ["cpu"]}
RESULTS |= {"fluojax": "0.1", "commit": "abc", "jax": "0.10", "split": "test"}


def write_member(root, name, seed, tp, fp=2, fn=2, mae=1.0, **scores):
    """A finished member of six images with these counts in each."""
    folder = root / name / f"seed{seed}"
    folder.mkdir(parents=True)
    rows = [{"image": f"i{k}", "n_true": 9, "n_pred": 9} for k in range(6)]
    for k, row in enumerate(rows):
        row |= dict(zip(COUNTS, (tp + k % 2 * bool(tp), fp, fn), strict=True))
    with open(folder / "per_image.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    total = {key: sum(row[key] for row in rows) for key in COUNTS}
    f1 = 2 * total["tp_iou"] / (2 * total["tp_iou"] + 6 * fp + 6 * fn)
    found = {"f1_iou": f1, "mae": mae, "collapsed": False, "diverged": False}
    results = RESULTS | {"scores": found | scores}
    (folder / "results.json").write_text(json.dumps(results))
    return f1


def diverge(root, name, seed):
    folder = root / name / f"seed{seed}"
    folder.mkdir(parents=True)
    scores = {"diverged": True, "collapsed": False}
    results = {k: v for k, v in RESULTS.items() if k != "split"} | {"scores": scores}
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def sweep(tmp_path):
    """good: two fine members; bad: one fine, one collapsed, one diverged; none: none."""
    plan = {
        "title": "Losses", "command": "fluojax sweep x.py", "seeds": [0, 1, 2],
        "configurations": ["bad", "good", "none"], "columns": ["f1_iou", "mae"],
        "labels": {"good": "Good & new"}, "source": "a paper", "notes": ["a note"],
        "published": {"good": {"f1_iou": {"mean": 0.5, "sd": 0.01, "n": 5}}},
    }  # fmt: skip
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    plan["f1"] = [write_member(tmp_path, "good", seed, 8 + seed) for seed in (0, 1)]
    plan["f1"].append(write_member(tmp_path, "bad", 0, 5))
    write_member(tmp_path, "bad", 1, 0, mae=9.0, f1_iou=None, collapsed=True)
    diverge(tmp_path, "bad", 2)
    return tmp_path, plan


def rows_of(root):
    plan = read_plan(root)
    return {r.configuration: r for r in table.rows_of(plan, read_members(root, plan))}


def test_failed_members_count_as_zero_and_stand_beside_those_that_worked(sweep):
    root, plan = sweep
    rows = rows_of(root)
    assert list(rows) == ["good", "bad", "none"]
    bad = rows["bad"]
    assert (bad.planned, bad.worked, bad.collapsed, bad.diverged) == (3, 1, 1, 1)
    assert bad.missing == 0 and rows["good"].missing == 1 and rows["none"].missing == 3
    f1 = plan["f1"][2]
    cell = bad.cells["f1_iou"]
    assert cell.every.mean == pytest.approx(f1 / 3)
    assert cell.every.sd == pytest.approx(np.std([f1, 0, 0], ddof=1))
    assert cell.worked == Summary(f1, cell.worked.sd, 1)
    # A member that diverged has no count error; one that collapsed has its own.
    assert bad.cells["mae"].every == summarise([1.0, 9.0])


def test_differences_to_published_values_are_marked_beyond_two_pooled_errors(sweep):
    root, plan = sweep
    cell = rows_of(root)["good"].cells["f1_iou"]
    mean = np.mean(plan["f1"][:2])
    assert cell.difference == pytest.approx(mean - 0.5)
    error = math.hypot(np.std(plan["f1"][:2], ddof=1) / 2**0.5, 0.01 / 5**0.5)
    assert cell.marked and abs(mean - 0.5) > 2 * error
    near, far = Summary(0.5, 0.02, 4), Summary(0.5 + 2.9e-2, 0.02, 4)
    assert statistics.differs(near, far)
    assert not statistics.differs(near, Summary(0.5 + 2.8e-2, 0.02, 4))
    assert not statistics.differs(near, Summary(0.9, math.nan, 1))


def test_no_difference_is_marked_where_data_or_budget_are_others(sweep):
    root, _ = sweep
    plan = read_plan(root) | {"comparable": False}
    row = table.rows_of(plan, read_members(root, plan))[0]
    assert row.cells["f1_iou"].published and not row.cells["f1_iou"].marked
    (root / "sweep.json").write_text(json.dumps(plan))
    page = pages.write_pages(root)
    assert "Δ is ours minus published." in page and "star" not in page


def test_pages_hold_the_same_table_whenever_they_are_built(sweep):
    root, _ = sweep
    text = pages.write_pages(root)
    names = ("table.md", "table.csv", "members.csv", "table.tex", "report.md")
    names += ("report.html",)
    first = [(root / name).read_bytes() for name in names]
    assert cli.main(["report", str(root)]) == 0
    assert [(root / name).read_bytes() for name in names] == first
    assert "4 of 9 members are missing" in text
    assert "0.500 ± 0.010" in text and "a paper" in text and "a note" in text
    assert "/x/" not in text and "cells" in text
    assert "Good \\& new" in (root / "table.tex").read_text()
    lines = list(csv.DictReader((root / "table.csv").open()))
    assert [line["configuration"] for line in lines] == ["good", "bad", "none"]
    assert lines[2]["f1_iou_mean"] == ""
    assert "<script" not in (root / "report.html").read_text()


def test_every_finished_member_stands_in_a_file_of_its_own_scores(sweep):
    root, plan = sweep
    pages.write_pages(root)
    lines = list(csv.DictReader((root / "members.csv").open()))
    names = [f"{line['configuration']} {line['seed']}" for line in lines]
    assert names == ["bad 0", "bad 1", "bad 2", "good 0", "good 1"]
    assert [line["state"] for line in lines[:3]] == ["done", "collapsed", "diverged"]
    found = [float(line["f1_iou"]) for line in lines]
    np.testing.assert_allclose(found, [plan["f1"][2], 0, 0, *plan["f1"][:2]], rtol=1e-9)
    assert [line["mae"] for line in lines] == ["1", "9", "", "1", "1"]


def test_a_clear_difference_is_told_and_noise_is_not(tmp_path):
    plan = {"configurations": ["a", "b", "c"], "seeds": [0, 1, 2, 3]}
    rng = np.random.default_rng(0)
    for seed in plan["seeds"]:
        noise = rng.integers(-1, 2)
        write_member(tmp_path, "a", seed, 20 + noise)
        write_member(tmp_path, "b", seed, 20 - noise)
        write_member(tmp_path, "c", seed, 4)
    groups = [[], [], []]
    for member in read_members(tmp_path, plan):
        groups[plan["configurations"].index(member.configuration)].append(member)
    best, near, far = statistics.compare_with_best(groups, 0, SCORES["f1_iou"])
    assert best is None
    assert not near.distinct and near.low < 0 < near.high
    assert far.distinct and far.high < 0 and far.p < 0.01
    means = [np.mean([m.value("f1_iou") for m in group]) for group in groups]
    assert far.difference == pytest.approx(means[2] - means[0])
    # Against itself nothing differs, in any draw.
    _, same = statistics.compare_with_best([groups[0]] * 2, 0, SCORES["f1_iou"])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_a_diverged_member_enters_the_comparison_as_an_empty_prediction(sweep):
    root, _ = sweep
    plan = read_plan(root)
    members = read_members(root, plan)
    bad = [m for m in members if m.configuration == "bad"]
    names, ours, _ = statistics._paired_counts(bad, bad)
    tp, fp, fn, true = (ours[2, :, names.index(n)] for n in (*COUNTS, "n_true"))
    assert not tp.any() and not fp.any()
    assert (fn == true).all()


def test_the_mean_f1_of_both_classes_is_one_fraction():
    sums = {"tp_px": 6.0, "fp_px": 1.0, "fn_px": 3.0, "tn_px": 90.0}
    above, below = SCORES["macro_f1"].ratio(sums)
    assert above / below == pytest.approx((12 / 16 + 180 / 184) / 2)
