"""The known layouts of folders: which image belongs to which mask, by names alone.

Each function takes the files of a folder and gives pairs, images without mask and
masks without image; where the names mean another layout it gives no pairs.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fluojax.config import DataOptions
from fluojax.data import read
from fluojax.errors import UserError, some

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


@dataclass(frozen=True)
class Pair:
    """An image and its mask files (several: one per cell; none: unlabelled).

    `channels` are the files of further channels, in order.
    """

    image: Path
    masks: tuple[Path, ...]
    id: str
    split: str | None
    per_cell: bool = False
    channels: tuple[Path, ...] = ()


def split_of(relative: PurePosixPath) -> str | None:
    """The split that a folder above the file names, None without one."""
    for part in relative.parts[:-1]:
        if part.lower() in SPLIT_FOLDERS:
            return SPLIT_FOLDERS[part.lower()]
    return None


def record_id(root: Path, image: Path) -> str:
    """Relative path without suffix: the same on every machine."""
    return image.relative_to(root).with_suffix("").as_posix()


# Pairs, images without mask, masks without image.
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
            _refuse_rivals(root, rivals)
            return first
    return None


def _refuse_rivals(root: Path, rivals: list[Path]) -> None:
    if len(rivals) > 1:
        raise UserError(
            f"{root}: {len(rivals)} masks of one image: "
            f"{some(p.relative_to(root) for p in rivals)}; keep one, or say "
            "which with --mask-suffix _x"
        )


def folder_pairs(root: Path, files: list[Path], options: DataOptions) -> Layout:
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


def suffix_pairs(root: Path, files: list[Path], options: DataOptions) -> Layout:
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


def per_cell_pairs(root: Path, files: list[Path]) -> Layout:
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


_NNUNET_FOLDER = re.compile(r"(images|labels)(tr|ts)")
_CHANNEL = re.compile(r"_\d{4}$")
TEST_IMAGES = "imagests"  # of nnU-Net; they seldom have labels


def nnunet_pairs(root: Path, files: list[Path]) -> Layout:
    """`imagesTr/x_0000.png` with `labelsTr/x.png`; `_0001` is the next channel."""
    images: dict[tuple[Path, str, str], list[Path]] = {}
    labels: dict[tuple[Path, str, str], list[Path]] = {}
    for path in files:
        match = _NNUNET_FOLDER.fullmatch(path.parent.name.lower())
        if match and path.suffix.lower() in read.MASK_SUFFIXES:
            kind, part = match.groups()
            case = _CHANNEL.sub("", path.stem) if kind == "images" else path.stem
            side = images if kind == "images" else labels
            side.setdefault((path.parent.parent, part, case), []).append(path)
    pairs, lonely_images = [], []
    for key, channels in images.items():
        if key not in labels:
            lonely_images += channels[:1]
            continue
        _refuse_rivals(root, labels[key])
        first, *more = channels
        name = first.with_name(key[-1]).relative_to(root).as_posix()
        split = {"tr": "train", "ts": "test"}[key[1]]
        masks = tuple(labels[key])
        pairs.append(Pair(first, masks, name, split, channels=tuple(more)))
    lonely_masks = [p for key in labels.keys() - images.keys() for p in labels[key]]
    return pairs, tuple(lonely_images), tuple(sorted(lonely_masks))


def annot_pairs(root: Path, files: list[Path]) -> Layout:
    """`train/x.png` with `trainannot/x.png`."""
    by_folder: dict[Path, dict[str, list[Path]]] = {}
    for path in files:
        if path.suffix.lower() in _ANY_MASK:
            by_folder.setdefault(path.parent, {}).setdefault(path.stem, []).append(path)
    pairs, lonely_images, lonely_masks = [], [], []
    for folder, images in by_folder.items():
        masks = by_folder.get(folder.parent / f"{folder.name}annot", {})
        if not masks:
            continue
        for stem, paths in images.items():
            if stem in masks:
                _refuse_rivals(root, masks[stem])
                pairs += [_pair(root, image, masks[stem][0]) for image in paths]
            else:
                lonely_images += paths
        lonely_masks += [
            p for stem in masks.keys() - images.keys() for p in masks[stem]
        ]
    return pairs, tuple(lonely_images), tuple(sorted(lonely_masks))
