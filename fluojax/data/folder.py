"""A folder of images and masks as a `Dataset`: pairs, splits, kinds, records.

`find_pairs` looks at names only, `read_folder` reads and judges. Nothing is
guessed silently: every decision is a note, every file that cannot be used is a
problem with its reason.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import read
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError, nearest, some

IMAGE_FOLDERS = ("images", "imgs", "image", "raw", "rawimages")
MASK_FOLDERS = ("masks", "labels", "mask", "annotations", "groundtruth")
MASK_FOLDERS += ("ground_truths/masks",)
MASK_ENDINGS = ("_masks", "_mask", "_labels", "_label", "_instances", "_gt")
IMAGE_ENDINGS = ("_img", "_image")
SPLIT_FOLDERS = {
    "train": "train",
    "trainval": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
OUTPUT_ENDINGS = ("_overlay", "_probs", "_flows", "_cp_output", "_outlines", "_seg")
VAL_SHARE = 0.15
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
_IGNORED_SUFFIXES = {".txt", ".csv", ".json", ".md", ".xml", ".zip", ".geojson"}


@dataclass(frozen=True)
class Pair:
    """An image and its mask files (several: one per cell; none: unlabelled)."""

    image: Path
    masks: tuple[Path, ...]
    id: str
    split: str | None
    per_cell: bool = False


@dataclass(frozen=True)
class Found:
    """What the names in a folder say."""

    root: Path
    layout: str
    pairs: tuple[Pair, ...]
    images_without_mask: tuple[Path, ...]
    masks_without_image: tuple[Path, ...]


# --- names ------------------------------------------------------------------------


def list_files(root: Path) -> list[Path]:
    """Files below `root` in an order that no system or locale changes.

    Hidden files, files of systems and notebooks, texts and tables are left out;
    links to folders are followed.
    """
    return [p for p in _walk(root) if p.suffix.lower() not in _IGNORED_SUFFIXES]


def _walk(root: Path) -> list[Path]:
    if not root.exists():
        raise UserError(_missing_folder(root))
    if not root.is_dir():
        raise UserError(f"{root}: a file; --data needs the folder above it")

    def refuse(error: OSError):
        raise UserError(f"{error.filename}: not readable: {error.strerror}")

    files = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        folders[:] = [
            n for n in folders if not _ignored(n) and not _leads_back(folder, n)
        ]
        files += [Path(folder, name) for name in names if not _ignored(name)]
    return sorted(files, key=lambda p: p.relative_to(root).as_posix())


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def _leads_back(folder: str, name: str) -> bool:
    """A link to a folder above itself, which a walk would follow for ever."""
    target = os.path.realpath(os.path.join(folder, name))
    return f"{os.path.realpath(folder)}{os.sep}".startswith(f"{target}{os.sep}")


def _missing_folder(root: Path) -> str:
    missing = root.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    parent = missing.parent
    readable = parent.is_dir() and os.access(parent, os.R_OK)
    siblings = [p.name for p in parent.iterdir()] if readable else []
    return (
        f"{root}: no such folder; the nearest that exists is {parent.name or ''}/"
        + nearest(missing.name, siblings)
    )


def find_pairs(root: str | Path, options: DataOptions = DEFAULT) -> Found:
    """Pairs images with masks by the first known layout that pairs at least one.

    Raises:
      UserError: the folder is missing, holds no images, or nothing pairs.
    """
    root = Path(root)
    files = list_files(root)
    images = [p for p in files if p.suffix.lower() in read.IMAGE_SUFFIXES]
    if not images:
        raise UserError(_no_images(root))
    layouts = {
        "images + masks": lambda: _folder_pairs(root, files, options),
        "Cellpose (x, x_masks)": lambda: _suffix_pairs(root, files, options),
    }
    if options.image_suffix or options.mask_suffix:
        layouts["suffix pairs"] = layouts.pop("Cellpose (x, x_masks)")
    else:
        layouts["DSB2018 (one mask per cell)"] = lambda: _per_cell_pairs(root, files)
    for name, layout in layouts.items():
        pairs, lonely_images, lonely_masks = layout()
        if pairs:
            _refuse_repeated(root, pairs)
            return Found(root, name, tuple(pairs), lonely_images, lonely_masks)
    raise UserError(_no_pairs(root, files, options))


def _no_images(root: Path) -> str:
    kinds = Counter(p.suffix.lower() or p.name for p in _walk(root))
    found = some(f"{n} × {kind}" for kind, n in kinds.most_common()) or "nothing"
    vendor = any(kind in read.VENDOR_SUFFIXES for kind in kinds)
    return (
        f"no images in {root}: found {found}; readable are .tif .tiff .png .jpg .npy"
        + ("; convert microscope formats with Fiji or bioio" if vendor else "")
    )


PAIRS_ARE = (
    "pairs share a stem (images/a.tif, masks/a.png) or end in _masks "
    "(a.tif, a_masks.tif); for other endings --set data_options.mask_suffix=_x"
)


def _no_pairs(root: Path, files: list[Path], options: DataOptions) -> str:
    endings = (options.mask_suffix or "_masks", *MASK_ENDINGS)
    sides: dict[bool, list[Path]] = {True: [], False: []}
    for path in files:
        if path.suffix.lower() in read.IMAGE_SUFFIXES | read.MASK_SUFFIXES:
            below = [part.lower() for part in path.relative_to(root).parts[:-1]]
            is_mask = path.stem.endswith(endings) or not set(below).isdisjoint(
                MASK_FOLDERS
            )
            sides[is_mask].append(path.relative_to(root))
    return (
        f"{root}: {len(sides[False])} images, {len(sides[True])} masks, 0 pairs "
        f"(images: {some(sides[False]) or 'none'}; masks: "
        f"{some(sides[True]) or 'none'}); {PAIRS_ARE}"
    )


def _split_of(relative: PurePosixPath) -> str | None:
    for part in relative.parts[:-1]:
        if part.lower() in SPLIT_FOLDERS:
            return SPLIT_FOLDERS[part.lower()]
    return None


def _refuse_repeated(root: Path, pairs: Iterable[Pair]) -> None:
    by_id: dict[str, list[Path]] = {}
    by_mask: dict[Path, list[Path]] = {}
    for pair in pairs:
        by_id.setdefault(pair.id, []).append(pair.image)
        by_mask.setdefault(pair.masks[0], []).append(pair.image)
    for images in [*by_id.values(), *by_mask.values()]:
        if len(images) > 1:
            names = some(image.relative_to(root) for image in images)
            raise UserError(f"{root}: the same image twice: {names}; keep one of each")


def _id(root: Path, image: Path) -> str:
    return image.relative_to(root).with_suffix("").as_posix()


Layout = tuple[list[Pair], tuple[Path, ...], tuple[Path, ...]]
_ANY_MASK = read.MASK_SUFFIXES | {".jpg", ".jpeg"}  # JPEG is refused when read


def _bases(stem: str, options: DataOptions) -> list[str]:
    """What the name of an image's mask may begin with; none for other files."""
    if options.image_suffix:
        short = stem.removesuffix(options.image_suffix)
        return [short, stem] if short != stem else []
    short = [stem.removesuffix(e) for e in IMAGE_ENDINGS if stem.endswith(e)]
    return [stem, *short]


