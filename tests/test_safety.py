"""Nothing read from a file executes code; nothing names a place."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "fluojax").rglob("*.py"))
FORBIDDEN = (
    r"\bimport pickle\b",
    r"\bcloudpickle\b",
    r"\bdill\b",
    r"torch\.load\((?!file, map_location=\"cpu\", weights_only=True\))",
    r"allow_pickle=True",
    r"shell=True",
    r"\bos\.system\b",
    r"yaml\.(unsafe_|full_)?load\(",
    r"\beval\(",
    r"\bexec\(",
)


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_source_unpickles_or_executes(pattern):
    found = [p.name for p in SOURCES if re.search(pattern, p.read_text("utf-8"))]
    assert not found


def test_python_is_run_from_one_place_only():
    # Configurations that the user names on the command line.
    found = [p.name for p in SOURCES if "runpy" in p.read_text("utf-8")]
    assert found == ["config.py"]
