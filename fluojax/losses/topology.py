"""Losses that compare skeletons: whether what is connected stays connected.

`f(logits, labels, *, ...) -> [B]`: logits and labels `[B, *S, K]`, S of rank 2
or 3; float32 or better inside; one value per image. Class 0 of several is the
background and left out.

`where` `[B, *S, 1 or K]` bool takes pixels out of all sums; for skeletons and
distances they are background, so that an object that reaches them ends there
(at the border of the image it goes on). An image without any left costs 0.

An image that is foreground everywhere has no skeleton: its loss is 0 for any
prediction with `soft_cldice_loss`. Combine these losses with one of areas.

Every function raises TypeError for logits that are not floating point and for
a `where` that is not bool, ValueError for shapes that do not fit and for a
negative `num_iters`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared
from fluojax.losses import _view
from fluojax.losses.overlap import dice_loss
from fluojax.ops.distance import distance_transform
from fluojax.ops.soft_morphology import over_images, soft_skeleton


def soft_cldice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    num_iters: int = 10,
    smooth: float = 1.0,
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Soft clDice loss, one value per image.

    With p the probabilities, y the labels and S the soft skeleton of one class,

        precision = (Σ S(p)·y + smooth) / (Σ S(p) + smooth)
        sensitivity = (Σ S(y)·p + smooth) / (Σ S(y) + smooth)

    and 1 - their harmonic mean, averaged over classes. Needs a loss of overlap
    beside it: an image that is all foreground has no soft skeleton, so that alone it
    is 0 there as well as at the truth.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      num_iters: erosions of the skeleton, at least the radius of the thickest
        object in pixels; thicker ones have no skeleton.
      smooth: pixels added above and below both lines.
      include_background: also class 0 (or 1 - p).
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses in [0, 1].

    Source: Shit et al., clDice, CVPR 2021. The program of the authors pools the
    batch and takes 10 erosions whatever it is told.
    """
    name = "soft_cldice_loss"
    view = _view.check(
        name, logits, labels, where, include_background=include_background
    )
    probs, labels = (shared.masked(a, view.where) for a in view[:2])
    thin_probs, thin_labels = (_skeletons(a, num_iters) for a in (probs, labels))
    # Shares that miss, so that good predictions lose no digits.
    false = _share(view, thin_probs, 1.0 - labels, smooth)
    missed = _share(view, thin_labels, 1.0 - probs, smooth)
    hit = 2.0 - false - missed  # 0 only without smoothing, if all is missed
    losses = shared.ratio(false + missed - 2.0 * false * missed, hit)
    return _view.class_mean(name, view, jnp.where(hit > 0, losses, 1.0))


def dice_cldice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 0.5,
    num_iters: int = 10,
    smooth: float = 1.0,
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """(1 - alpha) `dice_loss` + alpha `soft_cldice_loss`, one value per image.

    Arguments as in these two, which share `smooth`.

    Returns:
      `[B]` losses in [0, 1] for alpha in [0, 1].

    Source: Shit et al., clDice, CVPR 2021.
    """
    options = {
        "smooth": smooth,
        "include_background": include_background,
        "where": where,
    }
    dice = dice_loss(logits, labels, **options)
    cldice = soft_cldice_loss(logits, labels, num_iters=num_iters, **options)
    return (1.0 - alpha) * dice + alpha * cldice


