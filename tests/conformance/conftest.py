"""Options of the conformance tests and one summary line per archive."""

import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent.parent
REFERENCE = TESTS / "reference"

# The modules beside this file import each other as `conformance.<name>`.
sys.path.insert(0, str(TESTS))


class Tally(NamedTuple):
    """What became of the records of one archive."""

    file: str
    found: int
    checked: int
    failed: int
    skipped: Counter  # reason -> records


TALLIES = pytest.StashKey[list[Tally]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--vectors",
        metavar="DIR",
        help="check every .npz below DIR; default: the selection in tests/reference",
    )
    group.addoption(
        "--data",
        metavar="DIR",
        help="check the readers on DIR/layouts and DIR/formats; default: skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLIES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "vectors" not in metafunc.fixturenames:
        return
    given = metafunc.config.getoption("vectors", default=None)
    folder = Path(given or REFERENCE)
    if not folder.is_dir():
        raise pytest.UsageError(f"--vectors: {folder} is not a folder")
    files = sorted(folder.rglob("*.npz"))
    if not files:
        raise pytest.UsageError(f"--vectors: no .npz below {folder}")
    names = [str(file.relative_to(folder)) for file in files]
    metafunc.parametrize("vectors", files, ids=names)


@pytest.fixture
def record_tally(request: pytest.FixtureRequest):
    """Call with a `Tally` to have it printed at the end."""
    return request.config.stash.setdefault(TALLIES, []).append


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    tallies = config.stash.get(TALLIES, [])
    if not tallies:
        return
    terminalreporter.section("conformance")
    for tally in tallies:
        terminalreporter.write_line(_line(tally))


def _line(tally: Tally) -> str:
    parts = [f"{tally.found} records", f"{tally.checked} checked"]
    if tally.failed:
        parts.append(f"{tally.failed} FAILED")
    total = sum(tally.skipped.values())
    if total:
        reasons = "; ".join(f"{n} {why}" for why, n in tally.skipped.most_common())
        parts.append(f"{total} skipped ({reasons})")
    return f"{tally.file}: {', '.join(parts)}"
