"""Random deformations of one image `[*S]`, rank 2 or 3.

Each is a field of places to read from, so that a picture, its labels and its
mask move together: draw the coordinates once and `sample` each of them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fluojax.ops.geometry import Mode, floating, sample
from fluojax.ops.picture import gaussian_blur


def elastic_coordinates(
    key: jax.Array | None,
    shape: tuple[int, ...],
    *,
    alpha: float,
    sigma: float,
    noise: ArrayLike | None = None,
    coarse: int = 1,
) -> jax.Array:
    """Places moved by a smooth random field.

        displacement = alpha · Gaussian(noise, sigma), 0 outside the image

    Args:
      key: random key; None where noise is given.
      shape: size of the image, rank 2 or 3.
      alpha: amplitude in pixels before smoothing, which takes most of it.
      sigma: smoothness in pixels.
      noise: `[len(shape), *shape]` in [-1, 1]; None draws it uniformly.
      coarse: draw and smooth a field with a pixel for so many and enlarge it
        linearly: another field of the same kind, in a fraction of the time.

    Returns:
      `[len(shape), *shape]` for `sample`.

    Raises:
      ValueError: both or neither of key and noise are given, or noise does not
        fit the shape (or coarse is not 1).

    Source: Simard et al., Best practices for convolutional neural networks,
    ICDAR 2003.
    """
    rank = len(shape)
    if (key is None) == (noise is None):
        raise ValueError("elastic: give a key or the noise, one of the two")
    if noise is None:
        small = tuple(-(-n // coarse) for n in shape)
        noise = jax.random.uniform(key, (rank, *small), minval=-1.0, maxval=1.0)
    else:
        noise = floating(noise)
        if noise.shape != (rank, *shape) or coarse != 1:
            raise ValueError(
                f"elastic: noise must be {(rank, *shape)} with coarse=1, got "
                f"{noise.shape} with coarse={coarse}"
            )
    # White noise averaged over a window of 1 / coarse the width varies as much more.
    blurred = jnp.stack(
        [gaussian_blur(n, sigma / coarse, mode="constant") for n in noise]
    )
    field = alpha / coarse ** (rank / 2) * blurred
    if coarse != 1:
        enlarged = tuple(n * coarse for n in field.shape[1:])
        field = jax.image.resize(field, (rank, *enlarged), "linear")
        field = field[(slice(None), *(slice(n) for n in shape))]
    return _identity(shape, field.dtype) + field


def elastic(
    key: jax.Array | None,
    image: ArrayLike,
    *,
    alpha: float,
    sigma: float,
    noise: ArrayLike | None = None,
    coarse: int = 1,
    order: int = 1,
    mode: Mode = "reflect",
) -> jax.Array:
    """One image under `elastic_coordinates`; see `sample`."""
    image = jnp.asarray(image)
    coords = elastic_coordinates(
        key, image.shape, alpha=alpha, sigma=sigma, noise=noise, coarse=coarse
    )
    return sample(image, coords, order=order, mode=mode)


def grid_distortion_coordinates(
    key: jax.Array | None,
    shape: tuple[int, ...],
    *,
    num_steps: int = 5,
    limit: tuple[float, float] = (0.7, 1.3),
    steps: ArrayLike | None = None,
) -> jax.Array:
    """Places on a grid whose cells are stretched and squeezed along every axis.

    The lines of a regular grid are moved so that the cells between them are as
    wide as their factors say, the whole image keeping its extent; in between,
    places move linearly.

    Args:
      key: random key; None where steps are given.
      shape: size of the image, rank 2 or 3.
      num_steps: cells along every axis.
      limit: factors are drawn between these.
      steps: `[len(shape), num_steps]` positive factors; None draws them.

    Returns:
      `[len(shape), *shape]` for `sample`.

    Raises:
      ValueError: both or neither of key and steps are given, or steps are not
        one row per axis.
    """
    if (key is None) == (steps is None):
        raise ValueError("grid_distortion: give a key or the steps, one of the two")
    if steps is None:
        low, high = limit
        draw = jax.random.uniform(key, (len(shape), num_steps))
        steps = low + (high - low) * draw
    steps = floating(steps)
    if steps.ndim != 2 or len(steps) != len(shape):
        raise ValueError(
            f"grid_distortion: steps must be [{len(shape)}, cells], got {steps.shape}"
        )
    lines = []
    for n, widths in zip(shape, steps, strict=True):
        ends = jnp.concatenate([jnp.zeros(1, steps.dtype), jnp.cumsum(widths)])
        moved = ends / ends[-1] * (n - 1)
        regular = jnp.asarray(np.linspace(0, n - 1, len(ends)), steps.dtype)
        lines.append(jnp.interp(jnp.arange(n, dtype=steps.dtype), regular, moved))
    return jnp.stack(jnp.meshgrid(*lines, indexing="ij"))


def grid_distortion(
    key: jax.Array | None,
    image: ArrayLike,
    *,
    num_steps: int = 5,
    limit: tuple[float, float] = (0.7, 1.3),
    steps: ArrayLike | None = None,
    order: int = 1,
    mode: Mode = "reflect",
) -> jax.Array:
    """One image under `grid_distortion_coordinates`; see `sample`."""
    image = jnp.asarray(image)
    coords = grid_distortion_coordinates(
        key, image.shape, num_steps=num_steps, limit=limit, steps=steps
    )
    return sample(image, coords, order=order, mode=mode)


def _identity(shape: Sequence[int], dtype) -> jax.Array:
    axes = [jnp.arange(n, dtype=dtype) for n in shape]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"))
