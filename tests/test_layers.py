"""Imports point down: read from the source, so that late imports count too."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fluojax"

# From the ground up; modules of one layer do not import each other.
LAYERS = (
    ("checks", "environment"),
    ("ops",),
    ("losses", "metrics"),
    ("models", "data"),
    ("train", "inference"),
    ("runs", "bench"),
    ("report", "exported"),
    ("exported_program",),
    ("sweep",),
    ("jobs",),
    ("api",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Standard library only; anyone may import them.
ANYWHERE = ("config", "catalog", "console", "errors", "files")
# The package itself, which is imported with any of its modules.
TOP = ("__init__", "__main__")
NUMERIC = ("checks", "ops", "losses", "metrics")


def imports(source: str, package: str, late: bool = True) -> Iterator[str]:
    """Dotted names that `source`, a module of `package`, imports.

    `late=False` leaves out what functions import when they run.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, node.module or ""] if node.level else [])
            base = base.rstrip(".") or node.module
            yield from (f"{base}.{alias.name}" for alias in node.names)


def modules() -> list[tuple[str, Path]]:
    """(part of the package, file): losses for fluojax/losses/pixel.py."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        found.append((inside.parts[0].removesuffix(".py"), path))
    return found


def imported(path: Path, late: bool = True) -> Iterator[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return imports(path.read_text(encoding="utf-8"), package, late)


def parts(path: Path) -> set[str]:
    """Parts of fluojax that the file imports."""
    names = (name.split(".") for name in imported(path))
    known = {part for part, _ in modules()}
    return {
        name[1]
        for name in names
        if name[0] == "fluojax" and name[1:2] and name[1] in known
    }


def test_every_part_of_the_package_has_a_layer():
    known = {*LEVEL, *ANYWHERE, *TOP}
    strange = {part for part, _ in modules()} - known
    assert not strange, f"give {strange} a layer in this test"


@pytest.mark.parametrize(
    "part, path", [pytest.param(*m, id=str(m[1].relative_to(ROOT))) for m in modules()]
)
def test_imports_point_down(part, path):
    used = parts(path) - {part, *ANYWHERE}
    if part in ANYWHERE:
        assert not used
    elif part not in TOP:
        above = {name for name in used if LEVEL[name] >= LEVEL[part]}
        assert not above, f"{part} must not import {above}"
    assert not any(name.split(".")[0] == "experiments" for name in imported(path))


@pytest.mark.parametrize("part", NUMERIC)
def test_numeric_parts_import_jax_and_numpy_only(part):
    allowed = {"fluojax", "jax", "numpy", *sys.stdlib_module_names}
    for owner, path in modules():
        if owner == part:
            outside = {name.split(".")[0] for name in imported(path)} - allowed
            assert not outside, f"{path.relative_to(ROOT)} imports {outside}"


@pytest.mark.parametrize("part", [*ANYWHERE, "__main__"])
def test_parts_that_anyone_imports_need_the_standard_library_only(part):
    path = PACKAGE / f"{part}.py"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    allowed = {"fluojax", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported(path, late=False)} <= allowed


def test_the_reader_of_imports_sees_all_forms():
    source = """
import jax.numpy as jnp, fluojax.ops
from fluojax import losses as l
from fluojax.train.loop import fit
from . import blocks
from ..ops import edt
def late():
    from .pixel import dice
"""
    found = set(imports(source, "fluojax.models"))
    assert found == {
        "jax.numpy",
        "fluojax.ops",
        "fluojax.losses",
        "fluojax.train.loop.fit",
        "fluojax.models.blocks",
        "fluojax.ops.edt",
        "fluojax.models.pixel.dice",
    }