def cbdice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    num_iters: int = 10,
    smooth: float = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Centreline boundary Dice loss, one value per image.

    clDice of hard skeletons whose pixels count by the radius of the object. Of
    a mask m let D be the distance to its background, S its skeleton, R the
    greatest D on S, at least 1, and d the rank of the image:

        V = min(D, R) / R,  Q = V on S,  W = ((R - D + 1) / R)^(d-1) on S.

    With those of [p > 1/2] (index p) multiplied by p, and those of the labels
    (index y),

        precision = (Σ W_p·V_y + smooth) / (Σ W_p·Q + smooth),

    where Q is Q_p on the skeleton of the prediction alone and Q_y elsewhere,
    the sensitivity the same with p and y exchanged, and the loss 1 - their
    harmonic mean. Skeletons, distances and R have no gradient: there is none
    at all while no pixel exceeds 1/2.

    Of several classes the foreground is one, whose logit is the greatest
    foreground logit minus that of class 0.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]`; above 1/2 is inside.
      num_iters: erosions of the skeletons, as in `soft_cldice_loss`.
      smooth: added above and below both lines.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses; a skeleton off the middle of the object may reach a few
      hundredths below 0. An image that is foreground everywhere has D = 1.

    Source: Shi et al., Centerline Boundary Dice Loss, MICCAI 2024. Its program
    returns the harmonic mean times -1 and pools the batch; W is meant to have
    the least radius in place of the 1, but takes the minimum over pixels
    outside the skeleton as well, where it is 0, and raises it to 1.
    """
    logits, labels, where = shared.inputs("cbdice_loss", logits, labels, where)
    if logits.shape[-1] > 1:
        logits = jnp.max(logits[..., 1:], axis=-1, keepdims=True) - logits[..., :1]
        labels = 1.0 - labels[..., :1]
    logits, labels = logits[..., 0], labels[..., 0]
    kept = True if where is None else jnp.all(where, axis=-1)
    probs = shared.sigmoid(logits)
    mask_pred, mask_true = (probs > 0.5) & kept, (labels > 0.5) & kept
    pred, true = (_tubes(m, num_iters, probs.dtype) for m in (mask_pred, mask_true))
    pred = _Tubes(*(values * probs for values in pred))
    precision = _agreement(pred, true, smooth)
    sensitivity = _agreement(true, pred, smooth)
    both = 2.0 * precision * sensitivity
    return 1.0 - shared.ratio(both, precision + sensitivity)


def _skeletons(images: jax.Array, num_iters: int) -> jax.Array:
    """Soft skeletons of `[B, *S, C]`, each class of each image by itself."""
    by_class = jnp.moveaxis(images, -1, 1)
    flat = by_class.reshape(-1, *by_class.shape[2:])
    thin = over_images(lambda image: soft_skeleton(image, num_iters), flat)
    return jnp.moveaxis(thin.reshape(by_class.shape), 1, -1)


def _share(view, skeletons, values, smooth) -> jax.Array:
    """Σ S·values / (Σ S + smooth), `[B, C]`."""
    top, length = _view.totals(view, skeletons * values, skeletons)
    return shared.ratio(top, length + smooth)


class _Tubes(NamedTuple):
    """V, Q and W of `cbdice_loss`, `[B, *S]` each."""

    volumes: jax.Array
    radii: jax.Array
    weights: jax.Array


def _tubes(masks: jax.Array, num_iters: int, dtype) -> _Tubes:
    return over_images(lambda mask: _tubes_of_one(mask, num_iters, dtype), masks)


def _tubes_of_one(mask: jax.Array, num_iters: int, dtype) -> _Tubes:
    skeleton = soft_skeleton(mask.astype(dtype), num_iters) > 0.5
    distances = distance_transform(mask).astype(dtype)
    distances = jnp.where(jnp.isfinite(distances), distances, 1.0)
    on_skeleton = jnp.where(skeleton, distances, 0.0)
    reach = jnp.maximum(jnp.max(on_skeleton), 1.0)
    weights = ((reach - on_skeleton + 1.0) / reach) ** (mask.ndim - 1)
    return _Tubes(
        jnp.minimum(distances, reach) / reach,
        on_skeleton / reach,
        jnp.where(skeleton, weights, 0.0),
    )


def _agreement(one: _Tubes, other: _Tubes, smooth: float) -> jax.Array:
    """How far the skeleton of `one` lies in the middle of `other`, `[B]`."""
    alone = (one.radii != 0) & (other.radii == 0)
    radii = jnp.where(alone, one.radii, other.radii)
    top, bottom = (
        shared.pixel_sum((one.weights * values)[..., None])[:, 0]
        for values in (other.volumes, radii)
    )
    return shared.ratio(top + smooth, bottom + smooth)
