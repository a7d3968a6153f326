"""What the name of a file says: its suffix, its stem, and the key by which it pairs.

One rule for training, checking, scoring and prediction. A suffix is what follows
the last dot; `.ome.tif` and its kind are one suffix, and all other dots belong to
the name: `P1-1.8_ROI2.ome.tif` is `P1-1.8_ROI2`.
"""

from pathlib import Path

MASK_ENDINGS = (
    "_cp_masks",
    "_masks",
    "_mask",
    "_labels",
    "_label",
    "_instances",
    "_gt",
    "_seg",
)
_DOUBLE_SUFFIXES = (".ome.tif", ".ome.tiff", ".nii.gz", ".ome.zarr")


def suffix(path: str | Path) -> str:
    """The suffix in lower case with its dot, "" for a name without one."""
    name = Path(path).name.lower()
    double = (s for s in _DOUBLE_SUFFIXES if name.endswith(s) and name != s)
    return next(double, Path(name).suffix)


def stem(path: str | Path) -> str:
    """The name without its suffix."""
    name = Path(path).name
    return name[: len(name) - len(suffix(name))]


def without_ending(name: str, endings: tuple[str, ...] = MASK_ENDINGS) -> str:
    """A stem without the longest of the endings; a stem of an ending alone stays."""
    found = [e for e in endings if name.endswith(e) and name != e]
    return name.removesuffix(max(found, key=len, default=""))


def key(path: Path, root: Path) -> str:
    """By which an image, its mask and its prediction pair: `well/img3`.

    The path relative to the folder that was named, without suffix and without the
    ending of a mask, with forward slashes: equal names in sub-folders differ.
    """
    folder = path.parent.relative_to(root)
    return (folder / without_ending(stem(path))).as_posix()
