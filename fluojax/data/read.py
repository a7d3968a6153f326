"""Reading image and mask files, one array out or one line of refusal.

The type of a file is decided by its first bytes, its size is checked before
its pixels are decoded, and nothing is ever unpickled.
"""

import logging
import math
import threading
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
_PILLOW_LIMIT = threading.Lock()


class UnreadableFile(UserError):
    """A file that cannot be read as what it should be; the text names it."""


def file_type(path: Path) -> str:
    """tiff, png, jpeg, gif, npy, czi, nd2 or "" by the first bytes."""
    try:
        if not path.exists():
            raise UnreadableFile(f"{path}: no such file")
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

    Palette pictures are expanded to their colours, EXIF rotations are undone and
    TIFFs in which 0 is white are inverted (`conversions` tells which). Axes come from the metadata of a TIFF, else from the shape: two
    dimensions are YX, a last one of 3 or 4 is S (samples, RGB or RGBA), and
    anything else gets one "Q" (unknown) for each leading axis.

    Raises:
      UnreadableFile: damaged, empty, too large, or of a type we do not read.
    """
    path = Path(path)
    kind = file_type(path)
    if kind == "tiff":
        return _read_tiff(path, max_pixels, as_labels=False)
    if kind in ("png", "jpeg", "gif"):
        return _read_pillow(path, max_pixels, palette_as_index=False)
    if kind == "npy":
        return _read_npy(path, max_pixels)
    raise _not_readable(path, kind)


def read_mask_array(
    path: str | Path, *, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, str]:
    """As `read_image`, but labels stay what they are.

    That is the indices of a palette, and the values of a TIFF in which 0 is
    white: programs mark masks so that they draw black cells on white.
    """
    path = Path(path)
    kind = file_type(path)
    if kind == "tiff":
        return _read_tiff(path, max_pixels, as_labels=True)
    if kind in ("png", "gif"):
        return _read_pillow(path, max_pixels, palette_as_index=True)
    return read_image(path, max_pixels=max_pixels)


def exif_orientation(path: Path) -> int:
    """EXIF orientation of a PNG or JPEG, 1 where there is none."""
    if file_type(path) not in ("png", "jpeg"):
        return 1
    with _open_pillow(path, MAX_PIXELS) as image:
        return int(image.getexif().get(0x0112, 1))


def conversions(path: Path) -> list[str]:
    """What `read_image` changed in a file that it can read, for the user."""
    kind = file_type(path)
    done = []
    if kind == "tiff":
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            if tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                done.append("min-is-white inverted")
    if kind in ("png", "jpeg", "gif"):
        with _open_pillow(path, MAX_PIXELS) as image:
            if image.mode == "P":
                done.append("palette converted to colours")
        if exif_orientation(path) != 1:
            done.append("rotated as its EXIF entry says")
    return done


def mask_conversions(path: Path) -> list[str]:
    """The same for a mask that `read_mask_plane` can read."""
    if file_type(path) in ("png", "gif"):
        with _open_pillow(path, MAX_PIXELS) as image:
            if image.mode in ("P", "PA"):
                return ["masks with a palette, its indices taken as labels,"]
            if len(image.getbands()) > 1:
                return ["masks with equal colours, read as one channel,"]
    return []


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
            f"{path}: {pixels:,} pixels, at least {pixels / 1e9:.1f} GB of memory; the "
            f"limit is {max_pixels:,}; raise it with --set data_options.max_pixels=N"
        )
    if pixels == 0:
        raise UnreadableFile(f"{path}: holds no pixels")


def _read_tiff(path: Path, max_pixels: int, as_labels: bool) -> tuple[np.ndarray, str]:
    import tifffile

    # What is wrong with a file is told once, by the error below.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.series:
                raise UnreadableFile(f"{path}: a TIFF without images")
            series = tiff.series[0]
            _check_size(path, math.prod(series.shape), max_pixels)
            _refuse_several(path, [math.prod(s.shape) for s in tiff.series])
            array, axes = series.asarray(), series.axes
            page = tiff.pages[0]
            inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
            if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
                raise UnreadableFile(f"{path}: CMYK; save it as RGB or grey")
    except UnreadableFile:
        raise
    except Exception as error:  # tifffile and its codecs raise what they like
        raise UnreadableFile(f"{path}: damaged TIFF: {_reason(error)}") from error
    if inverted and not as_labels:
        if array.dtype.kind not in "bu":
            raise UnreadableFile(f"{path}: {array.dtype} with 0 as white; save as grey")
        array = ~array  # for unsigned numbers, too, the largest value minus this one
    return _squeezed(path, array, axes)


def _refuse_several(path: Path, sizes: list[int]) -> None:
    """Previews are smaller than the first image; anything else is a choice."""
    if max(sizes) > sizes[0] or sizes.count(sizes[0]) > 1:
        raise UnreadableFile(
            f"{path}: {len(sizes)} images of different shapes; save the one you mean "
            "as a file of its own"
        )


def _open_pillow(path: Path, max_pixels: int):
    """An opened picture whose header was checked against our own limit."""
    from PIL import Image

    # Pillow's limit is lower and global; it is asked when a file is opened only.
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    try:
        _check_size(path, image.width * image.height, max_pixels)
    except UnreadableFile:
        image.close()
        raise
    return image


def _read_pillow(
    path: Path, max_pixels: int, palette_as_index: bool
) -> tuple[np.ndarray, str]:
    try:
        with _open_pillow(path, max_pixels) as image:
            if image.mode == "CMYK":
                raise UnreadableFile(f"{path}: CMYK; save it as RGB or grey")
            if getattr(image, "n_frames", 1) > 1:
                raise UnreadableFile(
                    f"{path}: {image.n_frames} frames; save the one you mean"
                )
            array = _pillow_pixels(path, image, palette_as_index)
    except UnreadableFile:
        raise
    except Exception as error:  # Pillow and its decoders raise what they like
        raise UnreadableFile(f"{path}: damaged image: {_reason(error)}") from error
    return _squeezed(path, array, "YXS"[: array.ndim])


def _pillow_pixels(path: Path, image, palette_as_index: bool) -> np.ndarray:
    from PIL import ImageOps

    if image.mode in ("RGB", "RGBA", "LA") and _bits_per_sample(path) == 16:
        # Pillow would keep the upper eight bits only, without a word.
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes())
    if image.mode in ("P", "PA") and not palette_as_index:
        image = image.convert("RGB")
    return np.asarray(ImageOps.exif_transpose(image))


def _bits_per_sample(path: Path) -> int:
    """Of a PNG: the byte after width and height in its header; else 8."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") else 8


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
    array = np.squeeze(array, axis=drop)
    # Big-endian numbers are another type to NumPy's comparisons.
    return array.astype(array.dtype.newbyteorder("="), copy=False), kept_axes


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
    """`[H, W, C]`; alpha is dropped and three equal colours become one channel.

    Both concern colours (axis S) alone: channels of a microscope (axis C) stay.
    float64 becomes float32, scaled down where it exceeds that type.

    Raises:
      UnreadableFile: further axes and no instruction what to do with them, or
        values that are not finite.
    """
    if given_axes:
        if len(given_axes) != array.ndim:
            raise UnreadableFile(
                f"{path}: data_options.axes={given_axes} does not fit shape "
                f"{array.shape}"
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
    if axes.endswith("S"):
        array = _plain_colours(array, channel)
    array = _one_channel(path, array, channel)
    return _as_float32(path, array) if array.dtype.kind == "f" else array


def _as_float32(path: Path, array: np.ndarray) -> np.ndarray:
    finite = np.isfinite(array)
    if not finite.all():
        bad = int((~finite).sum())
        raise UnreadableFile(
            f"{path}: {bad} pixels ({bad / array.size:.2%}) are NaN or infinite"
        )
    top = float(np.abs(array).max())
    if top > float(np.finfo(np.float32).max):
        array = array / top
    return array.astype(np.float32)


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


def has_alpha(array: np.ndarray, axes: str) -> bool:
    """Whether the last axis is grey or colours with an opacity, LA or RGBA."""
    return axes.endswith("S") and array.shape[-1] in (2, 4)


def _plain_colours(array: np.ndarray, channel: int | None) -> np.ndarray:
    if has_alpha(array, "S"):
        array = array[..., :-1]
    equal = array.shape[-1] == 3 and (array[..., :1] == array[..., 1:]).all()
    return array[..., :1] if equal and channel is None else array


def _one_channel(path: Path, array: np.ndarray, channel: int | None) -> np.ndarray:
    channels = array.shape[-1]
    if channel is None:
        if channels > 4:
            raise UnreadableFile(
                f"{path}: {channels} channels; choose one with "
                "--set data_options.channel=N"
            )
        return array
    if not 0 <= channel < channels:
        raise UnreadableFile(
            f"{path}: channel {channel} of {channels}; they count from 0"
        )
    return array[..., channel : channel + 1]


# --- masks -----------------------------------------------------------------------

MaskKind = Literal["instances", "binary"]


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
            count = len(np.unique(colours.reshape(-1, 3), axis=0))
            raise UnreadableFile(
                f"{path}: {count} colours; a mask has one channel with one value "
                "per cell"
            )
        array, axes = colours[..., 0], axes[:-1]
    if array.ndim != 2:
        raise UnreadableFile(
            f"{path}: shape {array.shape}, axes {axes}; a mask is [rows, columns]"
        )
    return _as_label_values(path, array)


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


def refuse_fractions(path: Path, plane: np.ndarray) -> None:
    """Raises UnreadableFile for a soft mask where cells have whole numbers."""
    if plane.dtype.kind == "f":
        values = ", ".join(f"{v:g}" for v in np.unique(plane[plane > 0])[:5])
        raise UnreadableFile(
            f"{path}: fractions such as {values}; labels are whole numbers; for a soft "
            "mask, cut at half of its maximum: --set data_options.mask_kind=binary"
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


def read_mask(path: str | Path, kind: MaskKind) -> np.ndarray:
    """One mask file as int32 instances 1..N; see `to_instances`.

    Raises:
      UnreadableFile: see `read_mask_plane`, and `refuse_fractions`.
    """
    path = Path(path)
    plane = read_mask_plane(path)
    if kind == "instances":
        refuse_fractions(path, plane)
    return to_instances(plane, kind)
