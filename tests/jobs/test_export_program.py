"""A run as a program of jax.export, for any batch and size."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fluojax
from fluojax import cli, exported_program, runs
from fluojax.errors import UserError
from fluojax.models import blocks

pytest.importorskip("flatbuffers")


@pytest.fixture(scope="module")
def shared(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared")
    words = ["-q", "export", str(trained[0]), "--to", "jax", "--out", str(out)]
    assert cli.main([*words, "--license", "CC-BY-4.0"]) == 0
    return out


def test_the_program_predicts_what_the_run_does_at_any_size(trained, shared):
    model, run = fluojax.load(shared / "model.jaxexport"), fluojax.load(trained[0])
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 51)).astype(np.uint8)  # 40 x 56 when padded
    found, expected = model(image), run(image)
    # Two compilations sum in other orders; the network carries that to 1.5e-6 and more.
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)
    np.testing.assert_array_equal(found.instances, expected.instances)


def test_it_needs_jax_alone_and_serves_three_kinds_of_device(shared):
    data = bytearray((shared / "model.jaxexport").read_bytes())
    program = jax.export.deserialize(data)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    assert program.call(np.zeros((3, 16, 24, 1), np.float32)).shape == (3, 16, 24, 1)


def test_a_size_that_is_no_multiple_is_refused_by_name(shared):
    _, network = exported_program.read_program(shared / "model.jaxexport")
    program = exported_program.Program(lambda x: x, 8, 8, 16)
    with pytest.raises(ValueError, match="columns must be a multiple of 8 .* got 20"):
        program(np.zeros((1, 16, 20, 1), np.float32))
    assert network.divisor == 8


class Fixed:
    """A network that wants to know its sizes."""

    divisor, min_size, halo = 8, 8, None

    def apply(self, variables, images, train):
        return images[:, : int(images.shape[1])]


def test_a_network_of_fixed_sizes_is_refused_in_one_line(trained, tmp_path):
    run = dataclasses.replace(runs.open_run(trained[0]), model=Fixed())
    with pytest.raises(UserError, match="--to jax: .* use --to safetensors"):
        exported_program.write_program(run, tmp_path / "model.jaxexport")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("align_corners", [False, True])
def test_interpolation_is_the_same_with_free_sizes(align_corners):
    def double(x):
        sizes = [2 * n for n in x.shape[1:-1]]
        return blocks.resize_linear(x, sizes, align_corners=align_corners)

    free = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, h, w, 1"), np.float32)
    program = jax.export.export(jax.jit(double))(free)
    image = np.random.default_rng(0).random((2, 5, 7, 1)).astype(np.float32)
    np.testing.assert_allclose(program.call(image), double(image), atol=1e-6)


def test_damage_and_missing_parts_are_refused(shared, tmp_path):
    for name in ("model.jaxexport", "model.json"):
        (tmp_path / name).write_bytes((shared / name).read_bytes())
    path = tmp_path / "model.jaxexport"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged, or not the program"):
        exported_program.read_program(path)
    header = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**header, "divisor": 0}))
    with pytest.raises(UserError, match="damaged: divisor"):
        exported_program.read_program(path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match="belongs beside model.jaxexport"):
        exported_program.read_program(path)


def test_the_card_states_licence_data_scores_limits_and_citation(trained, shared):
    card = (shared / "README.md").read_text()
    for heading in ("Data", "Scores", "Use", "Limits", "Licence", "Citation"):
        assert f"## {heading}\n" in card
    assert "Weights: CC-BY-4.0." in card
    assert 'fluojax.load("model.jaxexport")' in card
    assert "Morelli et al." in card  # the network's paper


def test_nothing_in_it_tells_of_this_machine(trained, shared):
    places = [
        trained[0].parent,
        Path(fluojax.__file__).parent,
        Path(jax.__file__).parent,
    ]
    for path in shared.iterdir():
        for place in places:
            assert str(place).encode() not in path.read_bytes(), path.name
