"""Data Science Bowl 2018, stage 1: nuclei in pictures of many kinds.

"fluo" has the grey pictures with bright nuclei, "stained" those in colour, "all"
everything, as colours, and the test pictures without masks. Many pictures are
tiles of one field; the tiles of a field are one group and stay in one split.
"""

import csv
import functools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fluojax.data import masks, read
from fluojax.data.published import (
    UNLABELLED,
    Config,
    Entry,
    Published,
    Report,
    count_torn,
    held_out,
    list_images,
    read_picture,
    unlabelled,
)
from fluojax.data.record import Record
from fluojax.data.splits import hash_share
from fluojax.data.tiles import tile_groups
from fluojax.errors import UserError

TABLE = "stage1_train_labels.csv"
TEST_SHARE, VAL_SHARE = 0.15, 0.15
COMPARED = 3  # pictures of which run lengths are held against the mask files


class _Look(NamedTuple):
    """What decides about a picture: its mean over colours, and its kind."""

    grey: np.ndarray
    coloured: bool
    bright: bool  # nuclei brighter than the rest


def find_records(root: Path, config: str, report: Report) -> list[Entry]:
    """Pictures of one kind, split by groups of tiles: all are read for that."""
    entries = _with_run_lengths(root, _labelled(root, config, report), report)
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, entries))
    found: list[tuple[Entry, _Look]] = []
    for entry, look in zip(entries, looks, strict=True):
        if isinstance(look, str):
            report.left_out.append(look.replace(f"{root}/", ""))
        elif _belongs(look, config):
            found.append((entry, look))
    groups = tile_groups({entry.id: look.grey for entry, look in found})
    report.notes.append(_groups_note(groups))
    splits = _splits(set(groups.values()))
    chosen = [
        replace(entry, group=groups[entry.id], split=splits[groups[entry.id]])
        for entry, _ in found
    ]
    return chosen + (_unlabelled(root, config) if config == "all" else [])


def _labelled(root: Path, config: str, report: Report) -> list[Entry]:
    entries = []
    for folder, image in _pictures(root / "stage1_train"):
        cells = list_images(folder / "masks", read.MASK_SUFFIXES)
        id = folder.relative_to(root).as_posix()
        if cells:
            files = tuple(cells.values())
            entries.append(Entry(root, image, files, id, "train", id, config))
        else:
            report.leave_out(image, root, "no masks")
    return entries


def _unlabelled(root: Path, config: str) -> list[Entry]:
    return [
        Entry(root, image, (), id, UNLABELLED, id, config)
        for folder, image in _pictures(root / "stage1_test")
        for id in [folder.relative_to(root).as_posix()]
    ]


def _pictures(folder: Path) -> Iterable[tuple[Path, Path]]:
    """Folders `x` with a picture `x/images/x.png`, in the order of names."""
    for one in sorted(folder.glob("*/"), key=lambda p: p.name):
        for image in list_images(one / "images", read.IMAGE_SUFFIXES).values():
            yield one, image


def _look(entry: Entry) -> _Look | str:
    """The look of a picture, or why it cannot be read."""
    try:
        picture = read_picture(entry.image, "uint8", 3)
        inside = _read_instances(entry, picture)[0] > 0
    except UserError as error:
        return str(error)
    grey = picture.mean(-1, dtype=np.float32)
    coloured = bool((picture != picture[..., :1]).any())
    parted = inside.any() and not inside.all()
    bright = bool(parted and grey[inside].mean() > grey[~inside].mean())
    return _Look(grey, coloured, bright)


def _belongs(look: _Look, config: str) -> bool:
    if config == "fluo":
        return look.bright and not look.coloured
    return config == "all" or look.coloured


def _splits(groups: set[str]) -> dict[str, str]:
    """Test, validation and training by the hash of a group."""
    test = {group for group in groups if hash_share(group) < TEST_SHARE}
    rest = groups - test or groups
    val = held_out(rest, TEST_SHARE + VAL_SHARE)
    return {
        group: "val" if group in val else "train" if group in rest else "test"
        for group in groups
    }


def _groups_note(groups: dict[str, str]) -> str:
    members = list(groups.values())
    shared = sum(members.count(group) > 1 for group in members)
    return (
        f"groups: {shared} of {len(members)} pictures are tiles of a common field; "
        f"{len(set(members))} groups, split by a hash of their names"
    )


def read_record(entry: Entry, report: Report) -> Record:
    """The picture, and one object per mask in the order of first pixels.

    Raises:
      UnreadableFile: a file is damaged, or sizes differ.
    """
    channels = PUBLISHED.configs[entry.config].channels
    picture = read_picture(entry.image, PUBLISHED.dtype, channels)
    if not entry.masks:
        return unlabelled(entry, picture)
    instances, drawn = _read_instances(entry, picture)
    hidden = drawn - int(instances.max(initial=0))
    if hidden:
        report.tally["masks empty or hidden by others"] += hidden
    count_torn(instances, report)
    return Record(picture, instances, entry.id, entry.group)


