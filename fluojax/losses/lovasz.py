"""The Lovász losses: the Jaccard index made continuous by sorting the errors.

`lovasz_loss(logits, labels, *, ...) -> [B]` with the shapes of the other losses.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared


def lovasz_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    classes: str | Sequence[int] = "present",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Lovász hinge (one class) or Lovász softmax (several), one value per image.

    The errors of an image, largest first, are weighted by what each of them
    adds to the Jaccard loss of all pixels up to it. Errors are the hinge
    max(0, 1 - z (2 y - 1)) for one class, |y - p| per class for several. The
    weights carry no gradient.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators; probabilities count as 1 above 0.5, since
        the Jaccard index behind the weights is one of sets.
      classes: of several, which enter the mean: "present" those with a pixel in
        the image, "all", or their numbers. The background is class 0 and takes
        part unless left out by number. Ignored for one class.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0. The hinge is not bounded; for an image without
      cells it is the largest error alone, and only that pixel has a gradient.

    Raises:
      TypeError: logits are not floating point, or `where` is not bool.
      ValueError: shapes do not fit, or `classes` is another word or names a
        class that the logits do not have.

    Source: Berman, Triki, Blaschko, The Lovász-Softmax loss, CVPR 2018, per
    image. Unlike other overlap losses it keeps the background by default, as
    their program does. Cost: one sort per image and class.
    """
    logits, labels, where = shared.inputs("lovasz_loss", logits, labels, where)
    hard = labels > 0.5
    if logits.shape[-1] == 1:
        errors = 1.0 - jnp.where(hard, logits, -logits)
        return _jaccard_of_sorted(jax.nn.relu(errors), errors, hard, where)[:, 0]
    counts = _counting_classes(classes, logits.shape[-1])
    probs = jax.nn.softmax(logits, axis=-1)
    errors = jnp.where(hard, 1.0 - probs, probs)
    losses = _jaccard_of_sorted(errors, errors, hard, where)
    counting = jnp.broadcast_to(jnp.asarray(counts, losses.dtype)[None], losses.shape)
    if classes == "present":
        pixels = shared.pixel_sum(shared.masked(hard.astype(losses.dtype), where))
        counting = jnp.where(pixels > 0, counting, 0.0)
    return shared.ratio(jnp.sum(losses * counting, axis=-1), counting.sum(axis=-1))


def _counting_classes(classes: str | Sequence[int], num_classes: int) -> np.ndarray:
    """1 for every class that may enter the mean, `[K]`."""
    if classes in ("present", "all"):
        return np.ones(num_classes)
    chosen = () if isinstance(classes, str) else tuple(classes)
    if not chosen or not all(c in range(num_classes) for c in chosen):
        raise ValueError(
            'lovasz_loss: classes must be "present", "all" or numbers from 0 to '
            f"{num_classes - 1}, got {classes!r}"
        )
    return np.isin(np.arange(num_classes), chosen).astype(float)


def _jaccard_of_sorted(costs, errors, hard, where) -> jax.Array:
    """Σ cost · weight `[B, K]`, weights from the order of the errors."""
    keys = lax.stop_gradient(-errors)
    if where is not None:
        keys = jnp.where(where, keys, jnp.inf)  # to the end, where nothing follows
        hard = hard & where
    pixels = int(np.prod(keys.shape[1:-1]))
    flat = (keys.shape[0], pixels, keys.shape[-1])
    places = jnp.broadcast_to(jnp.arange(pixels, dtype=jnp.int32)[None, :, None], flat)
    _, ordered, places = lax.sort(
        (keys.reshape(flat), hard.reshape(flat).astype(jnp.int32), places),
        dimension=1,
        num_keys=1,
    )
    weights = _weights(ordered, costs.dtype)
    # Back in the order of the pixels, the loss is a plain weighted sum, and its
    # gradient needs no sorting.
    _, weights = lax.sort((places, weights), dimension=1, num_keys=1)
    weighted = weights.reshape(costs.shape) * costs
    return shared.pixel_sum(shared.masked(weighted, where))


def _weights(hard: jax.Array, dtype) -> jax.Array:
    """Growth of the Jaccard loss at every sorted pixel, `[B, N, K]`.

    A cell pixel takes 1 from the intersection, another one adds 1 to the union;
    written so, nothing cancels as it would between two neighbouring losses.
    """
    total = jnp.sum(hard, axis=1, keepdims=True)
    seen = jnp.cumsum(hard, axis=1)
    order = jnp.arange(1, hard.shape[1] + 1, dtype=hard.dtype)[None, :, None]
    left = (total - seen).astype(dtype)
    union = (total + order - seen).astype(dtype)
    before = jnp.where(union > 1, union - 1, 1.0)
    weights = jnp.where(hard > 0, 1.0, left / before) / union
    alone = (order == 1).astype(dtype)
    return jnp.where(total > 0, weights, alone)
