"""Skeletons that keep the topology of a mask, hard or differentiable.

One image `[*S]`, rank 2 or 3; foreground is connected across corners (8 or 26
neighbours), background across faces (4 or 6), the outside is background.

A pixel is simple if its deletion changes neither the number of components nor
of holes or cavities. That can be read from K, the part of its surface that
touches foreground neighbours: K must be connected and have the Euler number 1.
In 2-D the second implies the first. Simple pixels that are no end points are
deleted, one parity class after the other, so that no two neighbours go at once.

Every function raises ValueError for an image of another rank.
"""

import functools
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks

Method = Literal["boolean", "euler"]
# Rounds that flood any connected set of neighbours in 3-D from its first pixel,
# found by trying all 2^26 sets.
_FLOOD_ROUNDS = 8


def topological_skeleton(
    x: ArrayLike,
    num_iters: int,
    *,
    method: Method = "boolean",
    noise: ArrayLike | None = None,
    beta: float = 0.33,
    tau: float = 1.0,
    ties: Literal["half", "image"] = "half",
) -> jax.Array:
    """Skeleton after a given number of thinnings, with a gradient.

    Each thinning goes through the parity classes of pixels, first axis fastest,
    and deletes the simple ones that are no end points, that is, that had more
    than one neighbour when the thinning began.

    Without `noise`, pixels above 1/2 are foreground. With noise u, those are
    where

        z = sigmoid((logit(x) + beta · logit(u)) / tau)

    is above 1/2, 1e-8 being added to x and to 1 - x.

    The gradient is that of z (or x), but 0 for deleted pixels. Every thinning
    takes the minimum of a pixel and of 1 minus whether it should go. Where the
    two are equal, as they always are for a pixel of the skeleton, programs
    halve the gradient: `ties="half"`, as published. `ties="image"` gives all of
    it to the pixel, so that the gradient does not fade with `num_iters`.

    Args:
      x: `[*S]`, rank 2 or 3, probabilities or a mask.
      num_iters: thinnings; an object of radius r needs about r.
      method: what makes a pixel simple. "boolean" is the full condition,
        "euler" the Euler number alone, which in 3-D may also delete a pixel
        that joins two parts and closes one ring.
      noise: `[*S]`, uniform in (0, 1).
      beta: how much the noise counts.
      tau: how soft the threshold is for the gradient.
      ties: "half" as published, or "image".

    Returns:
      `[*S]` of zeros and ones, float32, or float64 where x is.

    Raises:
      ValueError: the rank, the shape of the noise, `method`, `ties` or a
        negative `num_iters`.

    Source: Menten et al., A skeletonization algorithm for gradient-based
    optimization, ICCV 2023.
    """
    name = "topological_skeleton"
    x = checks.image(name, x, "x")
    x = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    _check_options(num_iters, method, ties)
    soft = x if noise is None else _noisy(x, noise, beta, tau)
    mask = lax.stop_gradient(soft) > 0.5

    def thin(_, state):
        mask, share = state
        going = _going(mask, method)
        if ties == "half":
            share = jnp.where(mask != going, 0.5 * share, share)
        return mask & ~going, jnp.where(mask & going, 0.0, share)

    skeleton, share = lax.fori_loop(0, num_iters, thin, (mask, jnp.ones_like(soft)))
    return _passing(soft, skeleton.astype(x.dtype), share)


def skeletonize(mask: ArrayLike) -> jax.Array:
    """Skeleton of a mask, `[*S]` bool: thin, connected, of the same topology.

    `topological_skeleton` until nothing changes: a subset of the mask with as
    many components, holes and cavities, in which every simple pixel is an end
    point. A solid object may end as a single pixel, one with a hole as a ring.

    Args:
      mask: `[*S]`, rank 2 or 3, any dtype; non-zero is foreground.
    """
    mask = checks.image("skeletonize", mask, "mask").astype(bool)

    def thin(state):
        mask, _ = state
        going = mask & _going(mask, "boolean")
        return mask & ~going, jnp.any(going)

    return lax.while_loop(lambda state: state[1], thin, (mask, jnp.bool_(True)))[0]


def _check_options(num_iters, method, ties) -> None:
    name = "topological_skeleton"
    if num_iters < 0:
        raise ValueError(f"{name}: num_iters must be 0 or more, got {num_iters}")
    if method not in ("boolean", "euler"):
        raise ValueError(f"{name}: method must be boolean or euler, got {method!r}")
    if ties not in ("half", "image"):
        raise ValueError(f"{name}: ties must be half or image, got {ties!r}")


def _noisy(x: jax.Array, noise: ArrayLike, beta: float, tau: float) -> jax.Array:
    noise = jnp.asarray(noise).astype(x.dtype)
    if noise.shape != x.shape:
        raise ValueError(
            f"topological_skeleton: noise must have the shape of x {x.shape}, "
            f"got {noise.shape}"
        )
    # relu keeps XLA from adding 1e-8 to the 1, which float32 would lose.
    logit = jnp.log(x + 1e-8) - jnp.log(jax.nn.relu(1.0 - x) + 1e-8)
    logistic = jnp.log(noise) - jnp.log1p(-noise)
    return jax.nn.sigmoid((logit + beta * lax.stop_gradient(logistic)) / tau)


