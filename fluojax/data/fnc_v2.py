"""Fluorescent Neuronal Cells v2: three collections of 1600 x 1200 pictures.

Masks are read, and no other format of the annotation: polygons lose holes, the
lists of objects are in no common order, and the run lengths are pickles.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fluojax.data.masks import refuse_other_size
from fluojax.data.published import (
    UNLABELLED,
    Config,
    Entry,
    Published,
    Report,
    held_out,
    list_images,
    pair_folders,
    read_binary,
    read_picture,
    unlabelled,
)
from fluojax.data.read import IMAGE_SUFFIXES
from fluojax.data.record import Record

VAL_SHARE = 0.20  # of trainval, as in the authors' code
VAL_SALT = "0"


def find_records(root: Path, config: str, report: Report) -> list[Entry]:
    """Images of one collection: train, val, test and unlabelled."""
    trainval = list(_labelled(root, config, "trainval", report))
    val = held_out([entry.id for entry in trainval], VAL_SHARE, VAL_SALT)
    report.notes.append(
        f"validation: {len(val)} of {len(trainval)} images of trainval by a hash of "
        f"their names (share {VAL_SHARE}, salt {VAL_SALT!r})"
    )
    return [
        *(
            replace(entry, split="val" if entry.id in val else "train")
            for entry in trainval
        ),
        *_labelled(root, config, "test", report),
        *_unlabelled(root, config),
    ]


def _labelled(root: Path, config: str, part: str, report: Report) -> Iterator[Entry]:
    folder = root / config / part
    pairs = pair_folders(
        root, folder / "images", folder / "ground_truths/masks", report
    )
    for name, (image, mask) in pairs.items():
        id = f"{config}/{part}/{name}"
        yield Entry(root, image, (mask,), id, part, id, config)


def _unlabelled(root: Path, config: str) -> Iterator[Entry]:
    folder = root / config / UNLABELLED / "images"
    for name, image in list_images(folder, IMAGE_SUFFIXES).items():
        id = f"{config}/{UNLABELLED}/{name}"
        yield Entry(root, image, (), id, UNLABELLED, id, config)


def read_record(entry: Entry, report: Report) -> Record:
    """Colours as stored, and the components of the mask.

    Raises:
      UnreadableFile: a file is damaged, or sizes differ.
    """
    picture = read_picture(entry.image, PUBLISHED.dtype, 3)
    if not entry.masks:
        return unlabelled(entry, picture)
    instances = read_binary(entry, report)
    refuse_other_size(entry.image, entry.masks[0], picture, instances)
    return Record(picture, instances, entry.id, entry.group, kind="binary")


def _config(name: str, trainval: int, test: int, rest: int) -> Config:
    tree = [f"{name}/{part}/images" for part in ("trainval", "test")]
    tree += [f"{name}/{part}/ground_truths/masks" for part in ("trainval", "test")]
    counts = {"train + val": trainval, "test": test, UNLABELLED: rest}
    return Config(3, (tuple(tree),), counts)


# Green has a mask without an image, hence one picture less than annotations.
PUBLISHED = Published(
    name="fnc_v2",
    title="Fluorescent Neuronal Cells v2 (yellow, green, red)",
    configs={
        "yellow": _config("yellow", 213, 70, 354),
        "green": _config("green", 212, 70, 408),
        "red": _config("red", 138, 46, 362),
    },
    find_records=find_records,
    read_record=read_record,
    dtype="uint8",
    scaling="fixed",
    reference="components",
    folders=("fnc_v2",),
    where="https://amsacta.unibo.it/id/eprint/7347 (doi 10.1038/s41597-024-03005-9)",
    files=(
        "yellow.zip (sha256 08048f5c71d4afa726cc54fd887a06cc"
        "6894aff62f6704ff5a8c15aa2f9946ca), green.zip (sha256 "
        "7760c3c55d236c17f2225a0a63e8e61a86c93d0645c7188bbe9652f22f520517), red.zip "
        "(sha256 0a9a2ac9dbdd7222cadf44a7846f61f9d0adb08cf09b801efb917a76e8704533); one "
        "collection is enough"
    ),
    tree="""
DIR/yellow/trainval/images/128.png
DIR/yellow/trainval/ground_truths/masks/128.png
DIR/yellow/test/images/3.png
DIR/yellow/test/ground_truths/masks/3.png
DIR/yellow/unlabelled/images/400.png       (optional)
DIR/green/...  DIR/red/...                 alike
""",
    licence=(
        "CC BY-SA 4.0; Clissa et al., Fluorescent Neuronal Cells dataset, Scientific "
        "Data 2024, doi 10.1038/s41597-024-03005-9"
    ),
)
