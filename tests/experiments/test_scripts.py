"""Every experiment script: its members are experiments that can be built."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import cli
from fluojax.data.record import Record
from fluojax.data.sources import load_dataset
from fluojax.sweep import Options
from fluojax.sweep.members import SCORES, Member
from fluojax.sweep.study import load_study
from fluojax.train import program

ROOT = Path(__file__).resolve().parents[2] / "experiments"
# Members without a variant; with each variant there are as many.
SCRIPTS = {
    "loss_study": 12,
    "collapse": 7,
    "architectures": 11,
    "ladder": 4,
    "hybrid_terms": 8,
    "instance_losses": 8,
    "spatial_moments": 7,
}
CASES = [
    (name, variant, scale)
    for name in SCRIPTS
    for variant in {
        "loss_study": ("slides", "program"),
        "architectures": ("hybrid", "dice_bce"),
        "instance_losses": ("2d", "3d"),
        "spatial_moments": ("nuclei", "touching"),
    }.get(name, (None,))
    for scale in ("small", "full")
]
TRIED = set()  # losses that need no second look


@pytest.mark.parametrize(("name", "variant", "scale"), CASES)
def test_every_member_names_a_network_and_losses_that_exist(name, variant, scale):
    options = Options(variant=variant, scale=scale)
    study = load_study(ROOT / f"{name}.py", options)
    if scale == "small":
        assert len(study.members) == SCRIPTS[name]
    assert set(study.labels) <= set(study.members)
    assert set(study.published) <= set(study.members)
    for member in study.members.values():
        cli._check_names(member)
        program.model_of(member)
        program._optimizer(member)
        if repr(member.loss) not in TRIED:
            _refuse_wrong_options(member)
            TRIED.add(repr(member.loss))
    own = {c for c in study.columns if c not in SCORES}
    assert not own or study.measure is not None


def _refuse_wrong_options(member):
    """Shapes alone: options of every loss fit, and it gives one number per image."""
    from fluojax.train.step import create_loss

    loss = create_loss(member.loss)
    maps = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, 16, 16), jnp.int32)
    where = jax.ShapeDtypeStruct((1, 16, 16, 1), bool)
    total, _ = jax.eval_shape(
        lambda x, y, i, w: loss(x, y, instances=i, where=w), maps, maps, ids, where
    )
    assert total.shape == ()


def test_every_script_is_listed_in_the_readme_and_says_its_data():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in SCRIPTS:
        assert f"experiments/{name}.py" in text
        head = (ROOT / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]
        assert "Data:" in head and "Full:" in head and "Quick:" in head


@pytest.mark.parametrize("path", sorted((ROOT / "launchers").glob("*.sh")), ids=str)
def test_launchers_are_valid_shell(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert re.search(r"fluojax (train|sweep)", path.read_text())


def _load(name):
    """A script as a module; it finds its neighbours, as it does when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        return importlib.import_module(name)


def test_overlaps_splits_and_merges_by_hand():
    measures = _load("measures")
    true = np.zeros((4, 12), np.int32)
    true[:, :4], true[:, 4:8], true[:2, 9:11] = 1, 2, 3
    found = np.zeros_like(true)
    found[:, :2], found[:, 2:4] = 1, 2  # object 1 in two halves
    found[:, 4:8] = 3  # object 2 as it is; object 3 is missed
    shared = measures.shared_pixels(true, found)
    ious, dices = measures.best_overlaps(shared)
    assert ious.tolist() == [0.5, 1.0, 0.0]
    assert dices.tolist() == [2 / 3, 1.0, 0.0]
    assert measures.splits_and_merges(shared) == (1, 0)
    assert measures.splits_and_merges(shared.T) == (0, 1)


def test_a_cell_of_which_a_tenth_is_found_is_no_miss():
    measures = _load("measures")
    true, found = np.zeros((3, 20), np.int32), np.zeros((3, 20), np.int32)
    true[0, :10], true[1, :11], true[2, :5] = 1, 2, 3
    found[0, 0] = found[1, 0] = 1
    assert measures.count_misses(measures.shared_pixels(true, found)) == 2
    none = measures.shared_pixels(true, np.zeros_like(true))
    assert measures.best_overlaps(none)[0].tolist() == [0, 0, 0]


