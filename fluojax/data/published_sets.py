"""The published data sets by name, read without tensorflow-datasets."""

from pathlib import Path

from fluojax.data import atlas_r2, bbbc039, dsb2018, fnc_v1, fnc_v2, manual, sbsst265
from fluojax.data.cache import Keep, cached, kept
from fluojax.data.published import (
    UNLABELLED,
    Published,
    Report,
    count_lines,
    read_entries,
)
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError, nearest

_ALL = (fnc_v1, fnc_v2, sbsst265, dsb2018, bbbc039, atlas_r2)
SETS: dict[str, Published] = {m.PUBLISHED.name: m.PUBLISHED for m in _ALL}


def config_of(published: Published, config: str) -> str:
    """The configuration asked for, the first one if none is.

    Raises:
      UserError: unknown.
    """
    known = published.configs
    if config and config not in known:
        raise UserError(
            f"data: tfds:{published.name}/{config} is unknown{nearest(config, known)}; "
            f"configurations are {', '.join(known)}"
        )
    return config or next(iter(known))


def read_published(
    published: Published, config: str, manual_dir: str | Path | None
) -> Dataset:
    """All splits but the unlabelled pictures, which nothing here trains on.

    Raises:
      UserError: the files are not there, or none can be read.
    """
    root = manual.find_root(published, config, manual_dir)
    mark = manual.fingerprint(root)
    return cached(
        f"{published.name}-{config}-{mark}",
        lambda keep: _read(published, config, root, keep),
        still=lambda: manual.fingerprint(root) == mark,
    )


def _read(published: Published, config: str, root: Path, keep: Keep) -> Dataset:
    report = Report()
    entries = published.find_records(root, config, report)
    images = {UNLABELLED: sum(entry.split == UNLABELLED for entry in entries)}
    splits: dict[str, list[Record]] = {}
    labelled = [entry for entry in entries if entry.split != UNLABELLED]
    for entry, record in read_entries(published, labelled, report):
        splits.setdefault(entry.split, []).append(kept(record, keep))
        images[entry.split] = images.get(entry.split, 0) + 1
    return as_dataset(published, config, splits, images, report.lines(), report.objects)


def nothing_usable(published: Published, config: str, lines: list[str]) -> UserError:
    """The refusal of a folder in which every file has a problem."""
    return UserError(
        f"tfds:{published.name}/{config}: no picture can be used: {'; '.join(lines)}"
    )


def as_dataset(
    published: Published,
    config: str,
    splits: dict[str, list[Record]],
    images: dict[str, int],
    lines: list[str],
    objects: int,
) -> Dataset:
    """What was read, with the lines that a user should see.

    Raises:
      UserError: nothing was.
    """
    notes = [*count_lines(published, config, images, objects), *lines]
    if images.get(UNLABELLED):
        notes.append(
            f"{images[UNLABELLED]} unlabelled images: in the tfds builder's split of "
            "that name, not read here"
        )
    if not any(splits.values()):
        raise nothing_usable(published, config, notes)
    ordered = {
        split: sorted(splits.get(split, ()), key=lambda record: record.id)
        for split in ("train", "val", "test")
    }
    name = f"{published.name}/{config}"
    return Dataset(name, ordered, published.scaling, published.reference, tuple(notes))
