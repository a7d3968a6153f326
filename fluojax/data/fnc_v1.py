"""Fluorescent Neuronal Cells v1: 283 pictures of 1600 x 1200 and their masks.

Three configurations. "authors" tests on the 70 images that the authors name;
most of them come from animals that are also trained on. "by_animal" tests on
whole animals. "imsahlo_512x768" is the first at the size that IMSAHLO trains on,
which also changes the aspect: lengths shrink by 0.4267 in rows and by 0.48 in
columns.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fluojax.data import masks
from fluojax.data.fnc_v1_split import TEST_NAMES
from fluojax.data.published import (
    Config,
    Entry,
    Published,
    Report,
    pair_folders,
    read_binary,
    read_picture,
)
from fluojax.data.record import Record
from fluojax.data.splits import VAL_SHARE, hash_share

IMAGES, TEST_IMAGES = 283, 70
RESIZED = "imsahlo_512x768"
SIZE = (512, 768)
_ANIMAL = re.compile(r"^([A-Za-z]+\d+[a-z]?)S\d+")


def find_records(root: Path, config: str, report: Report) -> list[Entry]:
    """All images; whole animals are validation, in the order of a hash."""
    pairs = pair_folders(
        root, root / "all_images/images", root / "all_masks/masks", report
    )
    animals = {name: animal_of(name) for name in pairs}
    if config == "by_animal":
        # A small copy has as large a test part as the whole.
        wanted = round(len(pairs) * TEST_IMAGES / IMAGES)
        held = _whole_animals(animals.values(), wanted)
        test = {name for name, animal in animals.items() if animal in held}
    else:
        test = TEST_NAMES & animals.keys()
    rest = [animal for name, animal in animals.items() if name not in test]
    val = _whole_animals(rest, round(len(rest) * VAL_SHARE))
    report.notes.append(
        f"validation: {len(val)} of {len(set(rest))} animals by a hash of their names"
    )
    entries = []
    for name, (image, mask) in pairs.items():
        split = "val" if animals[name] in val else "train"
        split = "test" if name in test else split
        entry = Entry(root, image, (mask,), name, split, animals[name], config)
        entries.append(entry)
    return entries


def animal_of(name: str) -> str:
    """`Mar19b` of `Mar19bS1C4R2_LHr_200x_y`; the name itself if it tells none."""
    match = _ANIMAL.match(name)
    return match.group(1) if match else name


def _whole_animals(animals: Iterable[str], wanted: int) -> set[str]:
    """Animals in the order of a hash until they have `wanted` images, not all."""
    counts = Counter(animals)
    chosen: set[str] = set()
    for animal in sorted(counts, key=hash_share)[:-1]:
        if sum(counts[name] for name in chosen) >= max(wanted, 1):
            break
        chosen.add(animal)
    return chosen


def read_record(entry: Entry, report: Report) -> Record:
    """Colours as stored, and the components of the mask.

    Raises:
      UnreadableFile: a file is damaged, or sizes differ.
    """
    picture = read_picture(entry.image, PUBLISHED.dtype, 3)
    instances = read_binary(entry, report)
    masks.refuse_other_size(entry.image, entry.masks[0], picture, instances)
    if entry.config == RESIZED:
        picture, instances = _resized(picture, instances, report)
        # Cells that have come to touch are still two.
        return Record(picture, instances, entry.id, entry.group, kind="instances")
    return Record(picture, instances, entry.id, entry.group, kind="binary")


def _resized(
    picture: np.ndarray, instances: np.ndarray, report: Report
) -> tuple[np.ndarray, np.ndarray]:
    from fluojax import ops

    small = ops.resize_area(picture, (*SIZE, picture.shape[-1]))
    labels, lost = ops.resize_instances(instances, SIZE)
    report.tally[f"objects lost by resizing to {SIZE[0]}x{SIZE[1]}"] += int(lost)
    return np.asarray(small), masks.to_instances(np.asarray(labels), "instances")


_CONFIG = Config(
    channels=3,
    trees=(("all_images/images", "all_masks/masks"),),
    counts={"train + val": IMAGES - TEST_IMAGES, "test": TEST_IMAGES},
)
_BY_ANIMAL = Config(3, _CONFIG.trees, {"train + val + test": IMAGES})

PUBLISHED = Published(
    name="fnc_v1",
    title="Fluorescent Neuronal Cells v1",
    configs={"authors": _CONFIG, "by_animal": _BY_ANIMAL, RESIZED: _CONFIG},
    find_records=find_records,
    read_record=read_record,
    dtype="uint8",
    scaling="fixed",
    reference="components",
    folders=("fluorescent-neuronal-cells",),
    where=(
        "https://amsacta.unibo.it/id/eprint/6706 (doi 10.1038/s41598-021-01929-5), or "
        "on Kaggle as nbroad/fluorescent-neuronal-cells"
    ),
    files="the archive with all_images and all_masks, 283 pictures in each",
    tree="""
DIR/all_images/images/Mar19bS1C4R2_LHr_200x_y.png
DIR/all_images/images/...
DIR/all_masks/masks/Mar19bS1C4R2_LHr_200x_y.png
DIR/all_masks/masks/...
     or the same below DIR/fluorescent-neuronal-cells/
""",
    licence=(
        "CC BY-SA 4.0; Morelli et al., Automating cell counting in fluorescent "
        "microscopy, Scientific Reports 11, 22920 (2021), "
        "doi 10.1038/s41598-021-01929-5"
    ),
)
