"""Reading image and mask files, one array out or one line of refusal.

The type of a file is decided by its first bytes, its size is checked before
its pixels are decoded, and nothing is ever unpickled.
"""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from fluojax.errors import UserError

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".npy"})
MASK_SUFFIXES = (IMAGE_SUFFIXES - {".jpg", ".jpeg"}) | {".gif"}
VENDOR_SUFFIXES = frozenset({".czi", ".nd2", ".lif", ".lsm", ".oib", ".vsi"})
MAX_PIXELS = 2_000_000_000

_MAGIC = {
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"\x93NUM": "npy",
    b"ZISR": "czi",
    b"\xda\xce\xbe\n": "nd2",
}


class UnreadableFile(UserError):
    """A file that cannot be read as what it should be; the text names it."""


def file_type(path: Path) -> str:
    """tiff, png, jpeg, gif, npy, czi, nd2 or "" by the first bytes."""
    try:
        if not path.is_file():
            raise UnreadableFile(f"{path}: not a regular file")
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    if not head:
        raise UnreadableFile(f"{path}: the file is empty")
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def read_image(
    path: str | Path, *, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, str]:
    """The array as stored, and its axes such as "YX", "YXS" or "ZCYX".

    Palette pictures are expanded to their colours and EXIF rotations are
    undone. Axes come from the metadata of a TIFF, else from the shape: two
    dimensions are YX, a last one of 3 or 4 is S (samples, RGB or RGBA), and
    anything else gets one "Q" (unknown) for each leading axis.

    Raises:
      UnreadableFile: damaged, empty, too large, or of a type we do not read.
    """
    path = Path(path)
    kind = file_type(path)
    if kind == "tiff":
        return _read_tiff(path, max_pixels)
    if kind in ("png", "jpeg", "gif"):
        return _read_pillow(path, max_pixels, palette_as_index=False)
    if kind == "npy":
        return _read_npy(path, max_pixels)
    raise _not_readable(path, kind)


def read_mask_array(
    path: str | Path, *, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, str]:
    """As `read_image`, but the indices of a palette are kept: they are labels."""
    path = Path(path)
    if file_type(path) in ("png", "gif"):
        return _read_pillow(path, max_pixels, palette_as_index=True)
    return read_image(path, max_pixels=max_pixels)


def exif_orientation(path: Path) -> int:
    """EXIF orientation of a JPEG, 1 where there is none."""
    if file_type(path) != "jpeg":
        return 1
    from PIL import Image

    with Image.open(path) as image:
        return int(image.getexif().get(0x0112, 1))


def _not_readable(path: Path, kind: str) -> UnreadableFile:
    if kind in ("czi", "nd2") or path.suffix.lower() in VENDOR_SUFFIXES:
        return UnreadableFile(
            f"{path}: a microscope's own format; convert it to TIFF with Fiji or bioio"
        )
    return UnreadableFile(
        f"{path}: not an image; readable are .tif .tiff .png .jpg .npy"
    )


