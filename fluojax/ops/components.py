"""Connected components of a mask and the numbering of label maps.

One image `[*S]`, rank 2 or 3. Labels are int32 and 0, only 0, is background;
other values may be negative, large, or skip numbers. Counts are the true ones.

Components are found by hooking: every node knows the smallest node it has
heard of, tells it to the root that it knows, and follows pointers. The number
of rounds grows with the logarithm of the length of an object's longest path,
not with the path: 4 to 10 for cells, spirals, combs and percolation clusters
of 512 x 512 pixels.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks

# Ids below this are numbered with a table of that size; others are sorted.
_TABLE = 2**16

Offset = tuple[int, ...]
# The neighbour in a direction, and where it belongs to the same component.
Links = tuple[tuple[Offset, jax.Array], ...]
# Labels, their number, and the rounds that it took.
Labelled = tuple[jax.Array, jax.Array, jax.Array]


def label_components(
    mask: ArrayLike, connectivity: int | None = None, equal_values: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Labels of the connected components of one image, and their number.

    Components are numbered 1, 2, ... by the raster position of their first
    pixels, so that the labels equal those of SciPy and scikit-image. An empty
    mask has none.

    Args:
      mask: `[*S]` of any dtype, non-zero is foreground.
      connectivity: steps along how many axes join two pixels: 1 (faces) to the
        rank; None is the rank (also corners), as wherever cells are counted.
      equal_values: pixels join only if their values are equal, so that touching
        objects of a label map stay apart and one object in two places becomes
        two.

    Returns:
      `[*S]` int32 labels, 0 where the mask is, and the int32 number of
      components.

    Raises:
      ValueError: the rank is neither 2 nor 3, or connectivity is not in it.

    Source: label hooking with pointer jumping (Shiloach and Vishkin, Journal of
    Algorithms 1982) in rounds of the whole image. With corners all pixels of a
    2 x 2 (2 x 2 x 2) block are connected, and blocks are the nodes.
    """
    mask = checks.image("label_components", mask, "mask")
    connectivity = check_connectivity("label_components", connectivity, mask.ndim)
    if mask.size == 0:
        return jnp.zeros(mask.shape, jnp.int32), jnp.zeros((), jnp.int32)
    if equal_values:
        return _label_values(mask, connectivity)[:2]
    mask = mask.astype(bool)
    if connectivity == mask.ndim:
        return _label_by_blocks(mask)[:2]
    return _label_by_pairs(mask, connectivity)[:2]


def check_connectivity(function: str, connectivity: int | None, rank: int) -> int:
    """`connectivity`, or the rank for None.

    Raises:
      ValueError: it is not a whole number from 1 to the rank.
    """
    if connectivity is None:
        return rank
    if connectivity not in range(1, rank + 1):
        raise ValueError(
            f"{function}: connectivity must be 1 to {rank} for rank {rank}, "
            f"got {connectivity!r}"
        )
    return int(connectivity)


def count_instances(labels: ArrayLike) -> jax.Array:
    """Number of distinct non-zero ids of one label map `[*S]`, int32.

    The true number, whatever the ids are; an id in several places is one
    instance.

    Raises:
      TypeError: labels are neither of integers nor bool.
      ValueError: the rank is neither 2 nor 3.
    """
    return _relabel(checks.label_map("count_instances", labels))[1]


