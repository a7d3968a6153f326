"""The classes that an overlap, boundary, topology or moment loss looks at.

One class means p = sigmoid(logits), several mean softmax over the last axis.
Class 0 of several is left out unless `include_background`; a one-class head
with it has the two classes 1 - p and p. `[B, C]` below are values of the C
classes that count.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fluojax.losses import _shared as shared


class View(NamedTuple):
    """The C classes that count, as `[B, *S, C]`, and the pixels that do."""

    probs: jax.Array
    labels: jax.Array
    where: jax.Array | None  # [B, *S, 1 or C]
    weights: jax.Array | None  # [B or 1, *S or 1s, 1 or C]


def check(name, logits, labels, where, weights=None, include_background=False) -> View:
    """The view of a loss called `name` on its arguments, checked."""
    logits, labels, where = shared.inputs(name, logits, labels, where)
    weights = shared.pixel_weights(name, weights, logits)
    return classes(logits, labels, where, weights, include_background)


def classes(logits, labels, where, weights, include_background) -> View:
    """The view of arguments that `shared.inputs` has passed."""
    if logits.shape[-1] == 1:
        probs = shared.sigmoid(logits)
        if include_background:
            probs = jnp.concatenate([shared.sigmoid(-logits), probs], axis=-1)
            labels = jnp.concatenate([1.0 - labels, labels], axis=-1)
        return View(probs, labels, where, weights)
    probs = jax.nn.softmax(logits, axis=-1)
    if include_background:
        return View(probs, labels, where, weights)
    maps = (foreground(where), foreground(weights))
    return View(probs[..., 1:], labels[..., 1:], *maps)


def foreground(array: jax.Array | None) -> jax.Array | None:
    """A map without its first class; one map for all classes stays."""
    return array if array is None or array.shape[-1] == 1 else array[..., 1:]


def total(view: View, values: jax.Array) -> jax.Array:
    """Weighted sum over the pixels that count, `[B, C]`."""
    return totals(view, values)[0]


def totals(view: View, *maps: jax.Array) -> tuple[jax.Array, ...]:
    """The `total` of each map, which together cost little more than one."""
    if view.weights is not None:
        maps = [view.weights * values for values in maps]
    return shared.pixel_sums(*(shared.masked(values, view.where) for values in maps))


def class_mean(name, view: View, losses, class_weights=None) -> jax.Array:
    """`[B, C]` to `[B]`: 0 for a class without pixels, then the mean."""
    if class_weights is not None:
        factors = shared.class_vector(
            name, "class_weights", class_weights, losses.shape[-1], losses
        )
        losses = shared.along_classes(factors, losses) * losses
    if view.where is not None:
        pixels = shared.pixel_count(view.where, view.probs)
        losses = jnp.where(pixels > 0, losses, 0.0)
    return jnp.mean(losses, axis=-1)