def _mask_of(
    root: Path, stem: str, masks: dict[str, list[Path]], endings, options: DataOptions
) -> Path | None:
    """The mask of an image; `masks` are candidates by stem, the best folder first.

    Raises:
      UserError: several could be meant.
    """
    for base in _bases(stem, options):
        found = [masks[base + ending] for ending in endings if base + ending in masks]
        if base in masks and "" in endings:
            found = [masks[base]]  # an equal stem needs no ending
        if found:
            first = found[0][0]
            rivals = [p for paths in found for p in paths if p.parent == first.parent]
            if len(rivals) > 1:
                raise UserError(
                    f"{root}: {len(rivals)} masks of one image: "
                    f"{some(p.relative_to(root) for p in rivals)}; keep one, or say "
                    "which with --set data_options.mask_suffix=_x"
                )
            return first
    return None


def _folder_pairs(root: Path, files: list[Path], options: DataOptions) -> Layout:
    """`images/x.*` beside `masks/x.*`, below any folders, split by their names."""
    endings = (options.mask_suffix,) if options.mask_suffix else ("", *MASK_ENDINGS)
    by_folder: dict[str, list[Path]] = {}
    for path in files:
        folder = path.parent.relative_to(root).as_posix()
        by_folder.setdefault(folder.lower(), []).append(path)
    pairs, lonely_images, lonely_masks = [], [], []
    for parent in sorted({_above(folder) for folder in by_folder} - {None}):
        images = [
            p
            for name in IMAGE_FOLDERS
            for p in by_folder.get(f"{parent}{name}", [])
            if p.suffix.lower() in read.IMAGE_SUFFIXES and _bases(p.stem, options)
        ]
        masks: dict[str, list[Path]] = {}
        for name in MASK_FOLDERS:
            for path in by_folder.get(f"{parent}{name}", []):
                if path.suffix.lower() in _ANY_MASK:
                    masks.setdefault(path.stem, []).append(path)
        paired = set()
        for image in images:
            mask = _mask_of(root, image.stem, masks, endings, options)
            if mask is None:
                lonely_images.append(image)
                continue
            paired.add(mask.stem)
            pairs.append(_pair(root, image, mask))
        lonely_masks += [p for stem in masks if stem not in paired for p in masks[stem]]
    return pairs, tuple(lonely_images), tuple(lonely_masks)


