"""A folder of images and masks as a `Dataset`: pairs, splits, kinds, records.

`find_pairs` looks at names only, `read_folder` reads and judges. Nothing is
guessed silently: every decision is a note, every file that cannot be used is a
problem with its reason.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
IMAGE_ENDINGS = ("_img", "_image", "")
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

    Hidden files, files of systems and notebooks, texts and tables are left out.
    """
    if not root.exists():
        raise UserError(_missing_folder(root))
    if not root.is_dir():
        raise UserError(f"{root}: a file; --data needs the folder above it")
    files = []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        hidden = any(p.startswith(".") or p.lower() in _IGNORED for p in parts)
        if hidden or path.suffix.lower() in _IGNORED_SUFFIXES or path.is_dir():
            continue
        files.append(path)
    return sorted(files, key=lambda p: p.relative_to(root).as_posix())


def _missing_folder(root: Path) -> str:
    parent = root.absolute()
    while not parent.exists():
        parent = parent.parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    return (
        f"{root}: no such folder; the nearest that exists is {parent.name or '/'}/"
        + nearest(root.name, siblings)
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
        raise UserError(_no_images(root, files))
    if options.image_suffix or options.mask_suffix:
        layouts = {"suffix pairs": lambda: _suffix_pairs(root, files, options)}
    else:
        layouts = {
            "images + masks": lambda: _folder_pairs(root, files),
            "Cellpose (x, x_masks)": lambda: _suffix_pairs(root, files, options),
            "DSB2018 (one mask per cell)": lambda: _per_cell_pairs(root, files),
        }
    for name, layout in layouts.items():
        pairs, lonely_images, lonely_masks = layout()
        if pairs:
            _refuse_repeated(pairs)
            return Found(root, name, tuple(pairs), lonely_images, lonely_masks)
    masks = [p for p in files if _is_mask_name(root, p)]
    plain = [p.relative_to(root) for p in images if p not in masks]
    raise UserError(
        f"{root}: {len(plain)} images, {len(masks)} masks, 0 pairs (images: "
        f"{some(plain)}; masks: {some(m.relative_to(root) for m in masks) or 'none'}); "
        "pairs share a stem (images/a.tif, masks/a.png) or end in _masks "
        "(a.tif, a_masks.tif); for other endings --set data_options.mask_suffix=_x"
    )


def _no_images(root: Path, files: list[Path]) -> str:
    kinds = Counter(p.suffix.lower() or p.name for p in files)
    found = some(f"{n} x {kind}" for kind, n in kinds.most_common()) or "nothing"
    vendor = any(kind in read.VENDOR_SUFFIXES for kind in kinds)
    return (
        f"no images in {root}: found {found}; readable are .tif .tiff .png .jpg .npy"
        + ("; convert microscope formats with Fiji or bioio" if vendor else "")
    )


def _is_mask_name(root: Path, path: Path) -> bool:
    below = path.relative_to(root).parts[:-1]
    return path.stem.endswith(MASK_ENDINGS) or any(p in MASK_FOLDERS for p in below)


def _split_of(relative: PurePosixPath) -> str | None:
    for part in relative.parts[:-1]:
        if part.lower() in SPLIT_FOLDERS:
            return SPLIT_FOLDERS[part.lower()]
    return None


def _refuse_repeated(pairs: Iterable[Pair]) -> None:
    counts = Counter(pair.id for pair in pairs)
    repeated = [name for name, n in counts.items() if n > 1]
    if repeated:
        raise UserError(
            f"the same image twice, with different suffixes: {some(repeated)}; "
            "keep one of each"
        )


def _id(root: Path, image: Path) -> str:
    return image.relative_to(root).with_suffix("").as_posix()


Layout = tuple[list[Pair], tuple[Path, ...], tuple[Path, ...]]


def _folder_pairs(root: Path, files: list[Path]) -> Layout:
    """`images/x.*` beside `masks/x.*`, below any folders, split by their names."""
    pairs, used = [], set()
    lonely_images = []
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    for folder, images in by_folder.items():
        if folder.name.lower() not in IMAGE_FOLDERS:
            continue
        masks: dict[str, Path] = {}
        for name in MASK_FOLDERS:
            for path in by_folder.get(folder.parent / name, []):
                if path.suffix.lower() in read.MASK_SUFFIXES | {".jpg", ".jpeg"}:
                    masks.setdefault(path.stem, path)
        for image in images:
            if image.suffix.lower() not in read.IMAGE_SUFFIXES:
                continue
            mask = masks.get(image.stem)
            for ending in MASK_ENDINGS:
                mask = mask or masks.get(image.stem + ending)
            if mask is None:
                lonely_images.append(image)
                continue
            used.add(mask)
            split = _split_of(PurePosixPath(image.relative_to(root).as_posix()))
            pairs.append(Pair(image, (mask,), _id(root, image), split))
    masks_seen = [
        p
        for folder, paths in by_folder.items()
        for p in paths
        if folder.relative_to(root).as_posix().endswith(MASK_FOLDERS)
        and p.suffix.lower() in read.MASK_SUFFIXES
    ]
    lonely_masks = tuple(p for p in masks_seen if p not in used)
    return pairs, tuple(lonely_images), lonely_masks


def _suffix_pairs(root: Path, files: list[Path], options: DataOptions) -> Layout:
    """`x.tif` with `x_masks.tif` in one folder, or the endings the user names."""
    mask_endings = (options.mask_suffix,) if options.mask_suffix else MASK_ENDINGS
    image_endings = (options.image_suffix,) if options.image_suffix else IMAGE_ENDINGS
    masks, images = {}, {}
    for path in files:
        suffix = path.suffix.lower()
        ending = next((e for e in mask_endings if path.stem.endswith(e)), None)
        if ending and suffix in read.MASK_SUFFIXES:
            masks.setdefault((path.parent, path.stem.removesuffix(ending)), path)
        elif suffix in read.IMAGE_SUFFIXES and not path.stem.endswith(OUTPUT_ENDINGS):
            ending = next((e for e in image_endings if path.stem.endswith(e)), None)
            if ending is not None:
                stem = path.stem.removesuffix(ending)
                images.setdefault((path.parent, stem), path)
    pairs = []
    for key, image in images.items():
        if key in masks:
            split = _split_of(PurePosixPath(image.relative_to(root).as_posix()))
            pairs.append(Pair(image, (masks[key],), _id(root, image), split))
    lonely_images = tuple(p for key, p in images.items() if key not in masks)
    lonely_masks = tuple(p for key, p in masks.items() if key not in images)
    return pairs, lonely_images, lonely_masks


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
        if len(images) == 1 and masks:
            split = _split_of(PurePosixPath(folder.relative_to(root).as_posix()) / "x")
            name = folder.relative_to(root).as_posix()
            pairs.append(Pair(images[0], masks, name, split))
        else:
            lonely_images += images
            lonely_masks += [] if images else masks
    return pairs, tuple(lonely_images), tuple(lonely_masks)


# --- contents ---------------------------------------------------------------------


def read_folder(
    root: str | Path, options: DataOptions = DEFAULT, *, strict: bool = True
) -> tuple[Dataset, list[str]]:
    """Everything a folder holds, and the problems met, one line each.

    With `strict`, problems are refused as training must refuse them (unless
    `options.skip_bad`); without, the readable images come back all the same.
    """
    found = find_pairs(root, options)
    notes = [f"layout: {found.layout}, {len(found.pairs)} pairs"]
    problems = _leftovers(found, options, notes)
    with ThreadPoolExecutor() as pool:
        results = list(
            pool.map(lambda pair: _read_pair(pair, found, options), found.pairs)
        )
    problems += [text for text in results if isinstance(text, str)]
    read_pairs = [result for result in results if not isinstance(result, str)]
    if not read_pairs:
        raise UserError(f"{root}: no readable pair: {some(problems, 3)}")
    if problems and strict and not options.skip_bad:
        raise UserError(
            f"{root}: {len(problems)} problems: {some(problems, 5)}; mend them, or "
            "leave these files out with --set data_options.skip_bad=true"
        )
    kind = _decide_kind([plane for _, _, plane in read_pairs], options, notes)
    records = _records(read_pairs, kind, options, notes)
    problems += _judge(records, strict, notes)
    splits = split_records(records, [pair.split for pair, _, _ in read_pairs], notes)
    dataset = Dataset(Path(root).name, splits, notes=tuple(notes))
    return dataset, problems


def _leftovers(found: Found, options: DataOptions, notes: list[str]) -> list[str]:
    def relative(paths):
        return some(path.relative_to(found.root) for path in paths)

    problems = []
    images, masks = found.images_without_mask, found.masks_without_image
    if images:
        total = len(found.pairs) + len(images)
        line = f"{len(images)} of {total} images without mask: {relative(images)}"
        few = len(images) <= 0.1 * total
        (notes if few else problems).append(line)
    if masks:
        notes.append(f"{len(masks)} masks without image: {relative(masks)}")
    return problems


def _read_pair(pair: Pair, found: Found, options: DataOptions):
    """(pair, picture, mask plane), or the reason why not."""
    try:
        array, axes = read.read_image(pair.image, max_pixels=options.max_pixels)
        picture = read.as_picture(
            pair.image,
            array,
            axes,
            channel=options.channel,
            z=options.z,
            given_axes=options.axes,
        )
        plane = _read_masks(pair, options)
        _refuse_other_size(pair, picture, plane)
        return pair, picture, plane
    except UserError as error:
        return str(error).replace(f"{found.root}/", "")


def _read_masks(pair: Pair, options: DataOptions) -> np.ndarray:
    if len(pair.masks) == 1:
        path = pair.masks[0]
        if read.file_type(path) == "jpeg":
            values = len(np.unique(read.read_image(path)[0]))
            raise read.UnreadableFile(
                f"{path}: JPEG blurs labels: {values} different values; save masks "
                "as PNG or TIFF"
            )
        return read.read_mask_plane(path, max_pixels=options.max_pixels)
    plane = None
    for label, path in enumerate(pair.masks, start=1):
        one = read.read_mask_plane(path, max_pixels=options.max_pixels)
        if plane is None:
            plane = np.zeros(one.shape, np.int32)
        if one.shape != plane.shape:
            raise read.UnreadableFile(
                f"{path}: {one.shape}, other masks of the image {plane.shape}"
            )
        plane[one >= max(one.max(initial=0) / 2, 1)] = label
    return plane


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
    planes: list[np.ndarray], options: DataOptions, notes: list[str]
) -> read.MaskKind:
    """One kind for the whole folder: a file with a single cell looks binary."""
    if options.mask_kind != "auto":
        return options.mask_kind
    filled = [plane for plane in planes if plane.any()]
    single = all(read.single_valued(p) or read.looks_soft(p) for p in filled)
    values = {int(p.max()) for p in filled}
    one_value = len(values) == 1 or values <= {1, 255, 65535}
    if not (single and one_value and filled):
        notes.append(f"masks: one value per cell in {len(filled)} files (instances)")
        return "instances"
    notes.append(
        f"masks: 0 and {some(sorted(values))}, read as binary; cells are the 8-connected "
        "components, so touching cells are merged; for separate cells save labels 1..N"
    )
    return "binary"