def test_intervals_of_a_share_are_those_of_wilson():
    wilson = _load("collapse").wilson
    # R: prop.test(3, 20, correct=FALSE)
    np.testing.assert_allclose(wilson(3, 20), (0.05237, 0.36042), atol=1e-4)
    np.testing.assert_allclose(wilson(0, 20), (0.0, 0.16113), atol=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("f1", "blind"), [((0.5, 0.0), True), ((0.0, 0.5), False), ((), False)]
)
def test_a_member_ends_blind_by_its_last_evaluation(f1, blind, tmp_path):
    lines = [{"step": k, "split": "val", "f1_iou": v} for k, v in enumerate(f1)]
    lines += [{"step": 9, "split": "train", "loss": 0.0}]
    journal = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(journal)
    member = Member("bce", 0, tmp_path, "done")
    assert _load("collapse").ends_blind(member) is blind


def test_the_share_near_errors_counts_the_pull_within_three_pixels():
    maps = _load("gradient_maps")
    true, probs, pull = np.zeros((1, 20), int), np.zeros((1, 20)), np.zeros((1, 20))
    true[0, 5] = 1  # missed
    pull[0, [2, 8, 9]] = 1, -2, 5
    assert maps.share_near_errors(pull, probs, true) == 3 / 8
    assert maps.share_near_errors(pull, true * 1.0, true) == 0


def test_pictures_are_sorted_into_the_kinds_that_fail_in_different_ways():
    kinds = _load("picture_kinds")
    rows, columns = np.mgrid[:60, :60]

    def picture(*discs, texture=0.0):
        cells = np.zeros((60, 60), np.int32)
        for k, (y, x, r) in enumerate(discs, start=1):
            cells[np.hypot(rows - y, columns - x) <= r] = k
        image = (cells > 0) * (100 + texture * 100 * (-1.0) ** (rows + columns))
        return Record(image[..., None], cells, "a", "a")

    expected = {
        "overcrowding": picture((20, 20, 8), (20, 36, 8), (50, 50, 8)),
        "small objects": picture((20, 20, 4), (40, 40, 4)),
        "uneven texture and filling": picture((30, 30, 9), texture=0.5),
        "medium, sharp objects": picture((30, 30, 9), texture=0.2),
    }
    assert tuple(expected) == kinds.KINDS
    for kind, record in expected.items():
        assert kinds.kind_of(record, typical_diameter=16.0) == kind


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant", "scale"), CASES)
def test_smoke_of_every_script_ends_in_a_table(name, variant, scale, tmp_path):
    if scale == "full":
        pytest.skip("the networks of the full scale take too long on a CPU")
    words = ["sweep", str(ROOT / f"{name}.py"), "--smoke", "--seeds", "1"]
    words += ["--workdir", str(tmp_path)] + (["--variant", variant] if variant else [])
    command = [sys.executable, "-m", "fluojax", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "table.md").exists()


@pytest.mark.slow
def test_out_of_sample_scores_the_trained_members_on_all_images_of_other_data(tmp_path):
    trained, scored = tmp_path / "dice", tmp_path / "scored"
    words = [sys.executable, "-m", "fluojax", "sweep", str(ROOT / "loss_study.py")]
    words += ["--smoke", "--seeds", "1", "--only", "dice", "--workdir", str(trained)]
    subprocess.run(words, check=True, capture_output=True)
    words = [sys.executable, str(ROOT / "out_of_sample.py"), str(trained)]
    words += ["--data", "fnc_synth/smoke", "--out", str(scored)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here, there = (
        json.loads((root / "dice" / "seed0" / "results.json").read_text())
        for root in (trained, scored)
    )
    images = load_dataset("fnc_synth/smoke").splits
    assert there["split"] == "all" and there["threshold"] == here["threshold"]
    assert there["scores"]["n_images"] == sum(map(len, images.values()))
    assert sum(there["image_sizes"].values()) == there["scores"]["n_images"]
    assert there["hours"] > 0
    assert "| Dice | 1/1 |" in (scored / "table.md").read_text()
