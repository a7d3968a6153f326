"""What the published data sets have in common.

A data set is a `Published`: where its files come from, how many there should be,
and two plain functions. `find_records(root, config, report)` lists entries by
looking at names (and at contents where a split depends on them);
`read_record(entry, report)` turns one of them into the record of `record.py`. No
function here needs tensorflow-datasets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fluojax.data import masks, pictures, read
from fluojax.data.record import Record
from fluojax.data.splits import hash_share
from fluojax.errors import UserError, some

UNLABELLED = "unlabelled"
_TOLD = 20  # files left out that are named one by one


@dataclass(frozen=True)
class Entry:
    """One image of a data set, its annotation and where it belongs.

    Attributes:
      root: folder of the data set, which no name below contains.
      image: its file.
      masks: files of its annotation; none for unlabelled images.
      id: relative path without suffix and without folders that all images share.
      split: "train", "val", "test" or "unlabelled".
      group: images that must stay in one split share it.
      config: the configuration that was asked for.
    """

    root: Path
    image: Path
    masks: tuple[Path, ...]
    id: str
    split: str
    group: str
    config: str

    @property
    def key(self) -> str:
        """Relative path with suffix: the same on every machine."""
        return self.image.relative_to(self.root).as_posix()


@dataclass
class Report:
    """What a user should know about a data set that was just read.

    Attributes:
      left_out: files that are not used, each with the reason.
      tally: oddities counted while reading, by description.
      notes: further lines.
      objects: how many were read.
    """

    left_out: list[str] = field(default_factory=list)
    tally: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    objects: int = 0

    def leave_out(self, path: Path, root: Path, reason: str) -> None:
        self.left_out.append(f"{path.relative_to(root).as_posix()}: {reason}")

    def lines(self) -> list[str]:
        told = [f"left out: {line}" for line in self.left_out[:_TOLD]]
        if len(self.left_out) > _TOLD:
            told.append(f"left out: {len(self.left_out) - _TOLD} more files")
        counted = [f"{count} {what}" for what, count in sorted(self.tally.items())]
        return [*self.notes, *counted, *told]


@dataclass(frozen=True)
class Config:
    """One configuration of a data set.

    Attributes:
      channels: of every image.
      trees: alternatives of folders and files that must be there.
      counts: published number of images by split; "a + b" is a sum of splits.
      objects: published number of annotated objects, if one is comparable.
    """

    channels: int
    trees: tuple[tuple[str, ...], ...]
    counts: Mapping[str, int]
    objects: int | None = None


@dataclass(frozen=True)
class Published:
    """A published data set; the first configuration is the default.

    Attributes:
      folders: names under which its files are unpacked, as published.
      where, files, tree, licence: parts of the instructions to get it.
    """

    name: str
    title: str
    configs: Mapping[str, Config]
    find_records: Callable[[Path, str, Report], list[Entry]]
    read_record: Callable[[Entry, Report], Record]
    dtype: str
    scaling: Literal["fixed", "percentile"]
    reference: Literal["components", "instances"]
    folders: tuple[str, ...]
    where: str
    files: str
    tree: str
    licence: str
    rank: int = 2

    @property
    def instructions(self) -> str:
        """Five parts: where, which files, where to put them, licence, check."""
        tree = "\n".join(f"     {line}" for line in self.tree.strip().splitlines())
        config = next(iter(self.configs))
        return (
            f"{self.title}\n"
            f"  1. Get it from {self.where}\n"
            f"  2. Files: {self.files}\n"
            "  3. Unpack them so that there are, with DIR any folder (where none is "
            f"given, ~/tensorflow_datasets/downloads/manual/{self.name}),\n{tree}\n"
            f"  4. Licence and citation: {self.licence}\n"
            f"  5. Check: fluojax check tfds:{self.name}/{config} --manual-dir DIR"
        )


def read_entries(
    published: Published, entries: Iterable[Entry], report: Report
) -> Iterator[tuple[Entry, Record]]:
    """Every entry that can be read; the others are left out with the reason."""
    for entry in entries:
        try:
            record = published.read_record(entry, report)
        except UserError as error:
            reason = str(error).replace(f"{entry.root}/", "")
            report.left_out.append(reason)
        else:
            report.objects += int(record.instances.max(initial=0))
            yield entry, record


def count_lines(
    published: Published, config: str, images: Mapping[str, int], objects: int
) -> list[str]:
    """A warning where numbers are not the published ones: small copies are fine."""
    expected = published.configs[config]
    found = {
        name: sum(images.get(split, 0) for split in name.split(" + "))
        for name in expected.counts
    }
    differing = [
        f"{name} {found[name]} images (published {number})"
        for name, number in expected.counts.items()
        if found[name] != number
    ]
    if expected.objects not in (None, objects):
        differing.append(f"{objects} objects (published {expected.objects})")
    return [f"warning: not the published counts: {some(differing)}"] * bool(differing)


# --- pairs of files ---------------------------------------------------------------


def list_images(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files of a folder by their name without suffixes, in the order of names.

    Raises:
      UserError: two files differ by their suffix only.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        name = stem_of(path.name)
        if name in found:
            raise UserError(
                f"{folder}: {found[name].name} and {path.name} are the same image "
                "twice; keep one of each"
            )
        found[name] = path
    return found


def stem_of(name: str) -> str:
    """A name without its suffixes, also of `x.png.tiff`; other dots stay."""
    path = Path(name)
    while path.suffix.lower() in read.IMAGE_SUFFIXES:
        path = path.with_suffix("")
    return path.name


def pair_folders(
    root: Path, images: Path, mask_folder: Path, report: Report
) -> dict[str, tuple[Path, Path]]:
    """Images and masks of one name; what stays alone is left out."""
    pictures_by_name = list_images(images, read.IMAGE_SUFFIXES)
    masks_by_name = list_images(mask_folder, read.MASK_SUFFIXES)
    for name in sorted(pictures_by_name.keys() - masks_by_name.keys()):
        report.leave_out(pictures_by_name[name], root, "no mask of this name")
    for name in sorted(masks_by_name.keys() - pictures_by_name.keys()):
        report.leave_out(masks_by_name[name], root, "no image of this name")
    return {
        name: (path, masks_by_name[name])
        for name, path in pictures_by_name.items()
        if name in masks_by_name
    }


def held_out(groups: Iterable[str], share: float, salt: str = "") -> set[str]:
    """Groups of which the hash is below `share`: never none nor all of several."""
    shares = {group: hash_share(group, salt) for group in groups}
    if len(shares) < 2:
        return set()
    chosen = {group for group, value in shares.items() if value < share}
    if not chosen or len(chosen) == len(shares):
        chosen = {min(shares, key=shares.get)}
    return chosen


# --- contents ---------------------------------------------------------------------


def read_picture(path: Path, dtype: str, channels: int) -> np.ndarray:
    """`[H, W, channels]` in `dtype`; grey is repeated where colours are stored.

    Raises:
      UnreadableFile: colours where one channel is needed, or a wider type.
    """
    picture = pictures.as_picture(path, *read.read_image(path))
    if picture.shape[-1] == 1 < channels:
        picture = np.repeat(picture, channels, axis=-1)
    if picture.shape[-1] != channels:
        raise read.UnreadableFile(
            f"{path}: {picture.shape[-1]} channels, {channels} needed"
        )
    if not np.can_cast(picture.dtype, dtype):
        raise read.UnreadableFile(f"{path}: {picture.dtype} values, {dtype} needed")
    return picture.astype(dtype, copy=False)


def read_binary(entry: Entry, report: Report) -> np.ndarray:
    """The components of a mask file; one far from the full value is reported."""
    (path,) = entry.masks
    plane = masks.read_mask_plane(path)
    top = plane.max(initial=0)
    if plane.dtype.kind == "u" and 1 < top < np.iinfo(plane.dtype).max / 2:
        report.notes.append(
            f"{entry.key}: its mask stays at {top} or below, cut at half of that"
        )
    return masks.to_instances(plane, "binary")


def count_torn(instances: np.ndarray, report: Report) -> None:
    """Counts objects that lie in several pieces; each stays one object."""
    torn = masks.count_pieces(instances) - int(instances.max(initial=0))
    if torn > 0:
        report.tally["pieces torn off from objects, kept with them"] += torn


def unlabelled(entry: Entry, picture: np.ndarray, spacing=None) -> Record:
    """The record of an image without annotation."""
    empty = np.zeros(picture.shape[:-1], np.int32)
    spacing = spacing or (1.0,) * empty.ndim
    return Record(picture, empty, entry.id, entry.group, False, spacing=spacing)
