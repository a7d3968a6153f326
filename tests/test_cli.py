"""The command line: refusals of one line, exit codes, and what it imports."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fluojax import cli, config
from fluojax.catalog import CATALOG
from fluojax.data import cache


def run(capsys, *words):
    code = cli.main(list(words))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "did you mean train, lr-find?"),
        (["train", "--modle", "unet"], "did you mean --model"),
        (["list", "losses", "over"], "unrecognized arguments: over; see fluojax"),
        (["train", "--loss", "dise"], "did you mean dice, cc_dice?"),
        (["train", "--model", "unet_nanno"], "did you mean unet_nano"),
        (["train", "--set", "learning=1"], "did you mean learning_rate"),
        (["train", "--set", "optimizer=adm"], "not one of adam, adamw, sgd"),
        (["train", "--lr", "fast"], "learning_rate: needs a finite number, got 'fast'"),
        (["train", "--lr", "nan"], "learning_rate: needs a finite number"),
        (["train", "--steps", "0"], "num_steps: must be positive, got 0"),
        (["train", "--steps", "2.5"], "num_steps: needs a whole number, got 2.5"),
        (["train", "--batch-size", "-4"], "batch_size: must be positive, got -4"),
        (["train", "--set", "crop"], "--set: needs KEY=VALUE, got 'crop'"),
        (["train", "nowhere.json"], "nowhere.json: no such file"),
        (["train", "--data", "gs://bucket/cells"], "folders of this machine only"),
        (["train", "--data", "fnc_synth/demmo"], "did you mean demo?"),
        (["evaluate"], "needs either RUN or --pred DIR --true DIR"),
        (["evaluate", "--pred", "a"], "both --pred DIR and --true DIR"),
        (["evaluate", "run", "--iou", "2"], "--iou: must lie in [0, 1)"),
        (["predict", "run", "x.png", "--save", "mask"], "none of masks, cells"),
        (["predict", "run", "x.png", "--tile", "big"], "--tile: needs a number"),
        (["predict", "run", "x.png", "--threshold", "2"], "at most 1"),
        (["list", "loses"], "did you mean losses"),
        (["evaluate", "no_such_run"], "no_such_run: no such run folder"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(capsys, words, told):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_no_command_shows_the_help(capsys):
    code, out, _ = run(capsys)
    assert code == 2
    assert "demo" in out and "predict" in out


def test_help_list_and_refusals_import_nothing_heavy():
    # What makes them answer in 0.1 s of CPU time; jax alone would take 0.6.
    script = (
        "import sys; from fluojax import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'numpy', 'flax', 'scipy', 'matplotlib', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    for words in (["--help"], ["train", "--help"], ["list"], ["train", "--loss", "x"]):
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_list_names_everything(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for entries in CATALOG.values():
        for name in entries:
            assert name in out


def test_the_catalogue_is_what_the_registries_hold():
    from fluojax import losses, metrics, models

    public = {n for n in losses.__all__ if n.endswith("_loss")} - {"create_loss"}
    assert set(CATALOG["losses"]) == set(losses.list_losses()) | public
    assert set(CATALOG["models"]) == set(models.list_models())
    functions = {
        name
        for name in metrics.__all__
        if callable(getattr(metrics, name)) and name[0].islower()
    }
    assert set(CATALOG["metrics"]) <= functions
    assert all(entry.line for kind in CATALOG.values() for entry in kind.values())


def test_flags_set_fields_and_set_wins(tmp_path):
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps({"model": "unet", "seed": 3, "crop": 64}))
    words = ["train", str(file), "--steps", "7", "--lr", "1e-2", "--seed", "4"]
    words += ["--set", "seed=5", "--set", "model_options.base_features=4"]
    args = cli.build_parser().parse_args([*words, "--loss", "dice+focal"])
    experiment = cli.experiment_of(args)
    assert experiment.model == "unet"
    assert (experiment.num_steps, experiment.learning_rate) == (7, 0.01)
    assert experiment.seed == 5
    assert experiment.model_options == {"base_features": 4}
    assert experiment.loss == (config.Term("dice"), config.Term("focal"))


def test_every_long_flag_of_train_is_a_field():
    fields = config.to_dict(config.Experiment())
    assert {cli.RENAMED.get(name, name) for name in cli.FIELDS} <= set(fields)


def test_info_names_versions_but_no_person_or_place(capsys):
    import getpass
    import socket

    code, out, _ = run(capsys, "info")
    assert code == 0
    assert "jax" in out and "devices" in out
    assert socket.gethostname() not in out
    assert f"/{getpass.getuser()}" not in out


def test_a_bug_is_one_line_that_says_where_its_traceback_is(capsys, monkeypatch):
    def broken(args, console):
        raise RuntimeError("something\nunexpected")

    monkeypatch.setitem(cli.COMMANDS, "info", broken)
    code, _, err = run(capsys, "info")
    assert code == 1
    assert "RuntimeError: something unexpected - this is a bug" in err
    assert err.count("\n") == 1


def test_out_of_memory_says_what_to_do(capsys, monkeypatch):
    def broken(args, console):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setitem(cli.COMMANDS, "info", broken)
    code, _, err = run(capsys, "info")
    assert code == 1
    assert "half the --batch-size" in err
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in err


def test_check_reports_a_folder_and_writes_json(capsys, tmp_path):
    for kind, top in (("images", 200), ("masks", 3)):
        (tmp_path / kind).mkdir()
        for number in range(3):
            rng = np.random.default_rng(number)
            array = rng.integers(0, top, (32, 32)).astype(np.uint8)
            np.save(tmp_path / kind / f"{number}.npy", array)
    code, out, _ = run(
        capsys, "check", str(tmp_path), "--json", str(tmp_path / "facts.json")
    )
    assert code == 0
    assert "3 x 32x32" in out and "suggested" in out
    assert json.loads((tmp_path / "facts.json").read_text())["channels"] == 1
    (tmp_path / "masks" / "1.npy").write_bytes(b"")
    code, out, _ = run(capsys, "check", str(tmp_path))
    assert code == 2 and "problem     masks/1.npy: the file is empty" in out


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "fluojax", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == cli.fluojax.__version__


def test_a_user_without_a_home_has_a_cache(capsys, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("FLUOJAX_CACHE", raising=False)
    assert run(capsys, "list", "data")[0] == 0
    assert cache.cache_folder().is_relative_to(tempfile.gettempdir())


def test_flags_about_images_are_data_options():
    words = ["train", "--channel", "1", "--skip-bad", "--mask-suffix", "_cells"]
    experiment = cli.experiment_of(cli.build_parser().parse_args(words))
    options = experiment.data_options
    assert (options.channel, options.skip_bad) == (1, True)
    assert options.mask_suffix == "_cells"
    assert set(cli.DATA_FLAGS) < set(config.to_dict(options))
