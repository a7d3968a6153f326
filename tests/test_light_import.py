"""What an import costs, seen in a fresh interpreter."""

import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fluojax

HEAVY = (
    "flax optax orbax tensorflow_datasets array_record matplotlib scipy skimage "
    "tifffile PIL pandas"
).split()
ABSENT = (
    "tensorflow_datasets array_record roifile safetensors imagecodecs tensorboardX"
).split()
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
PACKAGES = ("train", "inference", "data")
# Subclasses of tensorflow-datasets' builders cannot exist without it.
REFUSING = ("fluojax.data.builders",)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("part", ["losses", "metrics", "ops"])
def test_numeric_parts_load_jax_and_numpy_only(part):
    # An installation of jax may itself load SciPy.
    baseline = set(run("import jax.numpy, sys; print(*sys.modules)").split())
    loaded = set(run(f"import fluojax.{part}, sys; print(*sys.modules)").split())
    extra = {name.split(".")[0] for name in loaded - baseline}
    assert not extra & set(HEAVY), extra & set(HEAVY)
    assert "flax" not in {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize("part", ["losses", "metrics", "ops"])
def test_numeric_parts_touch_no_device(part):
    run(
        f"import fluojax.{part}\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )


@pytest.mark.parametrize("part", PACKAGES)
def test_training_and_data_load_without_their_optional_libraries(part):
    folder = Path(fluojax.__file__).parent / part
    names = [f"fluojax.{part}"]
    names += [f"fluojax.{part}.{m.name}" for m in pkgutil.iter_modules([str(folder)])]
    names = [name for name in names if name not in REFUSING]
    run(WITHOUT + "\n".join(f"import {name}" for name in names))


@pytest.mark.parametrize("name", REFUSING)
def test_modules_that_need_an_optional_library_say_how_to_install_it(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not there")
    lines = [
        "from fluojax.errors import UserError",
        "try:",
        f"    import {name}",
        "except UserError as error:",
        "    print(error)",
    ]
    assert "pip install" in run(WITHOUT + "\n".join(lines))
