"""What the losses of single instances share: rows of instances, sums over them.

Instances have rows 0 to N - 1, N = max_instances, in the order of their ids.
One scatter over the pixels gives a sum per row; pixels that belong to no row
are dropped from it, which is what makes it quick: most pixels are background.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared
from fluojax.ops.components import label_components


class Scene(NamedTuple):
    """Cells against background, one row per image: P pixels.

    Attributes:
      logits: `[B, P]` scores of the foreground.
      labels: `[B, P]`.
      where: `[B, P]` pixels that count, or None.
      shape: the spatial shape.
    """

    logits: jax.Array
    labels: jax.Array
    where: jax.Array | None
    shape: tuple[int, ...]


class Objects(NamedTuple):
    """Instances or components of a batch.

    Attributes:
      numbers: `[B, P]` 0 for background, at most P.
      rows: `[B, P]` row of each pixel, as `rows_of`.
      count: `[B]` true numbers.
      areas: `[B, N]` int32 pixels, 0 in rows of nothing.
    """

    numbers: jax.Array
    rows: jax.Array
    count: jax.Array
    areas: jax.Array


def scene(
    function: str,
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    max_instances: int,
) -> Scene:
    """Checked arguments of a loss, several classes taken together as cells.

    Raises:
      ValueError: `max_instances` is below 1; else as `shared.inputs`.
    """
    if max_instances < 1:
        raise ValueError(f"{function}: max_instances must be >= 1, got {max_instances}")
    logits, labels, where = shared.inputs(function, logits, labels, where)
    shape = logits.shape[1:-1]
    logits, labels, where = shared.foreground(logits, labels, where)
    flat = (logits.shape[0], -1)
    kept = None if where is None else where.reshape(flat)
    return Scene(logits.reshape(flat), labels.reshape(flat), kept, shape)


def instances(
    function: str,
    scene: Scene,
    given: ArrayLike | None,
    connectivity: int | None,
    max_instances: int,
) -> Objects:
    """Instances given, else components of labels > 0.5; none outside `where`."""
    if given is None:
        return components(scene, scene.labels > 0.5, connectivity, max_instances)
    like = scene.logits.reshape(-1, *scene.shape, 1)
    ids = shared.instance_map(function, "instances", given, like)
    ids = ids.reshape(scene.logits.shape)
    if scene.where is not None:
        ids = jnp.where(scene.where, ids, 0)
    numbers, beyond = jax.vmap(lambda i: numbered(i, max_instances))(ids)
    return _objects(numbers, max_instances, beyond)


def components(
    scene: Scene, mask: jax.Array, connectivity: int | None, max_instances: int
) -> Objects:
    """Connected components of a mask `[B, P]`, in raster order."""
    if scene.where is not None:
        mask = mask & scene.where
    label = functools.partial(label_components, connectivity=connectivity)
    labels, counts = each_image(label, mask.reshape(-1, *scene.shape))
    beyond = jnp.maximum(counts - max_instances, 0)
    return _objects(labels.reshape(mask.shape), max_instances, beyond)


def _objects(numbers, max_instances, beyond) -> Objects:
    rows = rows_of(numbers, max_instances)
    areas = by_row(rows, max_instances, jnp.ones_like(rows))
    count = jnp.sum(areas > 0, axis=1, dtype=jnp.int32) + beyond
    return Objects(numbers, rows, count, areas)


def each_image(function: Callable, *arrays: jax.Array):
    """`function` of every image of a batch.

    One after the other on CPU, where rounds that only one image of a batch
    needs cost time for all.
    """
    if jax.default_backend() == "cpu":
        return lax.map(lambda image: function(*image), arrays)
    return jax.vmap(function)(*arrays)


def numbered(ids: jax.Array, max_instances: int) -> tuple[jax.Array, jax.Array]:
    """Ids `[P]` of one image as numbers 0 to P in their order, 0 for 0, and how
    many of the numbers lie beyond N.

    Ids from 0 to N stay as they are, be they consecutive or not; others are
    sorted. `ops.relabel` finds the same, by a table too, which takes compiling.
    """

    def by_sorting(value):
        ids, _ = value
        pixels = jnp.arange(ids.size, dtype=jnp.int32)
        values, pixels = lax.sort((ids, pixels), num_keys=1)
        first = jnp.concatenate([jnp.ones(1, bool), values[1:] != values[:-1]])
        order = jnp.cumsum(first & (values != 0), dtype=jnp.int32)
        numbers = jnp.zeros_like(ids).at[pixels].set(jnp.where(values == 0, 0, order))
        return numbers, jnp.maximum(order[-1] - max_instances, 0)

    fits = (jnp.min(ids) >= 0) & (jnp.max(ids) <= max_instances)
    return if_needed(~fits, by_sorting, (ids, jnp.zeros((), jnp.int32)))


def rows_of(numbers: jax.Array, max_instances: int) -> jax.Array:
    """Row of every pixel: N + 1 for background, N for what does not fit.

    Scatters into N rows drop both.
    """
    rows = jnp.minimum(numbers - 1, max_instances)
    return jnp.where(numbers == 0, max_instances + 1, rows)


def if_needed(needed: jax.Array, compute: Callable, value):
    """`compute(value)` if needed, else `value`, in a loop of at most one turn.

    Under `vmap` a `lax.cond` takes both branches for all images. What `compute`
    works on must come through its argument: XLA takes anything else out of the
    loop and computes it always.
    """
    return lax.while_loop(
        lambda state: state[0],
        lambda state: (jnp.zeros_like(needed), compute(state[1])),
        (needed, value),
    )[1]


def segment_sum(rows: jax.Array, num_rows: int, values: jax.Array) -> jax.Array:
    """`values` `[P]` summed over the pixels of each row, `[num_rows]`."""
    start = jnp.zeros(num_rows, values.dtype)
    return start.at[rows].add(values, mode="drop")


def by_row(rows: jax.Array, num_rows: int, values: jax.Array) -> jax.Array:
    """`segment_sum` of every image of a batch, `[B, num_rows]`."""
    return jax.vmap(lambda r, v: segment_sum(r, num_rows, v))(rows, values)


def image_sum(values: jax.Array) -> jax.Array:
    """`[B, P]` summed over pixels, `[B]`."""
    return shared.pixel_sum(values[..., None])[..., 0]


class Sums(NamedTuple):
    """Sums over the pixels of a domain from which every pixel loss follows.

    Attributes:
      hits: Σ p y.
      extra: Σ p (1 - y).
      missed: Σ (1 - p) y.
      entropy: Σ of the cross-entropy.
      pixels: number of pixels.
    """

    hits: jax.Array
    extra: jax.Array
    missed: jax.Array
    entropy: jax.Array
    pixels: jax.Array


LOSSES = ("dice", "tversky", "cross_entropy", "dice_cross_entropy")


def check_loss(function: str, loss: str) -> None:
    if loss not in LOSSES:
        raise ValueError(
            f"{function}: loss must be one of {', '.join(LOSSES)}, got {loss!r}"
        )


def pixel_loss(loss: str, sums: Sums, smooth: float) -> jax.Array:
    """The loss of that name from its sums, elementwise; 0 without a pixel.

    Tversky prices false positives 0.3 and false negatives 0.7. Ratios are
    errors over areas, as in `overlap`.
    """
    hits, extra, missed, entropy, pixels = sums
    if loss == "tversky":
        errors = 0.3 * extra + 0.7 * missed
        return shared.ratio(errors, hits + errors + smooth)
    errors = extra + missed
    dice = shared.ratio(errors, 2.0 * hits + errors + smooth)
    mean = shared.ratio(entropy, pixels)
    return {"dice": dice, "cross_entropy": mean, "dice_cross_entropy": dice + mean}[
        loss
    ]


def whole_image(scene: Scene) -> Sums:
    """Sums over all pixels that count, each `[B]`."""
    return sums_of(scene, lambda x: image_sum(shared.masked(x, scene.where)))


def sums_of(scene: Scene, total: Callable[[jax.Array], jax.Array]) -> Sums:
    """The sums of prediction and labels, given how to sum over `[B, P]`."""
    probs, rest = shared.sigmoid(scene.logits), shared.sigmoid(-scene.logits)
    log_p, log_q = shared.log_sigmoids(scene.logits)
    labels = scene.labels
    return Sums(
        hits=total(probs * labels),
        extra=total(probs * (1.0 - labels)),
        missed=total(rest * labels),
        entropy=-total(labels * log_p + (1.0 - labels) * log_q),
        pixels=total(jnp.ones_like(probs)),
    )


def row_mean(losses: jax.Array, known: jax.Array) -> jax.Array:
    """Mean `[B]` over the rows `[B, N]` that exist; 0 where none does."""
    total = jnp.sum(jnp.where(known, losses, 0.0), axis=-1)
    return shared.ratio(total, jnp.sum(known, axis=-1, dtype=losses.dtype))
