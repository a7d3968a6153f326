"""Losses that judge every pixel by itself.

`f(logits, labels, *, ...) -> [B]`: logits and labels `[B, *S, K]`, S of rank 2
or 3; float32 or better inside; one value per image. One class means p =
sigmoid(logits), several mean softmax over the last axis with one-hot or soft
labels. Class 0 of several is the background, so that a two-class head (a, b)
costs the same as the single logit b - a. `where` `[B, *S, 1 or K]` bool takes
pixels out of sums and pixel count; an image without any left costs 0.

Every function raises TypeError for logits that are not floating point and for
a `where` that is not bool, ValueError for shapes that do not fit.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared


def cross_entropy_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    pos_weight: float = 1.0,
    class_weights: Sequence[float] | None = None,
    weights: ArrayLike | None = None,
    normalize: str = "pixels",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy, weighted by class and by pixel, one value per image.

    With y = labels, c the weight of a class and w that of a pixel,

        - Σ w (c₁ y log p + c₀ (1 - y) log(1 - p)) / N         (one class)
        - Σ w Σₖ cₖ yₖ log pₖ / N                              (several),

    N the number of pixels. The mean over pixels is unbounded in the weights:
    an empty prediction of a full image costs pos_weight times more.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      pos_weight: multiplies every class but the background.
      class_weights: one number per class, background first; a one-class head
        has two. None means 1.
      weights: `[B, *S, 1 or K]` importance of pixels. None means 1.
      normalize: "pixels" divides by N; "weights" divides by the total weight,
        Σ w (c₁ y + c₀ (1 - y)), so that the largest pixel bounds the loss.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0. An image whose weights are all 0 costs 0.

    Raises:
      ValueError: `normalize` is another word, or `class_weights` has not one
        number per class.

    Source: the weighted cross-entropy of the loss study of Clissa, Macaluso
    and Zoccoli (ICIAP Workshops 2023), as on its slides; with
    `normalize="weights"` as in its program, there pooled over the batch.
    """
    name = "cross_entropy_loss"
    if normalize not in ("pixels", "weights"):
        raise ValueError(
            f'{name}: normalize must be "pixels" or "weights", got {normalize!r}'
        )
    logits, labels, where = shared.inputs(name, logits, labels, where)
    classes = _class_weights(name, class_weights, logits, 1.0, pos_weight)
    cost, importance = _terms(logits, labels, classes)
    weights = shared.pixel_weights(name, weights, logits)
    if weights is not None:
        cost, importance = weights * cost, weights * importance
    if normalize == "pixels":
        return _pixel_mean(cost, where, logits)
    bottom = shared.pixel_sum(shared.masked(importance, where)).sum(-1)
    return shared.ratio(shared.pixel_sum(shared.masked(cost, where)).sum(-1), bottom)


def focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    class_weights: Sequence[float] | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy in which well-classified pixels count little.

    The mean over pixels of a (1 - pₜ)^gamma CE with CE the cross-entropy and

        pₜ = p y + (1 - p)(1 - y)  or  Σₖ pₖ yₖ,
        a  = c₁ alpha y + c₀ (1 - alpha)(1 - y)  or the same over the classes,

    alpha belonging to every class but the background. The value of a good
    prediction is tiny (1e-5 and less), so that as a summand it fades out late
    in training.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      gamma: at least 0; 0 is cross-entropy.
      alpha: weight of the foreground in [0, 1], 1 - alpha that of the
        background. None weighs neither.
      class_weights: one number per class, background first; a one-class head
        has two. None means 1.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Raises:
      ValueError: `class_weights` has not one number per class.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, with
    their alpha 0.25 left to the caller. For soft labels pₜ is linear in them,
    as in optax; programs with pₜ = exp(-CE) agree for labels 0 and 1.
    """
    name = "focal_loss"
    logits, labels, where = shared.inputs(name, logits, labels, where)
    behind, ahead = (1.0, 1.0) if alpha is None else (1.0 - alpha, alpha)
    classes = _class_weights(name, class_weights, logits, behind, ahead)
    cost, _ = _terms(logits, labels, jnp.ones_like(classes))
    importance = _per_pixel(labels, classes)
    missed = shared.power(_missed(logits, labels), gamma)
    return _pixel_mean(importance * missed * cost, where, logits)


def _class_weights(name, values, logits, background, foreground) -> jax.Array:
    """`[max(K, 2)]`: `values` times one factor for class 0, one for the others."""
    num_classes = max(logits.shape[-1], 2)
    values = shared.class_vector(name, "class_weights", values, num_classes, logits)
    sides = jnp.where(jnp.arange(num_classes) > 0, foreground, background)
    return values * sides.astype(logits.dtype)


def _terms(logits, labels, classes) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy and weight `[B, *S, K]`, to be summed over the classes."""
    if logits.shape[-1] == 1:
        log_p, log_q = shared.log_sigmoids(logits)
        ahead, behind = classes[1] * labels, classes[0] * (1.0 - labels)
        return -(ahead * log_p + behind * log_q), ahead + behind
    importance = shared.along_classes(classes, logits) * labels
    return -importance * jax.nn.log_softmax(logits, axis=-1), importance


def _per_pixel(labels, classes) -> jax.Array:
    """The weight of the class of each pixel, `[B, *S, 1]`."""
    if labels.shape[-1] == 1:
        return classes[1] * labels + classes[0] * (1.0 - labels)
    weighted = shared.along_classes(classes, labels) * labels
    return jnp.sum(weighted, axis=-1, keepdims=True)


def _missed(logits, labels) -> jax.Array:
    """1 - pₜ `[B, *S, 1]`, a sum of positive terms and so exact near 0."""
    if logits.shape[-1] == 1:
        probs, rest = shared.sigmoid(logits), shared.sigmoid(-logits)
        return labels * rest + (1.0 - labels) * probs
    wrong = (1.0 - labels) * jax.nn.softmax(logits, axis=-1)
    return jnp.sum(wrong, axis=-1, keepdims=True)


def _pixel_mean(values, where, logits) -> jax.Array:
    """Sum over classes and mean over the pixels that count: `[B]`."""
    top = shared.pixel_sum(shared.masked(values, where)).sum(-1)
    return shared.ratio(top, shared.pixel_count(where, logits).mean(-1))