# --- masks ------------------------------------------------------------------------


def _read_instances(entry: Entry, picture: np.ndarray) -> tuple[np.ndarray, int]:
    """Objects of a picture, and how many masks there are of it."""
    first = entry.masks[0]
    if first.name == TABLE:
        rows = run_lengths(first)[entry.image.stem]
        return instances_of_runs(rows, picture.shape[:2]), len(rows)
    instances = _by_first_pixel(masks.read_cell_masks(entry.masks))
    masks.refuse_other_size(entry.image, first, picture, instances)
    return instances, len(entry.masks)


def _with_run_lengths(root: Path, entries: list[Entry], report: Report) -> list[Entry]:
    """The table instead of thousands of files, if it has all and says the same."""
    path = root / TABLE
    if not path.is_file():
        return entries
    table = run_lengths(path)
    if not all(entry.image.stem in table for entry in entries):
        report.notes.append(f"masks: from their files; {TABLE} lacks pictures")
        return entries
    if not all(_agree(entry, table) for entry in entries[:COMPARED]):
        report.notes.append(f"masks: from their files, which {TABLE} contradicts")
        return entries
    report.notes.append(f"masks: from the run lengths of {TABLE}")
    return [replace(entry, masks=(path,)) for entry in entries]


def _agree(entry: Entry, table: dict[str, list[str]]) -> bool:
    try:
        painted = _by_first_pixel(masks.read_cell_masks(entry.masks))
        decoded = instances_of_runs(table[entry.image.stem], painted.shape)
    except UserError:
        return False
    return np.array_equal(painted, decoded)


def instances_of_runs(rows: Iterable[str], shape: tuple[int, int]) -> np.ndarray:
    """Objects of `start length start length ...`, by columns and from 1.

    Raises:
      UserError: numbers are missing or lie outside the picture.
    """
    flat = np.zeros(shape[0] * shape[1], np.int32)
    for label, row in enumerate(rows, start=1):
        try:
            starts, lengths = np.array(row.split(), np.int64).reshape(-1, 2).T
        except ValueError as error:
            raise UserError(f"{TABLE}: {row[:40]!r} are no run lengths") from error
        stops = starts - 1 + lengths
        if (starts < 1).any() or (lengths < 1).any() or (stops > flat.size).any():
            raise UserError(f"{TABLE}: runs outside a picture of {shape}")
        for start, stop in zip(starts - 1, stops, strict=True):
            flat[start:stop] = label
    return _by_first_pixel(flat.reshape(shape[::-1]).T)


def _by_first_pixel(cells: np.ndarray) -> np.ndarray:
    """Labels 1..N in the order in which a reader of the picture meets them."""
    values, first, inverse = np.unique(cells, return_index=True, return_inverse=True)
    rank = np.zeros(len(values), np.int32)
    objects = values > 0
    rank[objects] = first[objects].argsort().argsort() + 1
    return rank[inverse].reshape(cells.shape)


def run_lengths(path: Path) -> dict[str, list[str]]:
    """Run lengths of the objects by picture."""
    return _parsed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _parsed(path: Path, changed: int) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            if len(row) == 2 and row[0] != "ImageId":
                table.setdefault(row[0], []).append(row[1])
    return table


_TREES = (("stage1_train",),)
_LABELLED = "train + val + test"

PUBLISHED = Published(
    name="dsb2018",
    title="Data Science Bowl 2018 (BBBC038v1), stage 1",
    configs={
        "fluo": Config(1, _TREES, {_LABELLED: 545}),
        "stained": Config(3, _TREES, {_LABELLED: 108}),
        "all": Config(3, _TREES, {_LABELLED: 670, UNLABELLED: 65}, 29_461),
    },
    find_records=find_records,
    read_record=read_record,
    dtype="uint8",
    scaling="percentile",
    reference="instances",
    folders=("data-science-bowl-2018", "BBBC038v1"),
    where=(
        "https://bbbc.broadinstitute.org/BBBC038 (doi 10.1038/s41592-019-0612-7), or "
        "on Kaggle as data-science-bowl-2018"
    ),
    files="stage1_train.zip, stage1_train_labels.csv and, for `all`, stage1_test.zip",
    tree="""
DIR/stage1_train/<ImageId>/images/<ImageId>.png
DIR/stage1_train/<ImageId>/masks/<one file per nucleus>.png
DIR/stage1_train_labels.csv                (optional; reading is faster with it)
DIR/stage1_test/<ImageId>/images/<ImageId>.png   (optional)
""",
    licence=(
        "CC0 1.0; Caicedo et al., Nucleus segmentation across imaging experiments, "
        "Nature Methods 16, 1247 (2019); Ljosa et al., Nature Methods 9, 637 (2012)"
    ),
)