@jax.custom_jvp
def _passing(soft: jax.Array, value: jax.Array, share: jax.Array) -> jax.Array:
    """`value`, whose gradient is `share` of that of `soft`."""
    return value


@_passing.defjvp
def _passing_jvp(primals, tangents):
    return primals[1], tangents[0] * primals[2]


def _going(mask: jax.Array, method: Method) -> jax.Array:
    """Pixels that one round over all parity classes finds simple and no end.

    Background pixels are among them: they count as pixels that should go.
    """
    widths = [(1, n % 2 + 1) for n in mask.shape]
    padded, ends = jnp.pad(mask, widths), jnp.pad(_is_end(mask), widths)
    # The first axis is the fastest; a pixel has the parity of its place in the
    # padded image.
    starts = [s[::-1] for s in itertools.product((1, 0), repeat=mask.ndim)]
    starts = jnp.asarray(starts, jnp.int32)

    def find(i, going):
        start = list(starts[i])
        size = [2 * ((n + 1) // 2) + 1 for n in mask.shape]
        parts = [lax.dynamic_slice(a, start, size) for a in (padded, ends, going)]
        found = _is_simple(parts[0] & ~parts[2], method)
        found = found & ~_every_other(parts[1], (0,) * mask.ndim)
        found = lax.pad(found, False, [(1, 1, 1)] * mask.ndim)
        return lax.dynamic_update_slice(going, parts[2] | found, start)

    # A loop over the classes, since a chain of neighbourhoods in one program
    # would be computed again and again.
    going = lax.fori_loop(0, len(starts), find, jnp.zeros_like(padded))
    return lax.slice(going, [1] * mask.ndim, [n + 1 for n in mask.shape])


def _is_end(mask: jax.Array) -> jax.Array:
    """Pixels with at most one neighbour."""
    count = mask.astype(jnp.int32)
    for axis in range(mask.ndim):
        widths = [(1, 1, 0) if a == axis else (0, 0, 0) for a in range(mask.ndim)]
        padded, n = lax.pad(count, jnp.int32(0), widths), mask.shape[axis]
        parts = [lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(3)]
        count = parts[0] + parts[1] + parts[2]
    return count - mask.astype(jnp.int32) <= 1


def _every_other(part: jax.Array, offset: tuple[int, ...]) -> jax.Array:
    """Neighbours at `offset` of every second pixel, the first being the second."""
    stop = [n - 1 + d for n, d in zip(part.shape, offset, strict=True)]
    return lax.slice(part, [1 + d for d in offset], stop, [2] * part.ndim)


def _is_simple(part: jax.Array, method: Method) -> jax.Array:
    """Whether every second pixel is simple; `part` has one more on each side."""
    rank = part.ndim
    bits = jnp.zeros([n // 2 for n in part.shape], jnp.uint32)
    for place, offset in enumerate(itertools.product((-1, 0, 1), repeat=rank)):
        if any(offset):
            neighbour = _every_other(part, offset).astype(jnp.uint32)
            bits = bits | neighbour << jnp.uint32(place)
    euler = jnp.zeros(bits.shape, jnp.int32)
    for touching, sign in _surface(rank):
        euler = euler + jnp.where((bits & touching) != 0, sign, 0)
    if method == "euler":  # of the image without the pixel: background stays as it is
        return (euler == 1) | ~_every_other(part, (0,) * rank)
    return (euler == 1) & _is_connected(bits) if rank == 3 else euler == 1


@functools.cache
def _surface(rank: int) -> list[tuple[np.uint32, np.int32]]:
    """The corners, edges and faces of a pixel: who touches them, and their sign.

    That in direction d belongs to the neighbours whose offset is d with some of
    its axes set to 0.
    """
    places = {d: i for i, d in enumerate(itertools.product((-1, 0, 1), repeat=rank))}
    elements = []
    for direction in places:
        axes = sum(map(abs, direction))
        if axes == 0:
            continue
        keeps = itertools.product((0, 1), repeat=rank)
        owners = {
            tuple(d * k for d, k in zip(direction, keep, strict=True)) for keep in keeps
        }
        bits = sum(1 << places[owner] for owner in owners if any(owner))
        elements.append((np.uint32(bits), np.int32((-1) ** (rank - axes))))
    return elements


def _is_connected(bits: jax.Array) -> jax.Array:
    """Whether 3 x 3 x 3 neighbours, given as bits, are one 26-component."""
    lowest = bits & (~bits + jnp.uint32(1))
    flood = lambda _, filled: _widen(filled) & bits  # noqa: E731
    return lax.fori_loop(0, _FLOOD_ROUNDS, flood, lowest) == bits


def _widen(bits: jax.Array) -> jax.Array:
    """A set of places in 3 x 3 x 3 and all their neighbours."""
    for axis, step in enumerate((9, 3, 1)):
        step = jnp.uint32(step)
        up = (bits << step) & _layer_mask(axis, 0)
        down = (bits >> step) & _layer_mask(axis, 2)
        bits = bits | up | down
    return bits


@functools.cache
def _layer_mask(axis: int, empty: int) -> np.uint32:
    """All places but those of one layer, where a shift would wrap around."""
    cube = np.arange(27).reshape(3, 3, 3)
    kept = np.delete(cube, empty, axis)
    return np.uint32(sum(1 << int(place) for place in kept.ravel()))
