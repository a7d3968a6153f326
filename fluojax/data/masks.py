"""From a mask file to instances 1..N."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from fluojax.data.pictures import has_alpha
from fluojax.data.read import MAX_PIXELS, UnreadableFile, read_mask_array

MaskKind = Literal["instances", "binary"]
ColourKind = Literal["colours"]  # one colour, one cell: for single files only


def read_mask_plane(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """`[H, W]` values of a mask file, palette indices kept.

    Whole numbers come back as integers. Fractions in [0, 1] stay floating point:
    they are soft masks, for kind "binary" alone.

    Raises:
      UnreadableFile: colours, fractions outside [0, 1], negative values, or a
        stack.
    """
    array, axes = read_mask_array(path, max_pixels=max_pixels)
    if axes.endswith("S"):
        colours = array[..., :-1] if has_alpha(array, axes) else array
        if not (colours[..., :1] == colours[..., 1:]).all():
            raise UnreadableFile(
                f"{path}: {_num_colours(colours)} colours; a mask has one channel with "
                "one value per cell"
            )
        array, axes = colours[..., 0], axes[:-1]
    if array.ndim != 2:
        raise UnreadableFile(
            f"{path}: shape {array.shape}, axes {axes}; a mask is [rows, columns]"
        )
    return _as_label_values(path, array)


def _num_colours(colours: np.ndarray) -> str:
    """How many there are; of large images those of the first million pixels."""
    pixels = colours.reshape(-1, colours.shape[-1])
    count = len(np.unique(pixels[:1_000_000], axis=0))
    return f"at least {count}" if len(pixels) > 1_000_000 else str(count)


def _as_label_values(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnreadableFile(f"{path}: NaN or infinite values in a mask")
        rounded = np.rint(array)
        if np.abs(array - rounded).max() <= 1e-6 and np.abs(rounded).max() < 2**53:
            array = rounded.astype(np.int64)
        elif array.min() < 0 or array.max() > 1:
            values = ", ".join(f"{v:g}" for v in np.unique(array)[:5])
            raise UnreadableFile(
                f"{path}: fractions such as {values}; labels are whole numbers"
            )
    if array.size and array.min() < 0:
        raise UnreadableFile(f"{path}: negative labels (lowest {array.min()})")
    return array


def refuse_other_size(
    image: Path, mask: Path, picture: np.ndarray, plane: np.ndarray
) -> None:
    """Raises UnreadableFile where an image `[*S, C]` and its mask differ in size."""
    size = picture.shape[:-1]
    if plane.shape == size:
        return
    hint = (
        "the mask is transposed" if plane.shape == size[::-1] else "both need one size"
    )
    raise UnreadableFile(
        f"{image}: {_times(size)}, its mask {mask.name} {_times(plane.shape)}; {hint}"
    )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def refuse_fractions(path: Path, plane: np.ndarray) -> None:
    """Raises UnreadableFile for a soft mask where cells have whole numbers."""
    if plane.dtype.kind == "f":
        values = ", ".join(f"{v:g}" for v in np.unique(plane[plane > 0])[:5])
        raise UnreadableFile(
            f"{path}: fractions such as {values}; labels are whole numbers; for a soft "
            "mask, cut at half of its maximum: --mask-kind binary"
        )


def looks_soft(plane: np.ndarray) -> bool:
    """A binary mask with soft edges: many values, most of them the full one."""
    full = plane.max(initial=0)
    if full == 0 or full not in (1, 255, 65535):
        return False
    inside = plane[plane > 0]
    return (inside == full).mean() >= 0.6


def single_valued(plane: np.ndarray) -> bool:
    """At most one value besides 0."""
    inside = plane[plane > 0]
    return inside.size == 0 or inside.min() == inside.max()


def foreground(plane: np.ndarray) -> np.ndarray:
    """At least half of the file's own maximum; nowhere if that is 0."""
    return plane >= max(plane.max(initial=0) / 2, np.finfo(float).tiny)


def count_pieces(instances: np.ndarray) -> int:
    """8-connected pieces of equal label; more than labels if some are torn."""
    from skimage import measure

    return int(measure.label(instances, background=0, connectivity=2).max(initial=0))


def to_instances(plane: np.ndarray, kind: MaskKind) -> np.ndarray:
    """Mask values as int32 labels 1..N without gaps.

    "binary": at least half of the file's own maximum is foreground, its
    8-connected components are the cells. "instances": every value but 0 is one
    cell, also where it lies in several pieces.
    """
    if kind == "binary":
        from scipy import ndimage

        labels, _ = ndimage.label(foreground(plane), np.ones((3,) * plane.ndim))
        return labels.astype(np.int32)
    values, inverse = np.unique(plane, return_inverse=True)
    inverse = inverse.reshape(plane.shape)
    # Without a background pixel the smallest value is a cell like any other.
    return (inverse + (values[0] != 0)).astype(np.int32)


def equal_values(plane: np.ndarray) -> np.ndarray:
    """Instances 1..N: pieces, joined also over corners, of one value other than 0.

    For masks that use a value again for cells that do not touch.
    """
    from skimage import measure

    labels = measure.label(plane, background=0, connectivity=plane.ndim)
    return labels.astype(np.int32)


def read_colours(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """`[H, W]` one whole number per colour of a mask, 0 for black; alpha is dropped.

    Raises:
      UnreadableFile: neither colours nor one plane.
    """
    array, axes = read_mask_array(path, max_pixels=max_pixels)
    if has_alpha(array, axes):
        array = array[..., :-1]
    if array.dtype.kind not in "bui" or array.ndim != 2 + axes.endswith("S"):
        raise UnreadableFile(f"{path}: {array.dtype}, axes {axes}; no colour mask")
    colours = array if axes.endswith("S") else array[..., None]
    flat = colours.reshape(-1, colours.shape[-1])
    values, inverse = np.unique(flat, axis=0, return_inverse=True)
    return (inverse + values[0].any()).reshape(colours.shape[:2])


def read_cell_masks(
    paths: Iterable[Path], *, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """`[H, W]` int32 from one mask file per cell, k for the k-th; later ones on top.

    Raises:
      UnreadableFile: see `read_mask_plane`, or files of different sizes.
    """
    cells = None
    for label, path in enumerate(paths, start=1):
        plane = read_mask_plane(path, max_pixels=max_pixels)
        if cells is None:
            cells = np.zeros(plane.shape, np.int32)
        if plane.shape != cells.shape:
            raise UnreadableFile(
                f"{path}: {plane.shape}, other masks of the image {cells.shape}"
            )
        cells[foreground(plane)] = label
    return cells


def read_mask(path: str | Path, kind: MaskKind | ColourKind) -> np.ndarray:
    """One mask file as int32 instances 1..N; see `to_instances`.

    With "colours" every colour but black is a cell.

    Raises:
      UnreadableFile: see `read_mask_plane`, `refuse_fractions`, `read_colours`.
    """
    path = Path(path)
    if kind == "colours":
        return to_instances(read_colours(path), "instances")
    plane = read_mask_plane(path)
    if kind == "instances":
        refuse_fractions(path, plane)
    return to_instances(plane, kind)
