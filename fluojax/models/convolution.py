"""Convolutions in the forms that a CPU computes fast.

`convolution` takes what `lax.conv_general_dilated` takes and is what `nn.Conv` is
given (`conv_general_dilated=convolution`); images are `[B, *S, C]`, kernels
`[*k, C, D]`. XLA's CPU compiler is slow at three kinds, which are written here
as what they also are. Times in brackets: before -> after, of one core.

- Kernels of one pixel are a matrix product (forward 3.9 -> 2.2, gradient of the
  kernel 22 -> 2.5 ms for 4 x 128 x 128 x 32 to 32).
- Kernels of one channel each are a sum of shifted images (forward 109 -> 8, both
  gradients 1087 -> 115 ms for 3 x 3 on 4 x 64 x 64 x 256).
- The gradient of a kernel that joins many channels is one matrix product for
  each of its pixels (186 -> 80 ms for 3 x 3 on 4 x 32 x 32 x 512 to 256).

Other platforms compute the convolution itself, except that of one pixel.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Channels on both sides from which on products make the kernel's gradient.
_MANY = 128


class Steps(NamedTuple):
    """How a kernel moves over an image, one number or pair per spatial axis."""

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


def convolution(
    image: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    **options,
) -> jax.Array:
    """`lax.conv_general_dilated` of `[B, *S, C]` and `[*k, C / groups, D]`."""
    sizes = kernel.shape[:-2]
    dilation = tuple(rhs_dilation or (1,) * len(sizes))
    steps = Steps(tuple(strides), tuple(map(tuple, padding)), dilation)
    groups, channels = feature_group_count, image.shape[-1]
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        feature_group_count=groups,
        **options,
    )
    if groups == 1 and not any(map(sum, steps.padding)) and math.prod(sizes) == 1:
        kept = (slice(None), *(slice(None, None, step) for step in strides))
        return image[kept] @ kernel.reshape(kernel.shape[-2:])
    if jax.default_backend() != "cpu":
        return plain(image, kernel)
    if groups == channels == kernel.shape[-1]:
        return sum_of_shifts(image, kernel, steps)
    many = groups == 1 and min(kernel.shape[-2:]) >= _MANY
    if many and steps.strides == (1,) * len(sizes):
        return _with_fast_gradient(plain, steps)(image, kernel)
    return plain(image, kernel)


@functools.partial(jax.jit, static_argnames="steps")
def sum_of_shifts(image: jax.Array, kernel: jax.Array, steps: Steps) -> jax.Array:
    """The convolution of every channel with a kernel of its own, `[*k, 1, C]`."""
    padded = jnp.pad(image, [(0, 0), *steps.padding, (0, 0)])
    sizes = kernel.shape[:-2]
    reaches = [d * (k - 1) for d, k in zip(steps.dilation, sizes, strict=True)]
    ends = [n - reach for n, reach in zip(padded.shape[1:-1], reaches, strict=True)]

    def shifted(place: tuple[int, ...]) -> jax.Array:
        window = tuple(
            slice(d * first, d * first + end, stride)
            for d, first, end, stride in zip(
                steps.dilation, place, ends, steps.strides, strict=True
            )
        )
        weights = kernel[place].reshape((1,) * (image.ndim - 1) + (-1,))
        return padded[(slice(None), *window)] * weights

    return sum(map(shifted, _places(sizes)))


def _with_fast_gradient(plain, steps: Steps):
    """`plain`, a convolution of stride 1, with products for the kernel's gradient."""
    function = jax.custom_vjp(plain)

    def forward(image, kernel):
        return plain(image, kernel), (image, kernel)

    def backward(saved, slopes):
        image, kernel = saved
        _, of_image = jax.vjp(lambda image: plain(image, kernel), image)
        return *of_image(slopes), _of_kernel(image, kernel, slopes, steps)

    function.defvjp(forward, backward)
    return function


def _of_kernel(image, kernel, slopes, steps: Steps) -> jax.Array:
    """Gradient of the kernel; one shifted image at a time is written out."""
    padded = jnp.pad(image, [(0, 0), *steps.padding, (0, 0)])
    size = (*slopes.shape[:-1], image.shape[-1])
    flat = slopes.reshape(-1, slopes.shape[-1])
    starts = np.array(list(_places(kernel.shape[:-2]))) * np.array(steps.dilation)

    def at(start: jax.Array) -> jax.Array:
        window = lax.dynamic_slice(padded, (0, *start, 0), size)
        return window.reshape(-1, size[-1]).T @ flat

    return lax.map(at, jnp.asarray(starts, jnp.int32)).reshape(kernel.shape)


def _places(sizes: Sequence[int]):
    """Indices of the pixels of a kernel."""
    return itertools.product(*map(range, sizes))


def shift_operations(kernel: jax.ShapeDtypeStruct, image: jax.ShapeDtypeStruct) -> int:
    """Multiplications and additions of `sum_of_shifts` with that result."""
    return 2 * image.size * math.prod(kernel.shape[:-2])