def _above(folder: str) -> str | None:
    """`a/b/` for `a/b/images`, "" for `images`, None for other folders."""
    for name in sorted((*IMAGE_FOLDERS, *MASK_FOLDERS), key=len, reverse=True):
        if folder == name or folder.endswith(f"/{name}"):
            return folder.removesuffix(name)
    return None


def _pair(root: Path, image: Path, mask: Path) -> Pair:
    relative = image.relative_to(root)
    split = _split_of(PurePosixPath(relative.as_posix()))
    return Pair(image, (mask,), _id(root, image), split)


def _suffix_pairs(root: Path, files: list[Path], options: DataOptions) -> Layout:
    """`x.tif` with `x_masks.tif` in one folder, or the endings the user names."""
    endings = (options.mask_suffix,) if options.mask_suffix else MASK_ENDINGS
    images: list[Path] = []
    masks: dict[Path, dict[str, list[Path]]] = {}
    for path in files:
        suffix = path.suffix.lower()
        if path.stem.endswith(endings) and suffix in _ANY_MASK:
            masks.setdefault(path.parent, {}).setdefault(path.stem, []).append(path)
        elif suffix in read.IMAGE_SUFFIXES and not path.stem.endswith(OUTPUT_ENDINGS):
            if _bases(path.stem, options):
                images.append(path)
    pairs, lonely_images, used = [], [], set()
    for image in images:
        near = masks.get(image.parent, {})
        mask = _mask_of(root, image.stem, near, endings, options)
        if mask is None:
            lonely_images.append(image)
        else:
            used.add(mask)
            pairs.append(_pair(root, image, mask))
    candidates = [
        p for near in masks.values() for paths in near.values() for p in paths
    ]
    lonely_masks = tuple(p for p in candidates if p not in used)
    return pairs, tuple(lonely_images), lonely_masks


