"""What a prediction looks like on disk, as bytes.

Pure functions: the caller writes the bytes under a temporary name and renames
them. The same input gives the same bytes, so no file carries a date, a host or
the version of the program that wrote it.
"""

import io
from collections.abc import Sequence

import numpy as np
import tifffile
from PIL import Image, ImageDraw, ImageFont

_UM_PER_CM = 1e4
_DISPLAY_PERCENTILES = (0.5, 99.8)
_CAPTION_HEIGHT = 16
# Bright hues that neighbours in raster order do not share, on dark cells.
_COLOURS = np.array(
    [
        (255, 80, 80),
        (80, 220, 80),
        (90, 160, 255),
        (255, 210, 60),
        (230, 100, 255),
        (60, 230, 230),
        (255, 150, 60),
    ],
    np.uint8,
)


def labels_tiff_bytes(
    instances: np.ndarray, spacing_um: float | Sequence[float] | None = None
) -> bytes:
    """A label image as TIFF: uint16 up to label 65,535, else uint32; deflate.

    Args:
      instances: `[H, W]` or `[D, H, W]` labels, 0 background.
      spacing_um: pixel size, one number or one per axis; rows and columns are
        kept as the resolution (pixels per centimetre).

    Raises:
      ValueError: labels are negative, not integers, or beyond uint32.
    """
    instances = np.asarray(instances)
    highest = int(instances.max(initial=0))
    lowest = int(instances.min(initial=0))
    integers = np.issubdtype(instances.dtype, np.integer)
    if not integers or lowest < 0 or highest > np.iinfo(np.uint32).max:
        raise ValueError(
            "labels_tiff_bytes: labels must be integers from 0 to 4,294,967,295, "
            f"got {instances.dtype} from {lowest} to {highest}"
        )
    dtype = np.uint16 if highest <= np.iinfo(np.uint16).max else np.uint32
    return _tiff("labels_tiff_bytes", instances.astype(dtype), spacing_um)


def probs_tiff_bytes(
    probs: np.ndarray, spacing_um: float | Sequence[float] | None = None
) -> bytes:
    """A map of probabilities `[H, W]` or `[D, H, W]` as float32 TIFF, deflate."""
    return _tiff("probs_tiff_bytes", np.asarray(probs, np.float32), spacing_um)


def overlay_png_bytes(image: np.ndarray, instances: np.ndarray, caption: str) -> bytes:
    """The image with one-pixel outlines of its cells and a caption below, as PNG.

    Outlines are the pixels of a cell with a face neighbour of another label;
    an edge of the image is none. Grey values are scaled between their 0.5th
    and 99.8th percentile over all channels; of more than three channels the
    first three are shown.

    Args:
      image: `[H, W]` or `[H, W, C]`.
      instances: `[H, W]` labels, 0 background.
      caption: one line, for example name and count; what the built-in font
        does not have is shown as `?`.

    Raises:
      ValueError: the shapes do not belong together.
    """
    image, instances = np.asarray(image), np.asarray(instances)
    if image.ndim not in (2, 3) or image.shape[:2] != instances.shape:
        raise ValueError(
            "overlay_png_bytes: image must be [rows, columns] or [rows, columns, "
            f"channels] with the size of instances {instances.shape}, got {image.shape}"
        )
    picture = display_rgb(image)
    draw_outlines(picture, instances)
    buffer = io.BytesIO()
    _with_caption(Image.fromarray(picture), caption).save(buffer, format="PNG")
    return buffer.getvalue()


def draw_outlines(picture: np.ndarray, instances: np.ndarray) -> None:
    """Draws the outlines of cells `[H, W]` into a uint8 picture `[H, W, 3]`."""
    edges = _outlines(instances)
    picture[edges] = _COLOURS[instances[edges] % len(_COLOURS)]


def _tiff(
    function: str, array: np.ndarray, spacing_um: float | Sequence[float] | None
) -> bytes:
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{function}: the array must be [rows, columns] or [depth, rows, "
            f"columns], got {array.shape}"
        )
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **tiff_options(array.ndim, spacing_um))
    return buffer.getvalue()


def tiff_options(
    rank: int, spacing_um: float | Sequence[float] | None
) -> dict[str, object]:
    """How every TIFF of ours is written: deflate, axes, pixel size, no date."""
    options: dict[str, object] = {
        "photometric": "minisblack",
        "compression": "zlib",
        "metadata": {"axes": "ZYX"[-rank:]},
        "software": False,
    }
    if spacing_um is not None:
        spacing = np.broadcast_to(np.asarray(spacing_um, np.float64), rank)
        height, width = spacing[-2:]
        options["resolution"] = (_UM_PER_CM / width, _UM_PER_CM / height)
        options["resolutionunit"] = "CENTIMETER"
    return options


def display_rgb(image: np.ndarray) -> np.ndarray:
    """`[H, W]` or `[H, W, C]` of any range as `[H, W, 3]` uint8 for the eye."""
    values = np.asarray(image, np.float32)
    values = values[..., None] if values.ndim == 2 else values[..., :3]
    low, high = np.percentile(values, _DISPLAY_PERCENTILES)
    scaled = (values - low) / max(high - low, 1e-12)
    levels = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    channels = levels.shape[-1]
    if channels == 1:
        return np.repeat(levels, 3, axis=-1)
    return np.pad(levels, ((0, 0), (0, 0), (0, 3 - channels)))


def _outlines(instances: np.ndarray) -> np.ndarray:
    edges = np.zeros(instances.shape, bool)
    across = instances[1:] != instances[:-1]
    along = instances[:, 1:] != instances[:, :-1]
    edges[1:] |= across
    edges[:-1] |= across
    edges[:, 1:] |= along
    edges[:, :-1] |= along
    return edges & (instances != 0)


def _with_caption(picture: Image.Image, caption: str) -> Image.Image:
    font = ImageFont.load_default()
    text = " ".join(caption.split()).encode("latin-1", "replace").decode("latin-1")
    width = max(picture.width, int(font.getlength(text)) + 8)
    canvas = Image.new("RGB", (width, picture.height + _CAPTION_HEIGHT))
    canvas.paste(picture, (0, 0))
    ImageDraw.Draw(canvas).text((4, picture.height + 2), text, font=font, fill="white")
    return canvas
