"""`--data DIR`: every picture of DIR/layouts and every file of DIR/formats."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conformance import data_layouts
from conformance.conftest import Tally


@pytest.fixture
def data(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("data", default=None)
    if given is None:
        pytest.skip("needs --data DIR")
    folder = Path(given)
    if not folder.is_dir():
        raise pytest.UsageError(f"--data: {folder} is not a folder")
    return folder


@pytest.mark.parametrize("part", ["layouts", "formats"])
def test_readers_give_what_an_independent_program_found(
    part: str, data: Path, tmp_path: Path, record_tally: Callable[[Tally], None]
) -> None:
    folder = data / part
    if part == "layouts":
        answers = data_layouts.layouts(folder)
    else:
        answers = data_layouts.formats(folder, tmp_path)
    assert answers, f"{folder}/expected.json holds no record"
    failures = data_layouts.run(answers)
    checked = len(answers) - len(failures)
    record_tally(Tally(part, len(answers), checked, len(failures), Counter()))
    assert not failures, f"{len(failures)} records fail:\n" + "\n".join(failures)