def _per_cell_pairs(root: Path, files: list[Path]) -> Layout:
    """`x/images/x.png` with `x/masks/*.png`, one file per cell."""
    folders: dict[Path, dict[str, list[Path]]] = {}
    for path in files:
        if path.parent.name in ("images", "masks"):
            kinds = folders.setdefault(path.parent.parent, {"images": [], "masks": []})
            kinds[path.parent.name].append(path)
    pairs, lonely_images, lonely_masks = [], [], []
    for folder, kinds in folders.items():
        images = [p for p in kinds["images"] if p.suffix.lower() in read.IMAGE_SUFFIXES]
        masks = tuple(p for p in kinds["masks"] if p.suffix.lower() == ".png")
        # `images` and `masks` of a whole data set or split are no single image.
        whole = folder == root or folder.name.lower() in SPLIT_FOLDERS
        if len(images) == 1 and masks and not whole:
            split = _split_of(PurePosixPath(folder.relative_to(root).as_posix()) / "x")
            name = folder.relative_to(root).as_posix()
            pairs.append(Pair(images[0], masks, name, split, per_cell=True))
        else:
            lonely_images += images
            lonely_masks += [] if images else masks
    return pairs, tuple(lonely_images), tuple(lonely_masks)


# --- contents ---------------------------------------------------------------------


class _Content(NamedTuple):
    """What the files of a pair hold; no plane where there is no mask."""

    pair: Pair
    picture: np.ndarray
    plane: np.ndarray | None
    remarks: tuple[str, ...]


def read_folder(
    root: str | Path, options: DataOptions = DEFAULT, *, strict: bool = True
) -> tuple[Dataset, list[str]]:
    """Everything a folder holds, and the problems met, one line each.

    With `strict`, problems are refused as training must refuse them (files that
    cannot be used are left out with `options.skip_bad`); without, the readable
    images come back all the same.

    Raises:
      UserError: nothing can be read; with `strict`, for any problem.
    """
    found = find_pairs(root, options)
    notes = [f"layout: {found.layout}, {len(found.pairs)} pairs"]
    problems = _leftovers(found, options, notes)
    contents = _read_all(found, options, problems)
    if not contents:
        raise UserError(f"{root}: no readable pair: {_listed(problems)}")
    notes += _counted((r, c.pair.id) for c in contents for r in c.remarks)
    records = _records(contents, options, notes, problems)
    if problems and strict and not options.skip_bad:
        raise UserError(
            f"{root}: {len(problems)} problems: {_listed(problems)}; mend them, or "
            "leave these files out with --set data_options.skip_bad=true"
        )
    if problems and strict:
        notes.append(f"left out: {_listed(problems)}")
    fatal = _judge([record for record, _ in records], notes)
    if fatal and strict:
        raise UserError(f"{root}: {_listed(fatal)}")
    splits = split_records([r for r, _ in records], [s for _, s in records], notes)
    if strict and not fatal and not any(r.instances.any() for r in splits["train"]):
        if splits["train"]:
            raise UserError(f"{root}: the masks of train are empty: nothing to learn")
    return Dataset(Path(root).name, splits, notes=tuple(notes)), problems + fatal


def _listed(lines: list[str]) -> str:
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    return "; ".join(lines[:5]) + more


