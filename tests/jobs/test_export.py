import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fluojax
from fluojax import cli, exported, runs
from fluojax.errors import UserError


@pytest.fixture
def shared(trained, tmp_path):
    workdir, _ = trained
    out = tmp_path / "shared"
    assert cli.main(["-q", "export", str(workdir), "--out", str(out)]) == 0
    return out


def test_an_exported_network_predicts_what_the_run_does(trained, shared):
    workdir, _ = trained
    image = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    channels = runs.open_run(workdir).channels
    image = np.stack([image] * channels, axis=-1)
    found = fluojax.load(shared / "model.safetensors")(image)
    expected = fluojax.load(workdir)(image)
    np.testing.assert_array_equal(found.probs, expected.probs)
    np.testing.assert_array_equal(found.instances, expected.instances)


def test_facts_come_back_and_places_do_not(trained, shared):
    workdir, _ = trained
    run, read = (
        runs.open_run(workdir),
        exported.read_weights(shared / "model.safetensors"),
    )
    for name in ("step", "threshold", "channels", "diameter", "reference"):
        assert getattr(read, name) == getattr(run, name)
    jax.tree.map(np.testing.assert_array_equal, read.variables, dict(run.variables))
    text = (shared / "config.json").read_text() + (shared / "README.md").read_text()
    assert str(workdir.parent) not in text
    assert json.loads((shared / "config.json").read_text())["workdir"] is None


def test_the_card_names_data_scores_and_limits(shared):
    card = (shared / "README.md").read_text()
    for word in ("cresunet", "## Data", "| Dice", "fluojax.load", "## Licence"):
        assert word in card


def test_damaged_and_foreign_files_are_refused(shared, tmp_path):
    path = shared / "model.safetensors"
    arrays = load_file(path)
    foreign = tmp_path / "foreign.safetensors"
    save_file(arrays, foreign)
    with pytest.raises(UserError, match="not written by `fluojax export`"):
        exported.read_weights(foreign)
    foreign.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="not readable"):
        exported.read_weights(foreign)
    with pytest.raises(UserError, match="no such file"):
        exported.read_weights(tmp_path / "none.safetensors")
    header = {"format": exported.FORMAT, "config": "{}", "facts": "{}"}
    save_file(arrays, foreign, header)
    with pytest.raises(UserError, match="its header is damaged"):
        exported.read_weights(foreign)


def test_an_unknown_format_is_refused(trained, capsys):
    assert cli.main(["export", str(trained[0]), "--to", "onnx"]) == 2
    assert "--to: must be one of safetensors, jax" in capsys.readouterr().err
