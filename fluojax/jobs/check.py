"""`fluojax check`: what a data set looks like, and everything wrong with it."""

from pathlib import Path

from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.data import fingerprint as fingerprints
from fluojax.data.folder import read_folder
from fluojax.data.sources import is_named, load_dataset
from fluojax.files import to_json, write_atomic


def check(config: Experiment, console: Console, *, json_file: str | None = None) -> int:
    """Prints the fingerprint of a data set and every problem, one line each."""
    problems: list[str] = []
    if Path(config.data).exists() or not is_named(config.data):
        dataset, problems = read_folder(config.data, config.data_options, strict=False)
    else:
        dataset = load_dataset(
            config.data, config.data_options, data_dir=config.manual_dir
        )
    facts = fingerprints.fingerprint(dataset)
    for line in facts.lines():
        console.line(line)
    console.line(f"scored      against {dataset.reference}")
    left_out = [note for note in dataset.notes if note.startswith("left out:")]
    problems += left_out
    notes = [note for note in dataset.notes if note not in left_out]
    for note in notes:
        console.line(f"note        {note}")
    for problem in problems:
        console.line(f"problem     {problem}")
    if json_file:
        told = {**facts.as_dict(), "notes": notes, "problems": problems}
        write_atomic(json_file, to_json(told))
    return 0
