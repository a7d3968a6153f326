"""The README's code runs, its shell parses, its commands are what CI runs."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture
def names():
    """What the README's examples take for granted."""
    import equinox as eqx
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    from flax import nnx

    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, 16, 16, 1)), jnp.float32)
    model = nn.Conv(1, (3, 3))
    return {
        "jax": jax,
        "jnp": jnp,
        "nnx": nnx,
        "eqx": eqx,
        "images": images,
        "labels": (images > 0.7).astype(jnp.float32),
        "model": model,
        "params": model.init(jax.random.key(0), images)["params"],
        "module": nnx.Conv(1, 1, (3, 3), rngs=nnx.Rngs(0)),
        "net": eqx.nn.Conv2d(1, 1, 3, padding=1, key=jax.random.key(0)),
        "image": rng.integers(0, 255, (40, 48, 3)).astype(np.uint8),
        "truth": np.zeros((40, 48), np.int32),
    }


def test_every_python_block_runs(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(blocks("python")) == 3
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert np.isfinite(names["value"])
    assert names["scores"].tp == 0


def test_every_shell_block_parses():
    for block in blocks("bash"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_two_commands_set_a_machine_up():
    installs = re.findall(r"^pip install.*$", "\n".join(blocks("bash")), re.M)
    assert installs == [
        'pip install ".[train]" && fluojax demo',
        'pip install -e ".[test]" && python -m pytest -q -n 2 --dist worksteal',
    ]


def test_every_command_of_the_readme_exists():
    from fluojax import cli

    shell = "\n".join(blocks("bash"))
    for words in re.findall(r"^(?:.*&& )?fluojax (.*)$", shell, re.M):
        cli.build_parser().parse_args(words.split())


def test_the_pages_and_pictures_of_the_readme_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_page_of_the_losses_runs_and_names_every_loss():
    from fluojax import losses

    page = (ROOT / "fluojax/losses/README.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, "losses/README.md", "exec"), names)
    assert np.isfinite(names["value"])
    told = set(re.findall(r"`([a-z_]+_loss)", page))
    public = {name for name in losses.__all__ if name.endswith("_loss")}
    assert told == public - {"create_loss"}
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / "fluojax/losses" / target).exists(), target


def test_the_page_of_the_models_runs_and_names_every_architecture(capsys):
    from fluojax import models

    page = (ROOT / "fluojax/models/README.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(block, "models/README.md", "exec"), names)
    assert names["logits"].shape == (1, 50, 70, 1)
    assert "total" in capsys.readouterr().out
    told = set()
    for line in re.findall(r"^\| (`[^|]*) \|", page, re.M):
        for name in re.findall(r"`([a-z0-9_]+)`", line):
            base = name if name[0] != "_" else base_of(line, name) + name
            told.add(base)
    assert told == set(models.list_models())


def base_of(line, ending):
    """The last whole name before an ending such as `_small`."""
    before = line[: line.index(f"`{ending}`")]
    return re.findall(r"`([a-z][a-z0-9_]*)`", before)[-1]