def _counted(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """`remark in N images: a, b, ...` for each kind of remark."""
    names: dict[str, list[str]] = {}
    for remark, name in remarks:
        names.setdefault(remark, []).append(name)
    return [f"{r} in {len(n)} images: {some(n)}" for r, n in names.items()]


def _leftovers(found: Found, options: DataOptions, notes: list[str]) -> list[str]:
    images, masks = found.images_without_mask, found.masks_without_image
    line = (
        f"{len(found.pairs) + len(images)} images, "
        f"{sum(len(p.masks) for p in found.pairs) + len(masks)} masks, "
        f"{len(found.pairs)} pairs"
    )
    for kind, paths in (
        ("images without mask", images),
        ("masks without image", masks),
    ):
        if paths:
            names = some(path.relative_to(found.root) for path in paths)
            line += f"; {len(paths)} {kind}: {names}"
    many = len(images) > 0.1 * (len(found.pairs) + len(images))
    if many and options.unlabelled == "skip":
        return [f"{line}; {PAIRS_ARE}"]
    if images or masks:
        notes.append(line)
    return []


def _read_all(found: Found, options: DataOptions, problems: list[str]):
    pairs = list(found.pairs)
    if options.unlabelled == "use":
        for image in found.images_without_mask:
            split = _split_of(PurePosixPath(image.relative_to(found.root).as_posix()))
            pairs.append(Pair(image, (), _id(found.root, image), split))
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda pair: _read_pair(pair, found, options), pairs))
    problems += [text for text in results if isinstance(text, str)]
    return [result for result in results if not isinstance(result, str)]


def _read_pair(pair: Pair, found: Found, options: DataOptions) -> _Content | str:
    """The contents, or the reason why there are none."""
    try:
        array, axes = read.read_image(pair.image, max_pixels=options.max_pixels)
        remarks = read.conversions(pair.image)
        if read.has_alpha(array, axes):
            remarks.append("alpha dropped")
        picture = read.as_picture(
            pair.image,
            array,
            axes,
            channel=options.channel,
            z=options.z,
            given_axes=options.axes,
        )
        plane = None
        if pair.masks:
            plane = _read_masks(pair, options)
            remarks += read.mask_conversions(pair.masks[0])
            _refuse_other_size(pair, picture, plane)
        return _Content(pair, picture, plane, tuple(remarks))
    except UserError as error:
        return str(error).replace(f"{found.root}/", "")


def _read_masks(pair: Pair, options: DataOptions) -> np.ndarray:
    if not pair.per_cell:
        (path,) = pair.masks
        if read.file_type(path) == "jpeg":
            values = len(np.unique(read.read_image(path)[0]))
            raise read.UnreadableFile(
                f"{path}: JPEG blurs labels: {values} different values; save masks "
                "as PNG or TIFF"
            )
        plane = read.read_mask_plane(path, max_pixels=options.max_pixels)
        if options.mask_kind != "binary":
            read.refuse_fractions(path, plane)
        return plane
    cells = None
    for label, path in enumerate(pair.masks, start=1):
        one = read.read_mask_plane(path, max_pixels=options.max_pixels)
        if cells is None:
            cells = np.zeros(one.shape, np.int32)
        if one.shape != cells.shape:
            raise read.UnreadableFile(
                f"{path}: {one.shape}, other masks of the image {cells.shape}"
            )
        cells[read.foreground(one)] = label
    return cells


def _refuse_other_size(pair: Pair, picture: np.ndarray, plane: np.ndarray) -> None:
    if plane.shape == picture.shape[:2]:
        return
    transposed = plane.shape == picture.shape[1::-1]
    raise read.UnreadableFile(
        f"{pair.image}: {picture.shape[0]}x{picture.shape[1]}, its mask "
        f"{pair.masks[0].name} {plane.shape[0]}x{plane.shape[1]}"
        + ("; the mask is transposed" if transposed else "; both need one size")
    )


def _decide_kind(
    planes: dict[str, np.ndarray], options: DataOptions, notes: list[str]
) -> read.MaskKind:
    """One kind for the whole folder: a file with a single cell looks binary."""
    if options.mask_kind != "auto":
        return options.mask_kind
    filled = {name: plane for name, plane in planes.items() if plane.any()}
    clear = {
        n for n, p in filled.items() if read.single_valued(p) or read.looks_soft(p)
    }
    values = {int(filled[name].max()) for name in clear}
    # Beside full masks, one that never comes near the full value is a smear of
    # soft edges and not a picture with dozens of cells.
    full = not values.isdisjoint((255, 65535))
    faint = [n for n in filled if n not in clear and full and _is_faint(filled[n])]
    one_value = len(values) == 1 or values <= {1, 255, 65535}
    if not filled or len(clear) + len(faint) < len(filled) or not one_value:
        most = max(
            (len(np.unique(p)) - (p == 0).any() for p in filled.values()), default=0
        )
        notes.append(f"masks: read as instances, up to {most} values in a file")
        return "instances"
    if faint:
        notes.append(
            f"{len(faint)} masks stay below half of the full value, cut at half of "
            f"their own maximum: {some(faint)}"
        )
    return "binary"


