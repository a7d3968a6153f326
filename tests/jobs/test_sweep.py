"""Sweeps from a script to the table: what runs, what is refused, kill and restart."""

import dataclasses
import subprocess

import pytest

from fluojax import cli, report
from fluojax.config import Experiment, Term
from fluojax.console import Console
from fluojax.errors import Diverged, UserError
from fluojax.jobs import evaluate
from fluojax.jobs import sweep as jobs
from fluojax.jobs import train as train_job
from fluojax.sweep import Options, Study, figures, study
from fluojax.sweep.members import read_member
from fluojax.train.journal import read_journal
from fluojax.train.loop import Interrupted

SCRIPT = """
import neighbour
from fluojax.config import Experiment, Term
from fluojax.sweep import Study

VARIANTS = ("plain", "odd")


def study(options):
    names = neighbour.NAMES[options.variant or "plain"]
    return Study("T", {n: Experiment(loss=(Term(n),)) for n in names}, seeds=(0, 1))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT)
    names = 'NAMES = {"plain": ("dice", "focal"), "odd": ("bce_w50",)}\n'
    (tmp_path / "neighbour.py").write_text(names)
    return path


def test_a_script_is_asked_for_its_members_with_the_options(script):
    found = study.load_study(script, Options(data="cells"))
    assert list(found.members) == ["dice", "focal"]
    assert {m.data for m in found.members.values()} == {"cells"}
    small = study.load_study(script, Options(variant="odd", smoke=True))
    (member,) = small.members.values()
    assert (member.data, member.num_steps) == ("fnc_synth/smoke", 10)
    with pytest.raises(UserError, match=r"'od' is unknown \(did you mean odd\?\)"):
        study.load_study(script, Options(variant="od"))


def test_a_configuration_file_is_a_study_of_one_row(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"loss": "dice", "num_steps": 7}')
    found = study.load_study(path, Options(data="cells"))
    assert found.seeds == (0, 1, 2, 3, 4)
    assert (found.members["mine"].num_steps, found.members["mine"].data) == (7, "cells")


def test_errors_in_a_script_name_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("x = 1\ny = 1 / 0\n")
    with pytest.raises(UserError, match=r"bad\.py, line 2: division by zero"):
        study.load_study(path, Options())
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match=r"defines no study\(options\)"):
        study.load_study(path, Options())
    with pytest.raises(UserError, match="no such experiment script"):
        study.load_study(tmp_path / "none.py", Options())


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), ("0,5,25", (0, 5, 25)), ("7,", (7,))]
)
def test_seeds_are_a_number_or_a_list(text, seeds):
    assert study.parse_seeds(text) == seeds


def test_seeds_of_another_form_are_refused():
    with pytest.raises(UserError, match="--seeds: needs a number"):
        study.parse_seeds("all")


def test_members_can_be_listed_and_given_to_an_array(script, tmp_path, capsys):
    root = tmp_path / "out"
    words = ["sweep", str(script), "--workdir", str(root), "--seeds", "2"]
    assert cli.main([*words, "--list", "--only", "*/seed1"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["1", "dice/seed1"],
        ["3", "focal/seed1"],
    ]
    assert cli.main([*words, "--array", "slurm"]) == 0
    text = capsys.readouterr().out
    assert "--array=0-3" in text
    assert "--seeds 2 --element" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert not root.exists()
    assert cli.main([*words, "--element", "4"]) == 2
    assert "--element 4: members are 0 to 3" in capsys.readouterr().err
    assert cli.main([*words, "--only", "dise"]) == 2
    assert "fits none of dice, focal" in capsys.readouterr().err


def tiny(folder):
    """A loss that trains in a second after compilation, 12 steps."""
    base = Experiment(
        data=str(folder),
        model="unet",
        model_options={"features": [4, 8]},
        crop=16,
        batch_size=4,
        num_steps=12,
        eval_every=6,
        save_every=4,
        scaling="fixed",
        postprocess="none",
    )
    members = {"dice": dataclasses.replace(base, loss=(Term("dice"),))}
    return Study("A loss", members, seeds=(0, 1), columns=("f1_iou", "dice"))


def run(found, root, **options):
    return jobs.sweep(found, root, command="c", console=Console(quiet=True), **options)


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    """Drawing takes longer than training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_job, "_draw", lambda *_: None)
        patch.setattr(report, "draw_curves", lambda *_: None)
        patch.setattr(evaluate, "write_figures", lambda *_: None)
        patch.setattr(figures, "bars", lambda *_: None)
        patch.setattr(figures, "curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep") / "undisturbed"
    run(tiny(folder), root)
    return root


