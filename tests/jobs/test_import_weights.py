import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fluojax
from fluojax import cli, runs
from fluojax.models.published import cresunet_weights

STORED = Path(__file__).parents[1] / "reference" / "published_weights"
FILE = STORED / "fluocells_base4.safetensors"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "run"
    assert cli.main(["-q", "import", str(FILE), "--out", str(out)]) == 0
    return out


def test_a_run_of_imported_weights_gives_the_stored_probabilities(imported):
    run = runs.open_run(imported)
    with np.load(STORED / "fluocells_base4.npz") as stored:
        image, output = stored["input"], stored["output"]
    logits = run.model.apply(run.variables, image, train=False)
    probs = jax.nn.sigmoid(logits)[..., 0]
    np.testing.assert_allclose(probs, output[..., 1], atol=1e-5)


def test_the_run_predicts_as_the_program_does(imported):
    run = runs.open_run(imported)
    assert run.threshold == 0.875
    assert (run.channels, run.reference) == (3, "components")
    assert run.config.postprocess == "study"
    assert run.config.scaling == "fixed"
    facts = json.loads((imported / "data.json").read_text())
    assert facts["imported"]["file"] == FILE.name
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    found = fluojax.load(imported)(image)
    assert found.probs.shape == found.instances.shape == (48, 64)


def test_transposed_kernels_are_turned():
    kernel = np.arange(8.0).reshape(2, 1, 2, 2)  # in, out, rows, columns
    name = "decoder.upconv_block1.id_path.up_conv.weight"
    found = cresunet_weights({name: kernel})["dec3/up/kernel"]
    assert found.shape == (2, 2, 2, 1)
    np.testing.assert_array_equal(found[:, :, 0, 0], [[3, 2], [1, 0]])


def told(capsys, *arguments):
    assert cli.main(["import", *map(str, arguments)]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text
    return text


def test_refusals_are_one_line(tmp_path, capsys, imported):
    assert "no such file" in told(capsys, tmp_path / "a.pth", "--out", tmp_path / "r")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a header")
    assert "not readable" in told(capsys, broken, "--out", tmp_path / "r")
    assert "choose another --out" in told(capsys, FILE, "--out", imported)
    assert "did you mean cresunet" in told(capsys, FILE, "--model", "cresunets")
    state = load_file(FILE)
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": np.ones((3, 3))}, other)
    assert "features.0.weight" in told(capsys, other, "--out", tmp_path / "r")
    state.pop("head.heatmap.conv2d.bias")
    save_file(state, other)
    assert "1 missing: head/bias" in told(capsys, other, "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_pytorch_is_asked_for_only_where_a_file_needs_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    file = tmp_path / "model.pth"
    file.write_bytes(b"PK")
    assert "pip install torch" in told(capsys, file, "--out", tmp_path / "r")