def _records(read_pairs, kind: read.MaskKind, options: DataOptions, notes: list[str]):
    records = []
    gaps = 0
    for pair, picture, plane in read_pairs:
        per_cell = len(pair.masks) > 1
        this = "instances" if per_cell else kind
        instances = read.to_instances(plane, this)
        gaps += this == "instances" and int(plane.max(initial=0)) != instances.max()
        records.append(
            Record(picture, instances, pair.id, _group(pair.id, options), kind=this)
        )
    if gaps:
        notes.append(f"labels with gaps in {gaps} files, relabelled 1..N")
    return records


def _group(record_id: str, options: DataOptions) -> str:
    if not options.group:
        return record_id
    try:
        match = re.search(options.group, record_id)
    except re.error as error:
        raise UserError(f"data_options.group: {options.group!r}: {error}") from error
    return match.group(0) if match else record_id


def _judge(records: list[Record], strict: bool, notes: list[str]) -> list[str]:
    """Notes and refusals about contents: channels, dtypes, empty or full masks."""
    problems = []
    channels = Counter(r.image.shape[-1] for r in records)
    if len(channels) > 1:
        table = some(f"{n} images with {c}" for c, n in sorted(channels.items()))
        problems.append(
            f"channel numbers differ: {table}; choose one with "
            "--set data_options.channel=N"
        )
        if strict:
            raise UserError(problems[-1])
    dtypes = Counter(str(r.image.dtype) for r in records)
    if len(dtypes) > 1:
        notes.append(
            "mixed types: " + some(f"{d} ({n} files)" for d, n in dtypes.items())
        )
    constant = [r.id for r in records if r.image.min() == r.image.max()]
    if constant:
        notes.append(f"{len(constant)} constant images: {some(constant)}")
    shares = {r.id: float((r.instances > 0).mean()) for r in records}
    empty = [name for name, share in shares.items() if share == 0]
    if len(empty) == len(records):
        problems.append("every mask is empty: there is nothing to learn")
        if strict:
            raise UserError(problems[-1])
    elif empty:
        notes.append(f"{len(empty)} images without cells: {some(empty)}")
    full = [name for name, share in shares.items() if share > 0.5]
    if full:
        notes.append(
            f"more than 50 % foreground in {len(full)} images, inverted? {some(full)}"
        )
    return problems


# --- splits -----------------------------------------------------------------------


def hash_share(group: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256((salt + group).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_records(
    records: list[Record], given: list[str | None], notes: list[str]
) -> dict[str, list[Record]]:
    """Train, val and test: as the folders say, validation by a hash of the group."""
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for record, split in zip(records, given, strict=True):
        splits[split or "train"].append(record)
    if not splits["train"] and (splits["val"] or splits["test"]):
        notes.append("no training images: only val or test folders were found")
        return splits
    if not splits["val"]:
        splits["train"], splits["val"] = _held_out(splits["train"], notes)
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
        parts.append(
            Record(
                record.image[window],
                read.to_instances(record.instances[window], "instances"),
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