def _is_faint(plane: np.ndarray) -> bool:
    return plane.dtype.kind == "u" and plane.max() < np.iinfo(plane.dtype).max / 2


Records = list[tuple[Record, str | None]]


def _records(
    contents: list[_Content],
    options: DataOptions,
    notes: list[str],
    problems: list[str],
) -> Records:
    """Records with the split that their folder names."""
    planes = {
        c.pair.id: c.plane
        for c in contents
        if c.plane is not None and not c.pair.per_cell
    }
    kind = _decide_kind(planes, options, notes) if planes else "instances"
    records, remarks = [], []
    for pair, picture, plane, _ in contents:
        group = _group(pair.id, options)
        if plane is None:
            empty = np.zeros(picture.shape[:2], np.int32)
            record = Record(picture, empty, pair.id, group, has_labels=False)
        else:
            this = "instances" if pair.per_cell else kind
            instances = read.to_instances(plane, this)
            record = Record(picture, instances, pair.id, group, kind=this)
            if this == "instances":
                problem, more = _label_remarks(pair, plane, instances)
                remarks += [(remark, pair.id) for remark in more]
                if problem:
                    problems.append(problem.format(pair.masks[0].name))
                    continue
        records.append((record, pair.split))
    notes += _counted(remarks)
    if kind == "binary":
        notes.append(_binary_note(planes, [r for r, _ in records]))
    return records


def _label_remarks(
    pair: Pair, plane: np.ndarray, instances: np.ndarray
) -> tuple[str, list[str]]:
    """What is odd about a label image: a reason to refuse it, and remarks."""
    count = int(instances.max(initial=0))
    if pair.per_cell:
        hidden = len(pair.masks) > count
        return "", ["masks of cells that are empty or hidden by others"] * hidden
    remarks = []
    if int(plane.max(initial=0)) != count:
        remarks.append("labels with gaps, relabelled 1..N,")
    if plane.dtype == np.uint8 and plane.max() == 255:
        remarks.append("labels up to 255 in 8 bits (higher ones may have wrapped)")
    pieces = read.count_pieces(instances)
    if count >= 20 and pieces > 5 * count:
        text = f"{{}}: {count} values in {pieces} pieces; a picture rather than a mask?"
        return text, []
    if pieces > count:
        remarks.append("labels in several pieces, each kept as one cell,")
    return "", remarks


def _binary_note(planes: dict[str, np.ndarray], records: list[Record]) -> str:
    values = sorted({int(p.max()) for p in planes.values() if p.any()})
    per_image = np.mean([r.instances.max(initial=0) for r in records if r.has_labels])
    return (
        f"masks hold 0 and {some(values)}: read as binary; cells found by connected "
        f"components, {per_image:.1f} per image; touching cells are merged; for "
        "separate cells save labels 1..N"
    )


def _group(record_id: str, options: DataOptions) -> str:
    if not options.group:
        return record_id
    try:
        match = re.search(options.group, record_id)
    except re.error as error:
        raise UserError(f"data_options.group: {options.group!r}: {error}") from error
    return match.group(0) if match else record_id


