"""Erosion, dilation and what is built from them, with any flat kernel.

`f(x, kernel, *, iterations=1, border="ignore") -> [*S]`: x is one image `[*S]`,
rank 2 or 3, and the result has its dtype: bool masks stay bool, grey levels
stay what they are. The kernel is a constant array of the rank of x whose
non-zero entries are the neighbours that count; its centre is at `n // 2` along
every axis of length n. Dilation uses the kernel turned by half, as SciPy does,
so that an opening never adds and a closing never removes (apart from
`border=0`); OpenCV does not turn it, which is the same for symmetric kernels.

`border` says what lies outside: "ignore", nothing that could win (OpenCV), or
0, pixels of value 0 (SciPy). `iterations=n` erodes or dilates n times; openings
and closings do n of the one and then n of the other.

Every function raises ValueError for an image of another rank, for a kernel of
another rank than the image or without an entry, and for unknown borders.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks

Border = Literal["ignore", 0]
Extreme = Callable[[jax.Array, jax.Array], jax.Array]
Window = tuple[tuple[int, int], ...]  # pixels before and after, for each axis


def erode(
    x: ArrayLike, kernel: ArrayLike, iterations: int = 1, border: Border = "ignore"
) -> jax.Array:
    """Least value below the kernel, `[*S]`."""
    x, kernel = _checked("erode", x, kernel, iterations, border)
    return _erode(x, kernel, iterations, border)


def dilate(
    x: ArrayLike, kernel: ArrayLike, iterations: int = 1, border: Border = "ignore"
) -> jax.Array:
    """Greatest value below the turned kernel, `[*S]`."""
    x, kernel = _checked("dilate", x, kernel, iterations, border)
    return _dilate(x, kernel, iterations, border)


def open(
    x: ArrayLike, kernel: ArrayLike, iterations: int = 1, border: Border = "ignore"
) -> jax.Array:
    """Dilation of the erosion, `[*S]`: what is narrower than the kernel goes."""
    x, kernel = _checked("open", x, kernel, iterations, border)
    return _dilate(_erode(x, kernel, iterations, border), kernel, iterations, border)


def close(
    x: ArrayLike, kernel: ArrayLike, iterations: int = 1, border: Border = "ignore"
) -> jax.Array:
    """Erosion of the dilation, `[*S]`: gaps narrower than the kernel fill."""
    x, kernel = _checked("close", x, kernel, iterations, border)
    return _erode(_dilate(x, kernel, iterations, border), kernel, iterations, border)


def gradient(
    x: ArrayLike, kernel: ArrayLike, iterations: int = 1, border: Border = "ignore"
) -> jax.Array:
    """Dilation minus erosion, `[*S]`: a band on both sides of every edge.

    Raises:
      ValueError: the kernel lacks its centre, so that differences could be
        negative and wrap around in unsigned images.
    """
    x, kernel = _checked("gradient", x, kernel, iterations, border)
    if not kernel[tuple(n // 2 for n in kernel.shape)]:
        raise ValueError(
            "gradient: kernel must contain its centre, got 0 at "
            f"{tuple(n // 2 for n in kernel.shape)} of {kernel.shape}"
        )
    dilated = _dilate(x, kernel, iterations, border)
    return _difference(dilated, _erode(x, kernel, iterations, border))


def tophat(
    x: ArrayLike, kernel: ArrayLike, iterations: int = 1, border: Border = "ignore"
) -> jax.Array:
    """The image minus its opening, `[*S]`: what is narrower than the kernel."""
    x, kernel = _checked("tophat", x, kernel, iterations, border)
    eroded = _erode(x, kernel, iterations, border)
    return _difference(x, _dilate(eroded, kernel, iterations, border))


def ellipse(k: int) -> np.ndarray:
    """The `[k, k]` elliptical kernel of OpenCV, a constant bool array.

    Row i reaches round(r · sqrt(1 - ((i - r) / r)²)) pixels from column r to
    both sides, r = k // 2: a cross for k = 3, for k = 5 a block whose first and
    last row have only the middle pixel.

    Raises:
      ValueError: k is less than 1.
    """
    if k < 1:
        raise ValueError(f"ellipse: k must be at least 1, got {k}")
    radius = k // 2
    rows = np.arange(k) - radius
    reach = np.rint(np.sqrt(np.maximum(radius**2 - rows**2, 0)))
    return np.abs(np.arange(k) - radius)[None, :] <= reach[:, None]


def maximum_filter(x: ArrayLike, size: int | Sequence[int]) -> jax.Array:
    """Greatest value in a box about every pixel, `[*S]` in the dtype of x.

    Args:
      x: `[*S]`, rank 2 or 3. What lies outside never wins.
      size: pixels along every axis, or one number for each. A box of n pixels
        reaches n // 2 before and (n - 1) // 2 after its pixel, as in SciPy.

    Raises:
      ValueError: x has another rank, or the sizes are not one positive number
        or one for each axis.
    """
    x = checks.image("maximum_filter", x, "x")
    sizes = (size,) * x.ndim if isinstance(size, int) else tuple(size)
    if len(sizes) != x.ndim or min(sizes) < 1:
        raise ValueError(
            f"maximum_filter: size must be a positive number or {x.ndim} of them, "
            f"got {size}"
        )
    window = tuple((n // 2, (n - 1) // 2) for n in sizes)
    return _box(x, window, jnp.maximum, least(x.dtype))


def contour_map(
    mask: ArrayLike,
    width: int = 1,
    mode: Literal["both", "inner", "outer"] = "both",
) -> jax.Array:
    """Pixels along the contour of a mask, `[*S]` bool.

    With the 3 x 3 (x 3) neighbourhood applied `width` times, "inner" are pixels
    of the mask that its erosion loses, "outer" those that its dilation gains,
    "both" the two together. The mask is not eroded from the image border: an
    object that is cut off has no contour along the cut.

    Args:
      mask: `[*S]`, rank 2 or 3, any dtype; non-zero is the object.
      width: pixels to each side, 0 or more.
      mode: "both", "inner" or "outer".

    Raises:
      ValueError: the mask has another rank, the width is negative, or the mode
        is another word.
    """
    mask = checks.image("contour_map", mask, "mask").astype(bool)
    if mode not in ("both", "inner", "outer"):
        raise ValueError(
            f"contour_map: mode must be both, inner or outer, got {mode!r}"
        )
    if width < 0:
        raise ValueError(f"contour_map: width must be 0 or more pixels, got {width}")
    window = ((width, width),) * mask.ndim
    grown = mask if mode == "inner" else _box(mask, window, jnp.maximum, False)
    shrunk = mask if mode == "outer" else _box(mask, window, jnp.minimum, True)
    return grown & ~shrunk


def _checked(
    function: str, x: ArrayLike, kernel: ArrayLike, iterations: int, border: Border
) -> tuple[jax.Array, np.ndarray]:
    x = checks.image(function, x, "x")
    kernel = np.asarray(kernel) != 0
    if kernel.ndim != x.ndim or not kernel.any():
        raise ValueError(
            f"{function}: kernel must have rank {x.ndim} and an entry that is not 0, "
            f"got shape {kernel.shape} with {kernel.sum()}"
        )
    if border not in ("ignore", 0):
        raise ValueError(f'{function}: border must be "ignore" or 0, got {border!r}')
    if iterations < 0:
        raise ValueError(f"{function}: iterations must be 0 or more, got {iterations}")
    return x, kernel


def _erode(
    x: jax.Array, kernel: np.ndarray, iterations: int, border: Border
) -> jax.Array:
    neutral = _greatest(x.dtype)
    outside = neutral if border == "ignore" else 0
    step = _step(_offsets(kernel), jnp.minimum, neutral, outside)
    return lax.fori_loop(0, iterations, step, x)


def _dilate(
    x: jax.Array, kernel: np.ndarray, iterations: int, border: Border
) -> jax.Array:
    neutral = least(x.dtype)
    outside = neutral if border == "ignore" else 0
    step = _step(-_offsets(kernel), jnp.maximum, neutral, outside)
    return lax.fori_loop(0, iterations, step, x)


def _offsets(kernel: np.ndarray) -> np.ndarray:
    return np.argwhere(kernel) - [n // 2 for n in kernel.shape]


def _step(offsets: np.ndarray, extreme: Extreme, neutral, outside):
    """One erosion or dilation, as the body of a loop."""
    first, last = offsets.min(0), offsets.max(0)
    if len(offsets) == np.prod(last - first + 1):  # a full box
        window = tuple((int(-a), int(b)) for a, b in zip(first, last, strict=True))
        return lambda _, x: _box(x, window, extreme, outside)
    return lambda _, x: _over_offsets(x, offsets, extreme, neutral, outside)


def _box(x: jax.Array, window: Window, extreme: Extreme, outside) -> jax.Array:
    """Extreme of x in a box, one axis after the other."""
    for axis, (before, after) in enumerate(window):
        x = _line(x, axis, before, after, extreme, outside)
    return x


def _line(
    x: jax.Array, axis: int, before: int, after: int, extreme: Extreme, outside
) -> jax.Array:
    """Extreme of the pixels from `before` ahead of each to `after` behind it.

    The reach doubles in every step, so that the cost grows with its logarithm.
    """
    x = _surround(
        x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)], outside
    )
    reach, size = 1, before + after + 1
    while reach < size:
        shift = min(reach, size - reach)
        length = x.shape[axis]
        x = extreme(
            lax.slice_in_dim(x, 0, length - shift, axis=axis),
            lax.slice_in_dim(x, shift, length, axis=axis),
        )
        reach += shift
    return x


def _over_offsets(x, offsets: np.ndarray, extreme: Extreme, neutral, outside):
    """Extreme of x at the given offsets from each pixel."""
    before = np.maximum(-offsets.min(0), 0)
    after = np.maximum(offsets.max(0), 0)
    padded = _surround(
        x, list(zip(before.tolist(), after.tolist(), strict=True)), outside
    )

    def take(best, start):
        return extreme(best, lax.dynamic_slice(padded, list(start), x.shape)), None

    # Eight at a time: few passes over the image, and a small program for any
    # kernel.
    starts = jnp.asarray(offsets + before, jnp.int32)
    best = jnp.full_like(x, neutral)
    return lax.scan(take, best, starts, unroll=min(8, len(offsets)))[0]


def _surround(x: jax.Array, widths: list[tuple[int, int]], value) -> jax.Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), [(a, b, 0) for a, b in widths])


def _difference(upper: jax.Array, lower: jax.Array) -> jax.Array:
    return upper & ~lower if upper.dtype == bool else upper - lower


def least(dtype: jnp.dtype):
    """What loses against every other value in a maximum."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return False
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    return -jnp.inf if inexact else jnp.iinfo(dtype).min


def _greatest(dtype: jnp.dtype):
    """What loses against every other value in a minimum."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return True
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    return jnp.inf if inexact else jnp.iinfo(dtype).max
