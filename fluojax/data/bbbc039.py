"""BBBC039: 200 fields of U2OS nuclei, 12 bits of grey in 16.

43 of the pictures are also in the Data Science Bowl 2018, so that this is no
out-of-sample set for a model trained there.
"""

from pathlib import Path

import numpy as np

from fluojax.data import masks, read
from fluojax.data.published import (
    Config,
    Entry,
    Published,
    Report,
    pair_folders,
    read_picture,
    stem_of,
)
from fluojax.data.record import Record

LISTS = {"train": "training", "val": "validation", "test": "test"}


def find_records(root: Path, config: str, report: Report) -> list[Entry]:
    """Pictures that a list in `metadata` names."""
    pairs = pair_folders(root, root / "images", root / "masks", report)
    splits = {}
    for split, name in LISTS.items():
        text = (root / f"metadata/{name}.txt").read_text(encoding="utf-8-sig")
        listed = [stem_of(line.strip()) for line in text.splitlines() if line.strip()]
        splits |= dict.fromkeys(listed, split)
    for name in sorted(pairs.keys() - splits.keys()):
        report.leave_out(pairs[name][0], root, "in no list of metadata/")
    return [
        Entry(root, image, (mask,), name, splits[name], name, config)
        for name, (image, mask) in pairs.items()
        if name in splits
    ]


def read_record(entry: Entry, report: Report) -> Record:
    """Grey values as stored, and the nuclei of a mask.

    Raises:
      UnreadableFile: a file is damaged, or sizes differ.
    """
    picture = read_picture(entry.image, PUBLISHED.dtype, 1)
    instances = read_nuclei(entry.masks[0])
    masks.refuse_other_size(entry.image, entry.masks[0], picture, instances)
    return Record(picture, instances, entry.id, entry.group)


def read_nuclei(path: Path) -> np.ndarray:
    """Instances of a mask of this data set.

    Its red channel holds a small number per nucleus, which distant nuclei share:
    a nucleus is a component of one value.

    Raises:
      UnreadableFile: damaged, or more than two dimensions and colours.
    """
    array, axes = read.read_mask_array(path)
    plane = array[..., 0] if axes.endswith("S") else array
    if plane.ndim != 2:
        raise read.UnreadableFile(f"{path}: shape {array.shape}, axes {axes}; no mask")
    return masks.equal_values(plane)


PUBLISHED = Published(
    name="bbbc039",
    title="BBBC039: nuclei of U2OS cells in a chemical screen",
    configs={
        "full": Config(
            channels=1,
            trees=(
                ("images", "masks", *(f"metadata/{n}.txt" for n in LISTS.values())),
            ),
            counts={"train + val + test": 200},
            objects=23_615,
        )
    },
    find_records=find_records,
    read_record=read_record,
    dtype="uint16",
    scaling="percentile",
    reference="instances",
    folders=("BBBC039",),
    where="https://bbbc.broadinstitute.org/BBBC039",
    files="images.zip, masks.zip, metadata.zip",
    tree="""
DIR/images/IXMtest_A02_s1_....tif
DIR/masks/IXMtest_A02_s1_....png
DIR/metadata/training.txt
DIR/metadata/validation.txt
DIR/metadata/test.txt
""",
    licence=(
        "CC0 1.0; Broad Bioimage Benchmark Collection BBBC039v1; Caicedo et al., "
        "Cytometry A 2019; Ljosa et al., Nature Methods 9, 637 (2012)"
    ),
)
