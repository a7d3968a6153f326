"""Operations on the grey values of one picture.

Arithmetic is float32, float64 for float64 pictures.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.correlate import correlate_axis
from fluojax.ops.geometry import MODES, Mode, floating

# What jnp.pad calls SciPy's modes; the others are zeros outside.
_PADDING = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge"}
# OpenCV's kernels where no sigma is given.
_OPENCV = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
    9: tuple(k / 256 for k in (4, 13, 30, 51, 60, 51, 30, 13, 4)),
}


def brightness_contrast(
    image: ArrayLike, brightness: ArrayLike, contrast: ArrayLike
) -> jax.Array:
    """`clip(x (1 + contrast) + brightness, 0, 1)` for any shape.

    Args:
      image: grey values in [0, 1]; others are clipped.
      brightness: added, one number.
      contrast: relative change of the slope, one number, -1 and above.
    """
    image = floating(image)
    brightness = jnp.asarray(brightness, image.dtype)
    contrast = jnp.asarray(contrast, image.dtype)
    return jnp.clip(image * (1 + contrast) + brightness, 0, 1)


def normalize_percentile(
    image: ArrayLike, low: float = 1.0, high: float = 99.8
) -> jax.Array:
    """`[*S]` stretched so that two of its percentiles become 0 and 1, and clipped.

    Where the percentiles are equal, as in sparse pictures, the extremes take
    their place; a constant picture becomes 0.

    Args:
      image: `[*S]` of any real dtype.
      low, high: percentiles, 0 <= low < high <= 100.

    Raises:
      ValueError: the rank is neither 2 nor 3, or the percentiles are not in
        this order.
    """
    image = floating(checks.image("normalize_percentile", image, "image"))
    if not 0 <= low < high <= 100:
        raise ValueError(
            "normalize_percentile: percentiles must be 0 <= low < high <= 100, got "
            f"{low} and {high}"
        )
    bottom, top = jnp.percentile(image, jnp.asarray([low, high], image.dtype))
    narrow = top <= bottom
    bottom = jnp.where(narrow, jnp.min(image), bottom)
    top = jnp.where(narrow, jnp.max(image), top)
    varies = top > bottom
    spread = jnp.where(varies, top - bottom, 1.0)
    return jnp.where(varies, jnp.clip((image - bottom) / spread, 0, 1), 0.0)


def gaussian_blur(
    image: ArrayLike,
    sigma: ArrayLike,
    *,
    truncate: float = 4.0,
    mode: Mode = "reflect",
    ksize: int | None = None,
) -> jax.Array:
    """A picture convolved with a Gaussian along every axis.

    Args:
      image: `[*S]` of any real dtype.
      sigma: standard deviation in pixels. With `ksize` it may be known only when
        the program runs; 0 (as a Python number) then takes OpenCV's kernel of
        that size, a traced 0 no blur.
      truncate: half the width of the kernel in sigmas, rounded.
      mode: what lies outside the picture, as for `sample`. OpenCV's default is
        "mirror".
      ksize: width of the kernel in pixels, odd, in place of `truncate`.

    Returns:
      `[*S]`, at least float32.

    Raises:
      ValueError: the rank is neither 2 nor 3, sigma is negative, or 0 without
        ksize; ksize is not odd and positive, or the mode is unknown.
    """
    image = floating(checks.image("gaussian_blur", image, "image"))
    if mode not in MODES:
        raise ValueError(
            f"gaussian_blur: mode must be one of {', '.join(MODES)}, got {mode!r}"
        )
    taps = _gaussian_taps(sigma, truncate, ksize, image.dtype)
    radius = taps.shape[1] // 2
    for axis, length in enumerate(image.shape):
        x = image
        if mode in _PADDING:
            widths = [(0, 0)] * x.ndim
            widths[axis] = (radius, radius)
            x = jnp.pad(x, widths, mode=_PADDING[mode])
        blurred = correlate_axis(x, taps, axis)[0]
        start = (x.shape[axis] - length) // 2
        image = jax.lax.slice_in_dim(blurred, start, start + length, axis=axis)
    return image


def _gaussian_taps(sigma, truncate: float, ksize: int | None, dtype):
    """`[1, 2 r + 1]` weights of sum 1."""
    known = not isinstance(sigma, jax.core.Tracer)
    if known and not (float(sigma) >= 0 and (float(sigma) > 0 or ksize is not None)):
        raise ValueError(
            f"gaussian_blur: sigma must be positive, or 0 with a ksize, got {sigma}"
        )
    if ksize is None:
        if not known:
            raise ValueError(
                "gaussian_blur: a sigma known only at run time needs a ksize"
            )
        ksize = 2 * int(truncate * float(sigma) + 0.5) + 1
    elif ksize < 1 or ksize % 2 == 0:
        raise ValueError(f"gaussian_blur: ksize must be odd and positive, got {ksize}")
    elif known and float(sigma) == 0:
        if ksize in _OPENCV:
            return np.array([_OPENCV[ksize]])
        sigma = 0.3 * ((ksize - 1) * 0.5 - 1) + 0.8
    places = np.arange(ksize) - ksize // 2
    if known:
        weights = np.exp(-0.5 * (places / float(sigma)) ** 2)
        return (weights / weights.sum())[None]
    scale = jnp.maximum(jnp.asarray(sigma, dtype), 1e-3)
    weights = jnp.exp(-0.5 * jnp.square(jnp.asarray(places, dtype) / scale))
    return (weights / jnp.sum(weights))[None]