def relabel(
    labels: ArrayLike, *, max_instances: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Position of each pixel's id among the distinct ids, and their number.

    Ids become 1, 2, ... in their own order, the most negative first; 0 stays 0.

    Args:
      labels: `[*S]` integers, 0 for background.
      max_instances: positions beyond it become `max_instances + 1`, a spare row
        for tables of fixed size; None keeps them.

    Returns:
      `[*S]` int32 positions and the int32 number of distinct ids, which may be
      beyond `max_instances`.

    Raises:
      TypeError: labels are neither of integers nor bool.
      ValueError: the rank is neither 2 nor 3, or `max_instances` is below 1.
    """
    labels = checks.label_map("relabel", labels)
    if max_instances is not None and max_instances < 1:
        raise ValueError(f"relabel: max_instances must be >= 1, got {max_instances}")
    positions, count = _relabel(labels)
    if max_instances is not None:
        positions = jnp.minimum(positions, max_instances + 1)
    return positions, count


# Functions with a loop are jitted, so that calls outside `jit` do not compile
# the loop again each time.


@functools.partial(jax.jit, static_argnames="connectivity")
def _label_values(values: jax.Array, connectivity: int) -> Labelled:
    """Components of equal values, with a node per pixel."""
    padded = jnp.pad(values, 1)  # a border of background
    occupied = values.astype(bool)
    links = tuple(
        (step, occupied & (shifted(padded, step) == values))
        for step in offsets(values.ndim, connectivity)
    )
    roots, rounds = _find_roots(occupied, links)
    labels, count = _number_nodes(roots)
    return jnp.where(occupied, labels, 0), count, rounds


@functools.partial(jax.jit, static_argnames="connectivity")
def _label_by_pairs(mask: jax.Array, connectivity: int) -> Labelled:
    """Components with a node per two pixels side by side, which always connect."""
    length = mask.shape[-1]
    even = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, length % 2)])
    left, right = even[..., ::2], even[..., 1::2]
    padded_left, padded_right = jnp.pad(left, 1), jnp.pad(right, 1)
    links = []
    for step in offsets(mask.ndim, mask.ndim):
        *others, along = step
        axes = sum(map(abs, others))
        ahead, behind = shifted(padded_left, step), shifted(padded_right, step)
        if along:
            link = right & ahead if along > 0 else left & behind
            axes += 1
        else:
            link = (left & ahead) | (right & behind)
            if axes < connectivity:
                link |= (left & behind) | (right & ahead)
        if axes <= connectivity:
            links.append((step, link))
    roots, rounds = _find_roots(left | right, tuple(links))
    labels, count = _number_nodes(roots)
    labels = _enlarge(labels, (mask.ndim - 1,))
    return jnp.where(even, labels, 0)[..., :length], count, rounds


@jax.jit
def _label_by_blocks(mask: jax.Array) -> Labelled:
    """Components with corners, with a node per 2 x 2 (2 x 2 x 2) block."""
    shape = mask.shape
    even = jnp.pad(mask, [(0, n % 2) for n in shape])
    halves = tuple(n // 2 for n in even.shape)
    split = even.reshape(tuple(m for n in halves for m in (n, 2)))
    within = tuple(range(1, 2 * len(shape), 2))
    occupied = jnp.any(split, axis=within)
    roots, rounds = _find_roots(occupied, _block_links(split, within))

    # The first pixel of a component is not always in its first block.
    index = jnp.arange(even.size, dtype=jnp.int32).reshape(split.shape)
    nobody = jnp.int32(even.size)
    first = jnp.min(jnp.where(split, index, nobody), axis=within)
    table = jnp.full(math.prod(n + 2 for n in halves), nobody)
    table = table.at[roots].min(first, mode="promise_in_bounds")
    starts = jnp.zeros(even.size + 1, bool).at[table].set(True)[:-1]
    words, before = _count_up_to(starts)
    labels = _rank(words, before, table[roots])
    labels = _enlarge(labels, tuple(range(len(shape))))
    labels = jnp.where(even, labels, 0)[tuple(slice(n) for n in shape)]
    return labels, jnp.sum(starts, dtype=jnp.int32), rounds


def _block_links(split: jax.Array, within: tuple[int, ...]) -> Links:
    """Neighbouring blocks that touch: both have pixels on the shared side."""

    def side(direction: Offset) -> jax.Array:
        kept = split
        for axis, step in zip(within, direction, strict=True):
            if step:
                kept = lax.slice_in_dim(kept, step > 0, 1 + (step > 0), axis=axis)
        return jnp.any(kept, axis=within)

    sides = {o: side(o) for o in offsets(len(within), len(within))}
    return tuple(
        (o, sides[o] & shifted(jnp.pad(sides[tuple(-s for s in o)], 1), o))
        for o in sides
    )


def _find_roots(occupied: jax.Array, links: Links) -> tuple[jax.Array, jax.Array]:
    """Smallest node of each node's component, an index into the padded grid.

    Beside it the number of rounds that found neighbours with different roots.

    Nodes carry a border, so that neighbours are plain slices. Its last corner
    is the largest index of all: the root of whatever is not occupied.
    """
    nowhere = jnp.int32(math.prod(n + 2 for n in occupied.shape) - 1)

    def bordered(roots: jax.Array) -> jax.Array:
        return jnp.pad(roots, 1, constant_values=nowhere)

    def heard(roots: jax.Array) -> jax.Array:
        """The least root that a node or a linked neighbour knows."""
        least = inside(roots)
        for offset, link in links:
            least = jnp.minimum(least, jnp.where(link, shifted(roots, offset), nowhere))
        return least

    def jump(roots: jax.Array) -> jax.Array:
        return roots.ravel().at[roots].get(mode="promise_in_bounds")

    def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
        roots, least, _ = state
        return jnp.any(least < inside(roots))

    def hook(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        roots, least, rounds = state
        told = roots.ravel().at[inside(roots)].min(least, mode="promise_in_bounds")
        roots = jnp.minimum(told.reshape(roots.shape), bordered(least))
        for _ in range(3):
            roots = jump(roots)
        return roots, heard(roots), rounds + 1

    # At first every node is its own root, and telling it needs no scatter.
    index = jnp.where(occupied, _own_index(occupied.shape), nowhere)
    roots = bordered(heard(bordered(index)))
    for _ in range(4):
        roots = jump(roots)
    start = (roots, heard(roots), jnp.int32(0))
    roots, _, rounds = lax.while_loop(unfinished, hook, start)
    return inside(roots), rounds


def _number_nodes(roots: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Number of each node's root among all roots, and how many there are."""
    index = _own_index(roots.shape)
    marks = jnp.pad(roots == index, 1).ravel()
    words, before = _count_up_to(marks)
    return _rank(words, before, roots), jnp.sum(marks, dtype=jnp.int32)


def _count_up_to(marks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Marks `[P]` as 32-bit words, and the number of marks before each word.

    A running count over all pixels would take longer than all the rest.
    """
    bits = jnp.pad(marks, (0, -marks.size % 32)).reshape(-1, 32)
    weights = jnp.left_shift(jnp.uint32(1), jnp.arange(32, dtype=jnp.uint32))
    words = jnp.sum(jnp.where(bits, weights[None], jnp.uint32(0)), axis=1)
    words = words.astype(jnp.uint32)
    counts = lax.population_count(words).astype(jnp.int32)
    return words, jnp.cumsum(counts, dtype=jnp.int32) - counts


def _rank(words: jax.Array, before: jax.Array, index: jax.Array) -> jax.Array:
    """Number of marks up to and with pixel `index`; anything beyond the end."""
    word = jnp.minimum(index >> 5, words.size - 1)
    upto = jnp.uint32(0xFFFFFFFF) >> (31 - (index & 31)).astype(jnp.uint32)
    known = lax.population_count(words[word] & upto).astype(jnp.int32)
    return before[word] + known


def offsets(rank: int, connectivity: int) -> tuple[Offset, ...]:
    """Steps to all neighbours along at most `connectivity` axes."""
    steps = itertools.product((-1, 0, 1), repeat=rank)
    return tuple(s for s in steps if 0 < np.abs(s).sum() <= connectivity)


def shifted(padded: jax.Array, offset: Offset) -> jax.Array:
    """The neighbours at `offset` of the pixels inside a border of one."""
    ends = zip(offset, padded.shape, strict=True)
    return padded[tuple(slice(1 + o, n - 1 + o) for o, n in ends)]


def inside(padded: jax.Array) -> jax.Array:
    return shifted(padded, (0,) * padded.ndim)


def _enlarge(nodes: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Every node twice along each of the axes."""
    for axis in axes:
        shape = nodes.shape[:axis] + (2 * nodes.shape[axis],) + nodes.shape[axis + 1 :]
        nodes = jnp.stack([nodes, nodes], axis=axis + 1).reshape(shape)
    return nodes


def _own_index(shape: tuple[int, ...]) -> jax.Array:
    """Index of each node in the grid with a border of one."""
    padded = tuple(n + 2 for n in shape)
    index = jnp.arange(math.prod(padded), dtype=jnp.int32)
    return inside(index.reshape(padded))


@jax.jit
def _relabel(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat = labels.ravel()
    if flat.size == 0:
        return labels, jnp.zeros((), jnp.int32)
    small = (jnp.min(flat) >= 0) & (jnp.max(flat) < _TABLE)
    # A loop of at most one turn: under `vmap` a branch would always be taken.
    # What it sorts must come through its state: XLA takes anything else out of
    # the loop and computes it always.
    _, *sorted_out = lax.while_loop(
        lambda state: state[0],
        lambda state: (jnp.zeros_like(small), *_number_by_sorting(state[1])),
        (~small, flat, jnp.zeros((), jnp.int32)),
    )
    numbered = zip(_number_by_table(flat), sorted_out, strict=True)
    positions, count = (jnp.where(small, *pair) for pair in numbered)
    return positions.reshape(labels.shape), count


def _number_by_table(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    present = jnp.zeros(_TABLE, bool).at[flat].set(True, mode="drop")
    numbers = jnp.cumsum(present.at[0].set(False), dtype=jnp.int32)
    return numbers.at[flat].get(mode="clip"), numbers[-1]


def _number_by_sorting(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
    pixels = jnp.arange(flat.size, dtype=jnp.int32)
    ids, pixels = lax.sort((flat, pixels), num_keys=1)
    first = jnp.concatenate([jnp.ones(1, bool), ids[1:] != ids[:-1]]) & (ids != 0)
    numbers = jnp.cumsum(first, dtype=jnp.int32)
    numbers, count = jnp.where(ids == 0, 0, numbers), numbers[-1]
    return jnp.zeros_like(flat).at[pixels].set(numbers, unique_indices=True), count
