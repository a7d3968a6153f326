"""One network over images of any size: whole, in exact tiles, or blended.

Shared contract: `image` is `[*S, C]` float32 with two or three spatial axes,
already scaled as the network expects; `apply` takes a batch `[B, *s, C]` and
returns logits `[B, *s, K]`; the result is `[*S, K]` float32. Images are padded
at the high end to a multiple of `divisor` by reflection where the axis is
longer than the padding, else by repeating the last pixel, and cropped again.

`apply` is called with one shape per call of these functions, so a jitted
network compiles once for all windows of an image.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Apply = Callable[[np.ndarray], np.ndarray]
Window = tuple[slice, ...]


def needs_tiles(shape: Sequence[int], limit_pixels: int) -> bool:
    """Whether an image of spatial `shape` has more pixels than the limit."""
    return math.prod(shape) > limit_pixels


def predict_whole(apply: Apply, image: np.ndarray, *, divisor: int = 1) -> np.ndarray:
    """Logits `[*S, K]` of one image in a single call of the network.

    Raises:
      ValueError: the image is neither `[H, W, C]` nor `[D, H, W, C]`.
    """
    padded, size = _pad(_image("predict_whole", image), divisor)
    logits = np.asarray(apply(padded[None]), np.float32)[0]
    return logits[tuple(slice(0, length) for length in size)]


def predict_tiles(
    apply: Apply,
    image: np.ndarray,
    *,
    tile: int,
    halo: int | None,
    divisor: int = 1,
    batch_size: int = 1,
) -> np.ndarray:
    """Logits `[*S, K]` of one image from windows of one size.

    With a `halo` the result equals that of the whole image, provided that the
    network is local: its output at a pixel depends on pixels at most `halo`
    away and on the position modulo `divisor` (convolutions, pooling, batch
    normalisation with stored statistics). Of every window only the tile inside
    is kept; what is dropped reaches `halo` pixels from each window edge that is
    no image edge. Windows start at multiples of `divisor` and are moved inside
    the image rather than cut; an axis shorter than the window is taken whole.

    With `halo=None`, for networks that look at the whole window (group or
    instance normalisation, attention, global pooling), windows of `tile`
    pixels overlap by half and are averaged with Gaussian weights. The result
    then depends on the tiles; `tile` should be the crop trained on.

    Args:
      tile: width in pixels of what a window contributes; rounded up to
        `divisor`, as are the halo and so the window `tile + 2 halo`.
      halo: receptive-field radius in pixels, or None.
      divisor: spatial factor of the network's coarsest level.
      batch_size: windows per call; the last call repeats its last window.

    Raises:
      ValueError: rank of the image, or sizes that are not positive.

    Source: overlap-tile strategy of Ronneberger et al. 2015 with the windows
    moved inside; Gaussian weights (sigma = tile / 8) of Isensee et al. 2021.
    """
    _check_sizes(tile, halo, divisor, batch_size)
    padded, size = _pad(_image("predict_tiles", image), divisor)
    shape = padded.shape[:-1]
    tile = _round_up(tile, divisor)
    if halo is None:
        return _blend(apply, padded, _overlapping(shape, tile, divisor), batch_size)[
            tuple(slice(0, length) for length in size)
        ]
    halo = _round_up(halo, divisor)
    result = None
    plan = list(_with_halo(shape, tile, halo))
    calls = _batches(apply, padded, [window for window, _ in plan], batch_size)
    for (window, kept), logits in zip(plan, calls, strict=True):
        if result is None:
            result = np.empty((*shape, logits.shape[-1]), np.float32)
        inside = tuple(
            slice(k.start - w.start, k.stop - w.start)
            for k, w in zip(kept, window, strict=True)
        )
        result[kept] = logits[inside]
    return result[tuple(slice(0, length) for length in size)]


def _with_halo(
    shape: tuple[int, ...], tile: int, halo: int
) -> Iterator[tuple[Window, Window]]:
    """(window, kept tile) pairs, in coordinates of the padded image."""
    axes = []
    for length in shape:
        width = min(tile + 2 * halo, length)
        spans = []
        for start in range(0, length, tile):
            low = min(max(start - halo, 0), length - width)
            kept = slice(start, min(start + tile, length))
            spans.append((slice(low, low + width), kept))
        axes.append(spans)
    for spans in itertools.product(*axes):
        yield tuple(window for window, _ in spans), tuple(kept for _, kept in spans)


def _overlapping(shape: tuple[int, ...], tile: int, divisor: int) -> list[Window]:
    """Windows of `tile` pixels, moved by about half of it, the last one inside."""
    step = max(tile // 2 // divisor, 1) * divisor
    axes = []
    for length in shape:
        width = min(tile, length)
        starts = [*range(0, length - width, step), length - width]
        axes.append([slice(start, start + width) for start in starts])
    return list(itertools.product(*axes))


def _blend(
    apply: Apply, padded: np.ndarray, windows: list[Window], batch_size: int
) -> np.ndarray:
    """Average of the windows' logits with Gaussian weights."""
    weights = _gaussian(tuple(axis.stop - axis.start for axis in windows[0]))
    total, norm = None, np.zeros((*padded.shape[:-1], 1), np.float32)
    calls = _batches(apply, padded, windows, batch_size)
    for window, logits in zip(windows, calls, strict=True):
        if total is None:
            total = np.zeros((*padded.shape[:-1], logits.shape[-1]), np.float32)
        total[window] += weights * logits
        norm[window] += weights
    return total / norm


