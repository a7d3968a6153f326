"""S-BSST265: 79 pictures of nuclei at 10x to 63x, with labels by experts.

"csv" splits as `image_description.csv` says, "all" makes one test split of all
pictures: the set is meant for testing what was trained elsewhere.
"""

import csv
from pathlib import Path

import numpy as np

from fluojax.data import masks
from fluojax.data.published import (
    Config,
    Entry,
    Published,
    Report,
    count_torn,
    held_out,
    pair_folders,
    read_picture,
    stem_of,
)
from fluojax.data.record import Record
from fluojax.data.splits import VAL_SHARE
from fluojax.errors import UserError

TABLE = "image_description.csv"
NAME, SPLIT = "Image_Name", "Train-/Testset split"


def find_records(root: Path, config: str, report: Report) -> list[Entry]:
    """Pictures that have labels and, for "csv", a row in the table."""
    pairs = pair_folders(root, root / "rawimages", root / "groundtruth", report)
    splits = dict.fromkeys(pairs, "test")
    if config == "csv":
        table = read_table(root / TABLE)
        for name in sorted(pairs.keys() - table.keys()):
            report.leave_out(pairs[name][0], root, f"no row in {TABLE}")
        splits = {name: table[name] for name in pairs if name in table}
        val = held_out([n for n, s in splits.items() if s == "train"], VAL_SHARE)
        splits |= dict.fromkeys(val, "val")
    return [
        Entry(root, image, (mask,), name, splits[name], name, config)
        for name, (image, mask) in pairs.items()
        if name in splits
    ]


def read_table(path: Path) -> dict[str, str]:
    """ "train" or "test" by the name of the picture without suffix.

    Raises:
      UserError: the columns are missing, or a row says something else.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    reader = csv.DictReader(text.splitlines(), delimiter=";")
    if not {NAME, SPLIT} <= set(reader.fieldnames or ()):
        raise UserError(
            f"{path}: needs the columns {NAME} and {SPLIT}, separated by semicolons"
        )
    table = {}
    for row in reader:
        split = (row[SPLIT] or "").strip().lower()
        if split not in ("train", "test"):
            raise UserError(f"{path}: {row[NAME]}: {SPLIT} is {split!r}, no train/test")
        table[stem_of(row[NAME].strip())] = split
    return table


def read_record(entry: Entry, report: Report) -> Record:
    """One channel, and the label image of 8 or 16 bits.

    Raises:
      UnreadableFile: a file is damaged, coloured, or of another size.
    """
    picture = read_picture(entry.image, PUBLISHED.dtype, 1)
    plane = masks.read_mask_plane(entry.masks[0])
    masks.refuse_fractions(entry.masks[0], plane)
    if plane.dtype == np.uint8 and plane.max() == 255:
        report.tally["label images of 8 bits reach 255: ids may have wrapped"] += 1
    instances = masks.to_instances(plane, "instances")
    masks.refuse_other_size(entry.image, entry.masks[0], picture, instances)
    count_torn(instances, report)
    return Record(picture, instances, entry.id, entry.group)


_FOLDERS = ("rawimages", "groundtruth")

PUBLISHED = Published(
    name="sbsst265",
    title="S-BSST265: nuclear images with expert annotation",
    configs={
        "csv": Config(1, ((*_FOLDERS, TABLE),), {"train + val": 42, "test": 37}, 7813),
        "all": Config(1, (_FOLDERS,), {"test": 79}, 7813),
    },
    find_records=find_records,
    read_record=read_record,
    dtype="uint8",
    scaling="percentile",
    reference="instances",
    folders=("dataset",),
    where=(
        "https://www.ebi.ac.uk/biostudies/studies/S-BSST265 "
        "(doi 10.1038/s41597-020-00608-w)"
    ),
    files=(
        "dataset.zip (sha256 "
        "8285987ed4d57c46a46a55a33c1c085875ea41f429b59cde31d249741aa07ad1, as other "
        "programs state it)"
    ),
    tree="""
DIR/rawimages/Neuroblastoma_0.tif
DIR/groundtruth/Neuroblastoma_0.tif
DIR/image_description.csv
     or the same below DIR/dataset/; the other folders are not used
""",
    licence=(
        "CC0 1.0; Kromp et al., An annotated fluorescence image dataset for training "
        "nuclear segmentation methods, Scientific Data 7, 262 (2020)"
    ),
)
