"""Intensities to the range in which networks see them.

Each image is described by an offset and a gain per channel, found once on the
host; applying them (`apply`) is one line inside the compiled step, so that
images travel to the device in the type of their file.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Scaling = Literal["fixed", "percentile", "asinh"]
KNEE = 20 / 255  # asinh: linear below, logarithmic above
LOW, HIGH = 1.0, 99.8  # percentiles that become 0 and 1


def offset_and_gain(image: np.ndarray, scaling: Scaling) -> np.ndarray:
    """`[2, C]` float32: (x - offset) * gain lies in [0, 1] for most of the image.

    "fixed" and "asinh" divide by the largest value of the type (floats are
    taken as they are); "percentile" stretches each channel of this image from
    its 1st to its 99.8th percentile. A constant channel becomes 0.
    """
    channels = image.shape[-1]
    if scaling != "percentile":
        top = np.iinfo(image.dtype).max if image.dtype.kind in "ui" else 1
        gain = np.full(channels, 1.0 / top)
        return np.stack([np.zeros(channels), gain]).astype(np.float32)
    flat = image.reshape(-1, channels)
    low, high = np.percentile(flat, (LOW, HIGH), axis=0)
    # Sparse images can have equal percentiles and still hold cells.
    narrow = high <= low
    low = np.where(narrow, flat.min(0), low)
    high = np.where(narrow, flat.max(0), high)
    spread = high - low
    # Below this the gain would be infinite as float32.
    varies = spread > np.finfo(np.float32).tiny
    gain = np.where(varies, 1.0 / np.where(varies, spread, 1.0), 0.0)
    return np.stack([low, gain]).astype(np.float32)


def apply(image: jax.Array, scale: jax.Array, scaling: Scaling) -> jax.Array:
    """`[B, *S, C]` of any real type as float32 in [0, 1].

    Args:
      image: values of the file.
      scale: `[B, 2, C]` from `offset_and_gain`.
      scaling: "asinh" compresses highlights, asinh(x/k) / asinh(1/k).
    """
    spatial = tuple(range(1, image.ndim - 1))
    offset = jnp.expand_dims(scale[:, 0], spatial)
    gain = jnp.expand_dims(scale[:, 1], spatial)
    values = (image.astype(jnp.float32) - offset) * gain
    if scaling == "asinh":
        values = jnp.arcsinh(values / KNEE) / np.arcsinh(1 / KNEE)
    return jnp.clip(values, 0.0, 1.0)
