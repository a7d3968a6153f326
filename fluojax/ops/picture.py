"""Operations on the grey values of one picture in [0, 1]."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def brightness_contrast(
    image: ArrayLike, brightness: ArrayLike, contrast: ArrayLike
) -> jax.Array:
    """`clip(x (1 + contrast) + brightness, 0, 1)` for any shape, at least float32.

    Args:
      image: grey values in [0, 1]; others are clipped.
      brightness: added, one number.
      contrast: relative change of the slope, one number, -1 and above.
    """
    image = jnp.asarray(image)
    dtype = jnp.float64 if image.dtype == jnp.float64 else jnp.float32
    image = image.astype(dtype)
    brightness = jnp.asarray(brightness, dtype)
    contrast = jnp.asarray(contrast, dtype)
    return jnp.clip(image * (1 + contrast) + brightness, 0, 1)