def _judge(records: list[Record], notes: list[str]) -> list[str]:
    """Notes about contents, and what no leaving out of files can mend."""
    fatal = []
    channels = Counter(r.image.shape[-1] for r in records)
    if len(channels) > 1:
        table = some(f"{n} images with {c}" for c, n in sorted(channels.items()))
        fatal.append(
            f"channel numbers differ: {table}; choose one with "
            "--set data_options.channel=N"
        )
    dtypes = Counter(str(r.image.dtype) for r in records)
    if len(dtypes) > 1:
        told = " and ".join(f"{d} ({n} files)" for d, n in dtypes.most_common())
        notes.append(f"mixed types: {told}")
    constant = [r.id for r in records if r.image.min() == r.image.max()]
    if constant:
        notes.append(
            f"{len(constant)} constant images, skipped in training: {some(constant)}"
        )
    shares = {r.id: float((r.instances > 0).mean()) for r in records if r.has_labels}
    empty = [name for name, share in shares.items() if share == 0]
    if len(empty) == len(shares):
        fatal.append("every mask is empty: nothing to learn")
    elif empty:
        notes.append(f"{len(empty)} images without cells: {some(empty)}")
    full = [name for name, share in shares.items() if share > 0.5]
    if full:
        notes.append(
            f"more than 50 % foreground in {len(full)} images, inverted? {some(full)}"
        )
    return fatal


# --- splits -----------------------------------------------------------------------


def hash_share(group: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256((salt + group).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_records(
    records: list[Record], given: list[str | None], notes: list[str]
) -> dict[str, list[Record]]:
    """Train, val and test: as the folders say, validation by a hash of the group.

    Images without labels are never held out for validation by the hash.
    """
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for record, split in zip(records, given, strict=True):
        splits[split or "train"].append(record)
    if not splits["train"] and (splits["val"] or splits["test"]):
        notes.append("no training images: only val or test folders were found")
        return splits
    if not splits["val"]:
        labelled = [r for r in splits["train"] if r.has_labels]
        rest = [r for r in splits["train"] if not r.has_labels]
        if labelled:
            train, splits["val"] = _held_out(labelled, notes)
            splits["train"] = train + rest
    return splits


def _held_out(
    records: list[Record], notes: list[str]
) -> tuple[list[Record], list[Record]]:
    shares = {r.group: hash_share(r.group) for r in records}
    if len(shares) == 1:
        notes.append(
            "one image or group: cut into strips, the last fifth is validation; "
            "scores on it are optimistic"
        )
        strips = [_strips(r) for r in records]
        return [s[0] for s in strips], [s[1] for s in strips]
    val = {group for group, share in shares.items() if share < VAL_SHARE}
    if not val or len(val) == len(shares):
        val = {min(shares, key=shares.get)}
    notes.append(
        f"validation: {len(val)} of {len(shares)} groups by a hash of their names; "
        "tiles of one field in both parts would leak: name them with "
        "--set data_options.group=REGEX"
    )
    train = [r for r in records if r.group not in val]
    return train, [r for r in records if r.group in val]


def _strips(record: Record) -> tuple[Record, Record]:
    rows = record.image.shape[0]
    cut = max(1, min(rows - 1, round(rows * 0.8))) if rows > 1 else rows
    parts = []
    for name, window in (("top", slice(0, cut)), ("bottom", slice(cut, None))):
        if rows == 1:
            window = slice(None)
        # A component that the cut leaves in two pieces counts as two.
        plane = record.instances[window]
        plane = plane > 0 if record.kind == "binary" else plane
        parts.append(
            Record(
                record.image[window],
                read.to_instances(plane, record.kind),
                f"{record.id}#{name}",
                record.group,
                record.has_labels,
                record.kind,
                record.spacing,
            )
        )
    return parts[0], parts[1]


def folder_fingerprint(found: Found, options: DataOptions) -> str:
    """Twelve hexadecimal digits that change when a file or an option changes."""
    digest = hashlib.sha256(repr(options).encode("utf-8"))
    for pair in found.pairs:
        for path in (pair.image, *pair.masks):
            stat = path.stat()
            relative = path.relative_to(found.root).as_posix()
            digest.update(f"{relative}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]