def test_a_sweep_killed_twice_ends_in_the_identical_table(
    undisturbed, folder, tmp_path, monkeypatch
):
    real = jobs.program.Program.draw
    stops = iter([5, 12])

    def draw(self, number):
        draw.calls += 1
        if draw.calls == draw.stop:
            draw.stop += next(stops, 10**9)
            raise Interrupted("a signal")
        return real(self, number)

    draw.calls, draw.stop = 0, next(stops)
    monkeypatch.setattr(jobs.program.Program, "draw", draw)
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(tiny(folder), tmp_path)
    run(tiny(folder), tmp_path)
    for name in ("table.csv", "table.tex"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()
    # Finished members are left alone.
    before = draw.calls
    run(tiny(folder), tmp_path)
    assert draw.calls == before


def test_seeds_in_one_process_equal_separate_runs(undisturbed, folder, tmp_path):
    member = dataclasses.replace(
        tiny(folder).members["dice"], seed=1, workdir=str(tmp_path / "alone")
    )
    train_job.train(member)
    for name in ("metrics.jsonl", "per_image.csv"):
        together = (undisturbed / "dice" / "seed1" / name).read_bytes()
        assert (tmp_path / "alone" / name).read_bytes() == together
    other = (undisturbed / "dice" / "seed0" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "alone" / "metrics.jsonl").read_bytes() != other


def test_a_member_that_diverges_is_recorded_and_the_rest_goes_on(
    folder, tmp_path, monkeypatch
):
    trained = []

    def train(member, **_):
        trained.append(member.seed)
        raise Diverged("not finite since step 3")

    monkeypatch.setattr(jobs, "train", train)
    monkeypatch.setattr(jobs.program, "build", lambda *_: None)
    text = run(tiny(folder), tmp_path, only="dice")
    assert trained == [0, 1]
    assert read_member(tmp_path, "dice", 0).state == "diverged"
    assert "| dice | 0/2 | 0 | 2 |" in text
    run(tiny(folder), tmp_path, only="dice")
    assert trained == [0, 1]


def test_a_folder_of_another_sweep_is_refused(undisturbed, folder):
    other = tiny(folder)
    members = {
        n: dataclasses.replace(m, learning_rate=0.5) for n, m in other.members.items()
    }
    with pytest.raises(UserError, match=r"holds another sweep: dice.learning_rate"):
        run(dataclasses.replace(other, members=members), undisturbed)


def test_measures_and_figures_of_an_experiment_stand_in_its_pages(undisturbed, folder):
    def draw(root, members):
        (root / "figures").mkdir(exist_ok=True)
        (root / "figures" / "own.png").write_bytes(b"png")
        return [(f"own, {len(members)} members", "figures/own.png")]

    found = dataclasses.replace(
        tiny(folder),
        columns=("f1_iou", "dice", "own_share"),
        measure=lambda run: {"own_share": 0.25 * (1 + int(run.name[-1]))},
        figures=draw,
    )
    text = run(found, undisturbed)
    assert "0.375 ± 0.177" in text
    assert "own, 2 members" in (undisturbed / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["devices", "vmap"])
def test_seeds_side_by_side_leave_finished_members(undisturbed, folder, tmp_path, how):
    run(tiny(folder), tmp_path, how=how)
    for seed in (0, 1):
        ours = read_member(tmp_path, "dice", seed)
        alone = read_member(undisturbed, "dice", seed)
        assert ours.finished and ours.images == alone.images
        first = [
            read_journal(m.folder / "metrics.jsonl")[0]["loss"] for m in (ours, alone)
        ]
        # The first line is of step 6: rounding has grown from 1e-7.
        assert first[0] == pytest.approx(first[1], rel=1e-3)
    before = (tmp_path / "table.csv").read_bytes()
    run(tiny(folder), tmp_path, how=how)
    assert (tmp_path / "table.csv").read_bytes() == before