def _check_size(path: Path, pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise UnreadableFile(
            f"{path}: {pixels:,} values, more than the limit of {max_pixels:,}; "
            "raise it with --set data_options.max_pixels=N if that is right"
        )
    if pixels == 0:
        raise UnreadableFile(f"{path}: holds no pixels")


def _read_tiff(path: Path, max_pixels: int) -> tuple[np.ndarray, str]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise UnreadableFile(f"{path}: a TIFF without images")
            series = tiff.series[0]
            _check_size(path, int(np.prod(series.shape)), max_pixels)
            array, axes = series.asarray(), series.axes
            page = tiff.pages[0]
            inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
                raise UnreadableFile(f"{path}: CMYK; save it as RGB or grey")
    except UnreadableFile:
        raise
    except Exception as error:  # tifffile and its codecs raise what they like
        raise UnreadableFile(f"{path}: damaged TIFF: {_reason(error)}") from error
    if inverted and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    return _squeezed(path, array, axes)


def _read_pillow(
    path: Path, max_pixels: int, palette_as_index: bool
) -> tuple[np.ndarray, str]:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Our own limit was checked against the header; Pillow's is lower.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                with Image.open(path) as image:
                    width, height = image.size
                    _check_size(path, width * height, max_pixels)
                    if image.mode == "CMYK":
                        raise UnreadableFile(f"{path}: CMYK; save it as RGB or grey")
                    if image.mode == "P" and not palette_as_index:
                        image = image.convert("RGB")
                    array = np.asarray(ImageOps.exif_transpose(image))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except UnreadableFile:
        raise
    except Exception as error:
        raise UnreadableFile(f"{path}: damaged image: {_reason(error)}") from error
    return _squeezed(path, array, "YXS"[: array.ndim])


def _read_npy(path: Path, max_pixels: int) -> tuple[np.ndarray, str]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        _check_size(path, array.size, max_pixels)
        array = np.array(array)
    except UnreadableFile:
        raise
    except Exception as error:
        raise UnreadableFile(f"{path}: damaged NPY: {_reason(error)}") from error
    colour = array.ndim >= 3 and array.shape[-1] in (3, 4)
    spatial = array.ndim - colour
    if spatial < 2:
        raise UnreadableFile(f"{path}: shape {array.shape} is no image")
    return _squeezed(path, array, "Q" * (spatial - 2) + "YX" + "S" * colour)


def _squeezed(path: Path, array: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Drops axes of length one other than rows and columns; refuses complex."""
    if array.dtype.kind not in "buif":
        raise UnreadableFile(f"{path}: {array.dtype} values; an image has real numbers")
    if len(axes) != array.ndim or "Y" not in axes or "X" not in axes:
        raise UnreadableFile(f"{path}: axes {axes} of shape {array.shape} are no image")
    keep = [a in "YX" or n > 1 for a, n in zip(axes, array.shape, strict=True)]
    drop = tuple(i for i, kept in enumerate(keep) if not kept)
    kept_axes = "".join(a for a, kept in zip(axes, keep, strict=True) if kept)
    return np.squeeze(array, axis=drop), kept_axes


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# --- from the stored array to a picture [H, W, C] --------------------------------


def as_picture(
    path: Path,
    array: np.ndarray,
    axes: str,
    *,
    channel: int | None = None,
    z: str = "",
    given_axes: str = "",
) -> np.ndarray:
    """`[H, W, C]` with a constant alpha dropped and equal channels collapsed.

    Raises:
      UnreadableFile: further axes and no instruction what to do with them, or
        values that are not finite.
    """
    if given_axes:
        if len(given_axes) != array.ndim:
            raise UnreadableFile(
                f"{path}: --axes {given_axes} does not fit shape {array.shape}"
            )
        axes = given_axes.upper()
    array, axes = _project_stack(path, array, axes, z)
    for name in "CS":
        if name in axes:
            array = np.moveaxis(array, axes.index(name), -1)
            axes = axes.replace(name, "") + name
            break
    else:
        array, axes = array[..., None], axes + "C"
    if axes[:-1] != "YX":
        raise UnreadableFile(
            f"{path}: shape {array.shape[:-1]}, axes {axes[:-1]}; say what they are "
            "with --set data_options.axes=..., or reduce a stack with "
            "--set data_options.z=max (or mean, or an index)"
        )
    array = _plain_channels(path, array, channel)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise UnreadableFile(
            f"{path}: {bad} pixels ({bad / array.size:.2%}) are NaN or infinite"
        )
    return array


def _project_stack(
    path: Path, array: np.ndarray, axes: str, z: str
) -> tuple[np.ndarray, str]:
    stacks = [a for a in axes if a not in "YXCS"]
    if not stacks or not z:
        return array, axes
    if len(stacks) > 1:
        raise UnreadableFile(f"{path}: axes {axes}; only one stack can be reduced")
    axis = axes.index(stacks[0])
    if z == "max":
        array = array.max(axis)
    elif z == "mean":
        array = array.mean(axis).astype(np.float32)
    elif z.isdigit() and int(z) < array.shape[axis]:
        array = array.take(int(z), axis)
    else:
        raise UnreadableFile(
            f"{path}: z={z!r} is none of max, mean, 0..{array.shape[axis] - 1}"
        )
    return array, axes.replace(stacks[0], "")


def _plain_channels(path: Path, array: np.ndarray, channel: int | None) -> np.ndarray:
    channels = array.shape[-1]
    if channels == 4 and (array[..., 3] == array[0, 0, 3]).all():
        array, channels = array[..., :3], 3
    if channel is not None:
        if not 0 <= channel < channels:
            raise UnreadableFile(
                f"{path}: channel {channel} of {channels}; they count from 0"
            )
        return array[..., channel : channel + 1]
    equal = channels == 3 and (array[..., :1] == array[..., 1:]).all()
    if equal:
        return array[..., :1]
    if channels > 4:
        raise UnreadableFile(
            f"{path}: {channels} channels; choose one with --set data_options.channel=N"
        )
    return array


# --- masks -----------------------------------------------------------------------

MaskKind = Literal["instances", "binary"]


def read_mask_plane(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """`[H, W]` values of a mask file, palette indices kept.

    Raises:
      UnreadableFile: colours, fractions outside [0, 1], negative values, or a
        stack.
    """
    array, axes = read_mask_array(path, max_pixels=max_pixels)
    if axes.endswith("S") and array.shape[-1] in (3, 4):
        colours = array[..., :3]
        if not (colours[..., :1] == colours[..., 1:]).all():
            count = len(np.unique(colours.reshape(-1, 3), axis=0))
            raise UnreadableFile(
                f"{path}: {count} colours; a mask has one channel with one value "
                "per cell"
            )
        array, axes = colours[..., 0], axes[:-1]
    if array.ndim != 2:
        raise UnreadableFile(f"{path}: shape {array.shape}; a mask is [rows, columns]")
    return _as_label_values(path, array)


def _as_label_values(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise UnreadableFile(f"{path}: NaN or infinite values in a mask")
        rounded = np.rint(array)
        if np.abs(array - rounded).max() <= 1e-6:
            array = rounded.astype(np.int64)
        elif array.min() < 0 or array.max() > 1:
            values = ", ".join(f"{v:g}" for v in np.unique(array)[:5])
            raise UnreadableFile(
                f"{path}: fractions such as {values}; labels are whole numbers"
            )
    if array.size and array.min() < 0:
        raise UnreadableFile(f"{path}: negative labels (lowest {array.min()})")
    return array


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


def to_instances(plane: np.ndarray, kind: MaskKind) -> np.ndarray:
    """Mask values as int32 labels 1..N without gaps.

    "binary": at least half of the file's own maximum is foreground, its
    8-connected components are the cells. "instances": every value but 0 is one
    cell, also where it lies in several pieces.
    """
    if kind == "binary":
        from scipy import ndimage

        foreground = plane >= max(plane.max(initial=0) / 2, np.finfo(float).tiny)
        labels, _ = ndimage.label(foreground, np.ones((3,) * plane.ndim))
        return labels.astype(np.int32)
    values, inverse = np.unique(plane, return_inverse=True)
    inverse = inverse.reshape(plane.shape)
    # Without a background pixel the smallest value is a cell like any other.
    return (inverse + (values[0] != 0)).astype(np.int32)


def read_mask(path: str | Path, kind: MaskKind) -> np.ndarray:
    """One mask file as int32 instances 1..N; see `to_instances`.

    Raises:
      UnreadableFile: see `read_mask_plane`.
    """
    return to_instances(read_mask_plane(Path(path)), kind)
