"""Morphology of probabilities, and the soft skeleton built from it.

`f(x) -> [*S]`: x is one image `[*S]`, rank 2 or 3, of any real dtype; values
are expected in [0, 1] and not clipped; the result is float32, or float64 where
x is. Pixels outside the image never count. `soft_dilate` takes the maximum of
3 x 3 (x 3) pixels and `soft_erode` the minimum of a pixel and its neighbours
along the axes, as in clDice: not a matching pair, so that an opening may exceed
its image.

Of equal values along an axis the first one gets the gradient, and of axes with
equal minima the first.

Every function raises ValueError for an image of another rank.

Source: Shit et al., clDice, CVPR 2021, as in the PyTorch program of the
authors, which computes the same values; its gradients differ where values are
equal.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks


def soft_erode(x: ArrayLike) -> jax.Array:
    """Least of each pixel and its 4 (in 3-D: 6) neighbours, `[*S]`."""
    return _erode(_image("soft_erode", x))


def soft_dilate(x: ArrayLike) -> jax.Array:
    """Greatest of the 3 x 3 (x 3) pixels around each, `[*S]`."""
    return _dilate(_image("soft_dilate", x))


def soft_open(x: ArrayLike) -> jax.Array:
    """`soft_dilate` of `soft_erode`, `[*S]`."""
    return _dilate(_erode(_image("soft_open", x)))


def soft_skeleton(x: ArrayLike, num_iters: int) -> jax.Array:
    """Soft skeleton of one image.

    With x_0 = x, x_k+1 = erode(x_k) and D_k = relu(x_k - dilate(x_k+1)), the
    last of

        S_0 = D_0,  S_k = S_k-1 + relu(D_k - S_k-1 · D_k),  k = 1 .. num_iters.

    An image that is 1 everywhere has the skeleton 0. The gradient keeps one
    state for each of about √num_iters stretches and computes the rest again, so
    that memory grows with the root of `num_iters`; the time to compile does not
    depend on it.

    Args:
      x: `[*S]`, rank 2 or 3.
      num_iters: erosions, at least the radius of the thickest object in pixels
        for that to have its middle in the skeleton.

    Returns:
      `[*S]`, in [0, 1] for x in [0, 1].

    Raises:
      ValueError: x has another rank, or `num_iters` is negative.
    """
    if num_iters < 0:
        raise ValueError(f"soft_skeleton: num_iters must be 0 or more, got {num_iters}")
    return _skeleton(_image("soft_skeleton", x), num_iters + 1)


def over_images(
    function: Callable[[jax.Array], jax.Array], images: jax.Array
) -> jax.Array:
    """`function` of every image of a batch `[B, *S]`.

    One after the other on CPU, where the arrays of one image stay in the cache
    and those of a batch do not; all at once elsewhere.
    """
    one_by_one = jax.default_backend() == "cpu"
    return lax.map(function, images) if one_by_one else jax.vmap(function)(images)


def _image(function: str, x: ArrayLike) -> jax.Array:
    x = checks.image(function, x, "x")
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _shift(x: jax.Array, axis: int, by: int, outside: float) -> jax.Array:
    """The pixel `by` further along the axis, at every pixel."""
    widths = [(-by, by, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    return lax.pad(x, jnp.asarray(outside, x.dtype), widths)


def _line_max(x: jax.Array, axis: int) -> jax.Array:
    before, after = (_shift(x, axis, by, -jnp.inf) for by in (-1, 1))
    return jnp.maximum(jnp.maximum(before, x), after)


def _line_min(x: jax.Array, axis: int) -> jax.Array:
    before, after = (_shift(x, axis, by, jnp.inf) for by in (-1, 1))
    return jnp.minimum(jnp.minimum(before, x), after)


def _line_max_vjp(x: jax.Array, slope: jax.Array, axis: int) -> jax.Array:
    """Slopes of the maxima of lines of three, brought to the first greatest.

    Each pixel asks whether it is that of the line around the pixel before it,
    around itself, and around the pixel behind it.
    """
    before, two_before = (_shift(x, axis, by, -jnp.inf) for by in (-1, -2))
    after, two_after = (_shift(x, axis, by, -jnp.inf) for by in (1, 2))
    slope_before, slope_after = (_shift(slope, axis, by, 0.0) for by in (-1, 1))
    last = (x > before) & (x > two_before)
    middle = (x > before) & (x >= after)
    first = (x >= after) & (x >= two_after)
    return (
        jnp.where(last, slope_before, 0.0)
        + jnp.where(middle, slope, 0.0)
        + jnp.where(first, slope_after, 0.0)
    )


@jax.custom_vjp
def _erode(x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.minimum, (_line_min(x, a) for a in range(x.ndim)))


@jax.custom_vjp
def _dilate(x: jax.Array) -> jax.Array:
    for axis in reversed(range(x.ndim)):
        x = _line_max(x, axis)
    return x


def _together(function, *args):
    return function(*args)


def _erode_vjp(x, eroded, slope, total, call=_together) -> jax.Array:
    """`total` and the slopes of an erosion, at the pixels of x that it took."""
    for axis in range(x.ndim):
        share = slope
        if axis < x.ndim - 1:
            share = call(functools.partial(_share, axis=axis), slope, x, eroded)
            slope = slope - share  # exact: all or nothing
        bring = functools.partial(_line_max_vjp, axis=axis)
        total = call(lambda t, x, s, f=bring: t + f(-x, s), total, x, share)
    return total


def _share(slope: jax.Array, x: jax.Array, eroded: jax.Array, axis: int) -> jax.Array:
    """Slopes of the pixels whose minimum lies on their line along the axis."""
    return jnp.where(_line_min(x, axis) == eroded, slope, 0.0)


def _dilate_vjp(x, slope, total, call=_together) -> jax.Array:
    """`total` and the slopes of a dilation, at the pixels of x that it took."""
    stages = [x]
    for axis in reversed(range(1, x.ndim)):
        stages.append(call(functools.partial(_line_max, axis=axis), stages[-1]))
    for axis, stage in enumerate(reversed(stages[1:])):
        slope = call(functools.partial(_line_max_vjp, axis=axis), stage, slope)
    last = functools.partial(_line_max_vjp, axis=x.ndim - 1)
    return call(lambda t, x, s: t + last(x, s), total, x, slope)


def _erode_fwd(x):
    eroded = _erode(x)
    return eroded, (x, eroded)


def _erode_bwd(saved, slope):
    return (_erode_vjp(*saved, slope, jnp.zeros_like(slope)),)


def _dilate_bwd(x, slope):
    return (_dilate_vjp(x, slope, jnp.zeros_like(slope)),)


_erode.defvjp(_erode_fwd, _erode_bwd)
_dilate.defvjp(lambda x: (_dilate(x), x), _dilate_bwd)


# The skeleton is a loop over `num_steps` = num_iters + 1 equal steps. A step
# takes x_k, x_k+1 and S (0 before the first): as x_k+1 was computed a step
# earlier, no program computes one neighbourhood inside another.


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _skeleton(x: jax.Array, num_steps: int) -> jax.Array:
    return lax.fori_loop(0, num_steps, lambda _, state: _step(state), _start(x))[-1]


def _start(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return x, _erode(x), jnp.zeros_like(x)


def _step(state):
    x, eroded, skeleton = state
    return eroded, _erode(eroded), _grow(skeleton, _delta(x, eroded))


def _delta(x: jax.Array, eroded: jax.Array) -> jax.Array:
    return jax.nn.relu(x - _dilate(eroded))


def _grow(skeleton: jax.Array, delta: jax.Array) -> jax.Array:
    return skeleton + jax.nn.relu(delta - skeleton * delta)


def _stretches(num_steps: int) -> tuple[int, int]:
    """Number of stretches, and of steps in each but perhaps the last."""
    length = math.ceil(math.sqrt(num_steps))
    return math.ceil(num_steps / length), length


def _skeleton_fwd(x, num_steps):
    count, length = _stretches(num_steps)

    def stretch(i, carry):
        state, kept = carry
        kept = [_put(a, i, b) for a, b in zip(kept, state[::2], strict=True)]
        stop = jnp.minimum((i + 1) * length, num_steps)
        return lax.fori_loop(i * length, stop, lambda _, s: _step(s), state), kept

    state, kept = lax.fori_loop(0, count, stretch, (_start(x), [_room(count, x)] * 2))
    return state[-1], kept


def _skeleton_vjp(num_steps, kept, slope):
    count, length = _stretches(num_steps)

    def stretch(i, carry):
        slopes, stacks = carry
        i = count - 1 - i
        steps = jnp.minimum(length, num_steps - i * length)
        call = _apart_if(steps > 0)
        stacks = _replay(_at(kept[0], i), _at(kept[1], i), steps, stacks, call)

        def back(k, slopes):
            k = steps - 1 - k
            before = [_at(stack, k) for stack in stacks]
            return _step_vjp(*before, _at(stacks[0], k + 1), *slopes, call)

        return lax.fori_loop(0, steps, back, slopes), stacks

    # The room is made once, not filled with zeros again for every stretch.
    stacks = [_room(n, slope) for n in (length + 1, length, length)]
    carry = (jnp.zeros_like(slope), slope), stacks
    return (lax.fori_loop(0, count, stretch, carry)[0][0],)


_skeleton.defvjp(_skeleton_fwd, _skeleton_vjp)


def _replay(x, skeleton, steps, stacks, call):
    """Fills stacks with the images, skeletons and deltas of a stretch."""

    def step(k, carry):
        (x, eroded, skeleton), (images, skeletons, deltas) = carry
        delta = call(_delta, x, eroded)
        stacks = [
            _put(images, k + 1, eroded),
            _put(skeletons, k, skeleton),
            _put(deltas, k, delta),
        ]
        return (eroded, _erode(eroded), _grow(skeleton, delta)), stacks

    stacks = [_put(stacks[0], 0, x), *stacks[1:]]
    return lax.fori_loop(0, steps, step, ((x, _erode(x), skeleton), stacks))[1]


def _step_vjp(x, skeleton, delta, eroded, for_eroded, for_skeleton, call):
    """Slopes for x_k and S before a step from those for x_k+1 and S after it."""
    grows = delta - skeleton * delta > 0
    for_x = jnp.where(grows, for_skeleton * (1.0 - skeleton), 0.0)
    for_skeleton = jnp.where(grows, for_skeleton * (1.0 - delta), for_skeleton)
    for_eroded = _dilate_vjp(eroded, -for_x, for_eroded, call)
    return _erode_vjp(x, eroded, for_eroded, for_x, call), for_skeleton


def _apart_if(always: jax.Array):
    """Calls a function so that XLA compiles it by itself; `always` is true.

    XLA's CPU compiler would compute each neighbourhood again for every pixel of
    the next one, nine times slower in all. It does not look into the branches
    of a condition that only the run knows.
    """
    if jax.default_backend() != "cpu":
        return _together

    def call(function, *args):
        # All our functions return an array like their first.
        return lax.cond(always, function, lambda x, *_: x, *args)

    return call


def _room(count: int, like: jax.Array) -> jax.Array:
    return jnp.zeros((count, *like.shape), like.dtype)


def _put(stack: jax.Array, index, x: jax.Array) -> jax.Array:
    return lax.dynamic_update_index_in_dim(stack, x, index, 0)


def _at(stack: jax.Array, index) -> jax.Array:
    return lax.dynamic_index_in_dim(stack, index, 0, keepdims=False)
