"""Operations on the grey values of one picture in [0, 1]."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def brightness_contrast(
    image: ArrayLike, brightness: ArrayLike, contrast: ArrayLike
) -> jax.Array:
    """`clip(x (1 + contrast) + brightness, 0, 1)` for any shape."""
    image = jnp.asarray(image)
    return jnp.clip(image * (1 + contrast) + brightness, 0, 1)
