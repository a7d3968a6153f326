"""One network over images of any size: whole, in exact tiles, or blended.

Shared contract: `image` is `[*S, C]` with two or three spatial axes; `apply`
takes a batch `[B, *s, C]` of it in float32 and returns logits `[B, *s, K]`; the
result is `[*S, K]` float32. Images are padded
at the high end to a multiple of `divisor` by reflection where the axis is
longer than the padding, else by repeating the last pixel, and cropped again.

`apply` is called with one shape per call of these functions, so a jitted
network compiles once for all windows of an image.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from fluojax.inference import scratch

Apply = Callable[[np.ndarray], np.ndarray]
Allocate = Callable[[Sequence[int], type], np.ndarray]
Window = tuple[slice, ...]


def needs_tiles(shape: Sequence[int], limit_pixels: int) -> bool:
    """Whether an image of spatial `shape` has more pixels than the limit."""
    return math.prod(shape) > limit_pixels


def predict_whole(apply: Apply, image: np.ndarray, *, divisor: int = 1) -> np.ndarray:
    """Logits `[*S, K]` of one image in a single call of the network.

    Raises:
      ValueError: the image is neither `[H, W, C]` nor `[D, H, W, C]`.
    """
    _check_rank("predict_whole", image)
    padded, size = _pad(np.asarray(image, np.float32), divisor)
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
    allocate: Allocate = np.zeros,
) -> np.ndarray:
    """Logits `[*S, K]` of one image from windows of one size.

    No more than a few windows are held beside image and result, either of which
    may be mapped from a file.

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
      allocate: makes the result from shape and type, zeros.

    Raises:
      ValueError: rank of the image, or sizes that are not positive.

    Source: overlap-tile strategy of Ronneberger et al. 2015 with the windows
    moved inside; Gaussian weights (sigma = tile / 8) of Isensee et al. 2021.
    """
    _check_sizes(tile, halo, divisor, batch_size)
    _check_rank("predict_tiles", image)
    shape = tuple(_round_up(length, divisor) for length in image.shape[:-1])
    tile = _round_up(tile, divisor)
    if halo is None:
        axes = [_overlapping(length, tile, divisor) for length in shape]
        return _blend(apply, image, axes, batch_size, allocate)
    plan = list(_with_halo(shape, tile, _round_up(halo, divisor)))
    calls = _batches(apply, image, [window for window, _ in plan], batch_size)
    result = None
    for (window, kept), logits in zip(plan, calls, strict=True):
        if result is None:
            classes = logits.shape[-1]
            result = allocate((*image.shape[:-1], classes), np.float32)
        inside = tuple(
            slice(k.start - w.start, min(k.stop, length) - w.start)
            for k, w, length in zip(kept, window, image.shape[:-1], strict=True)
        )
        result[kept] = logits[inside]
        scratch.release(result, image)
    return result


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


def _overlapping(length: int, tile: int, divisor: int) -> list[slice]:
    """Spans of `tile` pixels, moved by about half of it, the last one inside."""
    step = max(tile // 2 // divisor, 1) * divisor
    width = min(tile, length)
    starts = [*range(0, length - width, step), length - width]
    return [slice(start, start + width) for start in starts]


def _blend(
    apply: Apply, image: np.ndarray, axes: list[list[slice]], batch_size: int,
    allocate: Allocate,
) -> np.ndarray:  # fmt: skip
    """Average of the windows' logits with Gaussian weights."""
    windows = list(itertools.product(*axes))
    weights = _gaussian(tuple(axis.stop - axis.start for axis in windows[0]))
    size = image.shape[:-1]
    total = None
    calls = _batches(apply, image, windows, batch_size)
    for window, logits in zip(windows, calls, strict=True):
        if total is None:
            total = allocate((*size, logits.shape[-1]), np.float32)
        place = total[window]
        inside = tuple(slice(0, length) for length in place.shape[:-1])
        place += (weights * logits)[inside]
        scratch.release(total, image)
    norms = [_weight_sums(spans, n) for spans, n in zip(axes, size, strict=True)]
    for band in scratch.bands(total.shape):
        for axis, norm in enumerate(norms):
            part = norm[band] if axis == 0 else norm
            total[band] /= part.reshape(
                [-1 if a == axis else 1 for a in range(total.ndim)]
            )
        scratch.release(total)
    return total


def _weight_sums(spans: list[slice], length: int) -> np.ndarray:
    """Along one axis, the weights that each pixel got: windows form a grid."""
    sums = np.zeros(spans[-1].stop)
    for span in spans:
        sums[span] += _bell(span.stop - span.start)
    return sums[:length].astype(np.float32)


def _bell(length: int) -> np.ndarray:
    """1 at the centre, standard deviation of an eighth."""
    offset = (np.arange(length) - (length - 1) / 2) / (length / 8)
    return np.exp(-0.5 * offset**2)


def _gaussian(shape: tuple[int, ...]) -> np.ndarray:
    """Weights `[*shape, 1]`, the product of `_bell` along the axes."""
    weights = functools.reduce(np.multiply.outer, map(_bell, shape))
    return weights[..., None].astype(np.float32)


def _batches(
    apply: Apply, image: np.ndarray, windows: list[Window], batch_size: int
) -> Iterator[np.ndarray]:
    """Logits of each window; every call of the network has the same shape."""
    for first in range(0, len(windows), batch_size):
        chosen = windows[first : first + batch_size]
        filled = chosen + [chosen[-1]] * (batch_size - len(chosen))
        batch = np.stack([_read(image, window) for window in filled])
        logits = apply(batch.astype(np.float32, copy=False))
        yield from np.asarray(logits, np.float32)[: len(chosen)]


def _read(image: np.ndarray, window: Window) -> np.ndarray:
    """Values in a window that may reach beyond the high ends, as `_pad` has them."""
    if all(w.stop <= n for w, n in zip(window, image.shape, strict=False)):
        return image[window]
    places = []
    for span, length in zip(window, image.shape, strict=False):
        place = np.arange(span.start, span.stop)
        mirrored = 2 * (length - 1) - place
        beyond = mirrored if span.stop - length < length else length - 1
        places.append(np.where(place < length, place, beyond))
    return image[np.ix_(*places)]


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


def _check_rank(function: str, image: np.ndarray) -> None:
    if image.ndim not in (3, 4):
        raise ValueError(
            f"{function}: image must be [rows, columns, channels] or [depth, rows, "
            f"columns, channels], got {image.shape}; add the channel with x[..., None]"
        )


def _check_sizes(tile: int, halo: int | None, divisor: int, batch_size: int) -> None:
    if min(tile, divisor, batch_size) < 1 or (halo is not None and halo < 0):
        raise ValueError(
            "predict_tiles: tile, divisor and batch_size must be positive and halo "
            f"None or at least 0, got {tile}, {divisor}, {batch_size} and {halo}"
        )
