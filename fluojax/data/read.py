"""Reading image and mask files, one array out or one line of refusal.

The type of a file is decided by its first bytes, its size is checked before
its pixels are decoded, and nothing is ever unpickled.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

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
    path: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    allocate: Callable[[Sequence[int], np.dtype], np.ndarray] = np.empty,
) -> tuple[np.ndarray, str]:
    """The array as stored, and its axes such as "YX", "YXS" or "ZCYX".

    Palette pictures are expanded to their colours, EXIF rotations are undone and
    TIFFs in which 0 is white are inverted (`conversions` tells which). Axes come from the metadata of a TIFF, else from the shape: two
    dimensions are YX, a last one of 3 or 4 is S (samples, RGB or RGBA), and
    anything else gets one "Q" (unknown) for each leading axis.

    Args:
      path: of the file.
      max_pixels: larger images are refused before they are decoded.
      allocate: makes the array of a TIFF from shape and type, for example mapped
        from a file; strips and tiles are decoded into it one by one.

    Raises:
      UnreadableFile: damaged, empty, too large, or of a type we do not read.
    """
    path = Path(path)
    kind = file_type(path)
    if kind == "tiff":
        return _read_tiff(path, max_pixels, as_labels=False, allocate=allocate)
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
            f"limit is {max_pixels:,}; raise it with --max-pixels N"
        )
    if pixels == 0:
        raise UnreadableFile(f"{path}: holds no pixels")


def _read_tiff(
    path: Path, max_pixels: int, as_labels: bool, allocate=np.empty
) -> tuple[np.ndarray, str]:
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
            array = series.asarray(out=allocate(series.shape, series.dtype))
            axes = series.axes
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
