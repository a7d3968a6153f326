"""`fluojax check`: what a data set looks like, and everything wrong with it."""

from pathlib import Path

from fluojax.config import Experiment
from fluojax.console import Console, reading
from fluojax.data import fingerprint as fingerprints
from fluojax.data.folder import read_folder
from fluojax.data.record import Dataset
from fluojax.data.sources import is_named, load_dataset
from fluojax.errors import UserError
from fluojax.files import to_json, write_atomic


def check(
    config: Experiment,
    console: Console,
    *,
    json_file: str | None = None,
    sheet_file: str | None = None,
) -> int:
    """Prints the fingerprint of a data set and every problem, one line each.

    Returns 2 where there is a problem, else 0. With `sheet_file` it also draws what `config.augmentation` does to some crops.

    Raises:
      UserError: nothing can be read, or nothing can be drawn.
    """
    problems: list[str] = []
    if Path(config.data).exists() or not is_named(config.data):
        dataset, problems = read_folder(
            config.data, config.data_options, strict=False, progress=reading(console)
        )
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
    if sheet_file:
        write_atomic(sheet_file, _sheet(config, dataset, facts.crop))
        console.line(f"sheet       {sheet_file}: augmentation {config.augmentation}")
    return 2 if problems else 0


def _sheet(config: Experiment, dataset: Dataset, crop: int) -> bytes:
    from fluojax.data import contrast
    from fluojax.data.augment import augmentation
    from fluojax.jobs import contact_sheet

    kind = dataset.scaling if config.scaling == "auto" else config.scaling
    records = dataset.splits["train"] or dataset.splits["val"]
    source = contact_sheet.suggested_source(
        records, kind, config.crop or crop, config.contrast
    )
    try:
        augment = augmentation(config.augmentation, records[0].instances.ndim)
    except ValueError as error:
        raise UserError(str(error)) from error
    if augment is None:
        raise UserError("--augment: none changes nothing; name a preset")
    return contact_sheet.contact_sheet(
        source, contrast.left_over(kind, config.contrast), augment, seed=config.seed
    )