def _gaussian(shape: tuple[int, ...]) -> np.ndarray:
    """Weights `[*shape, 1]`, 1 at the centre, standard deviation of an eighth."""
    weights = np.ones((1,) * (len(shape) + 1))
    for axis, length in enumerate(shape):
        offset = (np.arange(length) - (length - 1) / 2) / (length / 8)
        along = [1] * (len(shape) + 1)
        along[axis] = length
        weights = weights * np.exp(-0.5 * offset**2).reshape(along)
    return weights.astype(np.float32)


def _batches(
    apply: Apply, padded: np.ndarray, windows: list[Window], batch_size: int
) -> Iterator[np.ndarray]:
    """Logits of each window; every call of the network has the same shape."""
    for first in range(0, len(windows), batch_size):
        chosen = windows[first : first + batch_size]
        filled = chosen + [chosen[-1]] * (batch_size - len(chosen))
        logits = apply(np.stack([padded[window] for window in filled]))
        yield from np.asarray(logits, np.float32)[: len(chosen)]


def _pad(image: np.ndarray, divisor: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The image padded at the high end to the divisor, and its size before."""
    size = image.shape[:-1]
    for axis, length in enumerate(size):
        extra = _round_up(length, divisor) - length
        if extra:
            widths = [(0, 0)] * image.ndim
            widths[axis] = (0, extra)
            mode = "reflect" if extra < length else "edge"
            image = np.pad(image, widths, mode=mode)
    return image, size


def _round_up(length: int, divisor: int) -> int:
    return -(-length // divisor) * divisor


def _image(function: str, image: np.ndarray) -> np.ndarray:
    image = np.asarray(image, np.float32)
    if image.ndim not in (3, 4):
        raise ValueError(
            f"{function}: image must be [rows, columns, channels] or [depth, rows, "
            f"columns, channels], got {image.shape}; add the channel with x[..., None]"
        )
    return image


def _check_sizes(tile: int, halo: int | None, divisor: int, batch_size: int) -> None:
    if min(tile, divisor, batch_size) < 1 or (halo is not None and halo < 0):
        raise ValueError(
            "predict_tiles: tile, divisor and batch_size must be positive and halo "
            f"None or at least 0, got {tile}, {divisor}, {batch_size} and {halo}"
        )
