"""Which files of a folder belong together, by their names alone.

Every known layout is tried in turn; the first that pairs an image with a mask
wins. The order of what is found depends on no system and no locale.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import read
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
    "(a.tif, a_masks.tif); for other endings --mask-suffix _x"
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


def split_of(relative: PurePosixPath) -> str | None:
    """The split that a folder above the file names, None without one."""
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


def record_id(root: Path, image: Path) -> str:
    """Relative path without suffix: the same on every machine."""
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
                    "which with --mask-suffix _x"
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
    split = split_of(PurePosixPath(relative.as_posix()))
    return Pair(image, (mask,), record_id(root, image), split)


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
            split = split_of(PurePosixPath(folder.relative_to(root).as_posix()) / "x")
            name = folder.relative_to(root).as_posix()
            pairs.append(Pair(images[0], masks, name, split, per_cell=True))
        else:
            lonely_images += images
            lonely_masks += [] if images else masks
    return pairs, tuple(lonely_images), tuple(lonely_masks)


def folder_fingerprint(found: Found, options: DataOptions) -> str:
    """Twelve hexadecimal digits that change when a file or an option changes."""
    digest = hashlib.sha256(repr(options).encode("utf-8"))
    for pair in found.pairs:
        for path in (pair.image, *pair.masks):
            stat = path.stat()
            relative = path.relative_to(found.root).as_posix()
            digest.update(f"{relative}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]
