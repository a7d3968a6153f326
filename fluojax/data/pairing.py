"""Which files of a folder belong together, by their names alone.

Every known layout is tried in turn; the first that pairs an image with a mask
wins. The order of what is found depends on no system and no locale.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import layouts, read
from fluojax.data.layouts import MASK_ENDINGS, MASK_FOLDERS, Pair
from fluojax.errors import UserError, nearest, some

_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
_IGNORED_SUFFIXES = {".txt", ".csv", ".json", ".md", ".xml", ".zip", ".geojson"}


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

    files: list[Path] = []
    met: dict[str, Path] = {}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        # One folder under two names would put its images into two splits; links
        # that cross would make many more of them.
        _refuse_second_name(root, Path(folder), met)
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


def _refuse_second_name(root: Path, path: Path, met: dict[str, Path]) -> None:
    first = met.setdefault(os.path.realpath(path), path)
    if first != path:
        names = " and ".join(p.relative_to(root).as_posix() for p in (first, path))
        raise UserError(
            f"{root}: {names} are one, by a link; its images would count twice and "
            "may lie in two splits; remove the link"
        )


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
    for name, layout in _layouts(root, files, options).items():
        pairs, lonely_images, lonely_masks = layout()
        if pairs:
            _refuse_repeated(root, pairs)
            _refuse_linked_images(root, pairs)
            return Found(root, name, tuple(pairs), lonely_images, lonely_masks)
    raise UserError(_no_pairs(root, files, options))


def _refuse_linked_images(root: Path, pairs: list[Pair]) -> None:
    images = [path for pair in pairs for path in (pair.image, *pair.channels)]
    if any(map(os.path.islink, images)):
        met: dict[str, Path] = {}
        for path in images:
            _refuse_second_name(root, path, met)


def _layouts(
    root: Path, files: list[Path], options: DataOptions
) -> dict[str, Callable[[], layouts.Layout]]:
    """Layouts in the order in which they are tried; endings rule out some."""
    folders = {"images + masks": lambda: layouts.folder_pairs(root, files, options)}
    suffixes = partial(layouts.suffix_pairs, root, files, options)
    if options.image_suffix or options.mask_suffix:
        return folders | {"suffix pairs": suffixes}
    return folders | {
        "Cellpose (x, x_masks)": suffixes,
        "nnU-Net (imagesTr, labelsTr)": lambda: layouts.nnunet_pairs(root, files),
        "DSB2018 (one mask per cell)": lambda: layouts.per_cell_pairs(root, files),
        "SMP (train, trainannot)": lambda: layouts.annot_pairs(root, files),
    }


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


def folder_fingerprint(found: Found, options: DataOptions) -> str:
    """Twelve hexadecimal digits that change when a file or an option changes."""
    digest = hashlib.sha256(repr(options).encode("utf-8"))
    paths = [
        p for pair in found.pairs for p in (pair.image, *pair.channels, *pair.masks)
    ]
    for path in (*paths, *found.images_without_mask, *found.masks_without_image):
        relative = path.relative_to(found.root).as_posix()
        digest.update(f"{relative}|{_stamp(path)}\n".encode())
    return digest.hexdigest()[:12]


def _stamp(path: Path) -> str:
    """Size and time of a file; reading it will tell if it is not there."""
    try:
        stat = path.stat()
    except OSError as error:
        return str(error.errno)
    return f"{stat.st_size}|{stat.st_mtime_ns}"
