"""Losses that look at borders: weighted contours and distances to them.

`f(logits, labels, *, ...) -> [B]`: logits and labels `[B, *S, K]`, S of rank 2
or 3; float32 or better inside; one value per image. Contours and distances
belong to the labels (above 0.5 is inside) and carry no gradient; who trains for
long computes them once per image and passes them in. Class 0 of several is the
background and left out. `where` `[B, *S, 1 or K]` bool takes pixels out of all
sums; an image without any left costs 0.

Every function raises TypeError for logits that are not floating point and for
a `where` that is not bool, ValueError for shapes that do not fit.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.losses import _shared as shared
from fluojax.losses import _view
from fluojax.losses.overlap import dice_loss
from fluojax.losses.pixel import cross_entropy_loss
from fluojax.ops.distance import distance_transform
from fluojax.ops.morphology import contour_map


def contour_weighted_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    contour_weight: float = 2.0,
    width: int = 1,
    smooth: float = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy and squared Dice with heavier contours, one value per image.

    With w = 1 + contour_weight on the contours of the cells and 1 elsewhere,

        mean w CE + 1 - (2 Σ w p y + smooth) / (Σ w p² + Σ w y² + smooth),

    the second part as the mean over the foreground classes.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      weights: `[B, *S, 1 or K]` to use for w. None computes w from the labels,
        one map for all classes.
      contour_weight: what a pixel on a contour weighs in addition to 1.
      width: of the contours to either side of a border, in pixels.
      smooth: pixels added above and below the line of the Dice part.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Source: IMSAHLO (Jain et al., arXiv 2601.11645), equations 6 to 8, which
    name neither the weight nor the width of contours nor the smoothing; the
    weight is that of Huang and Sui (ICIP 2024), the smoothing that of
    `dice_loss` (the preset `imsahlo` takes 1e-6).
    """
    terms = contour_weighted_terms(
        logits,
        labels,
        weights=weights,
        contour_weight=contour_weight,
        width=width,
        smooth=smooth,
        where=where,
    )
    return terms["cross_entropy"] + terms["dice"]


def contour_weighted_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    contour_weight: float = 2.0,
    width: int = 1,
    smooth: float = 1.0,
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """The summands of `contour_weighted_loss`: `{"cross_entropy", "dice": [B]}`."""
    logits, labels = checks.pair("contour_weighted_loss", logits, labels)
    if weights is None:
        contours = _contours(labels, width, "both")
        weights = 1.0 + contour_weight * _any_cell(contours).astype(logits.dtype)
    shares = {"weights": weights, "where": where}
    return {
        "cross_entropy": cross_entropy_loss(logits, labels, **shares),
        "dice": dice_loss(logits, labels, squared=True, smooth=smooth, **shares),
    }


def separable_contour_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    contours: ArrayLike | None = None,
    contour_weight: float = 2.0,
    smooth: float = 1e-3,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy with heavier contours and Dice of contours and the rest apart.

        mean (1 + contour_weight c) CE + mean CE + dice(c p, c y)
            + dice((1 - c) p, (1 - c) y),

    c the contours of the cells: of any class in the cross-entropy, of each
    class in the Dice parts, which count all foreground classes together.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      contours: `[B, *S, 1 or K]` to use for c, 0 or 1. None takes the outermost
        pixels of the cells of each class.
      contour_weight: what a pixel on a contour weighs in addition to 1.
      smooth: pixels added above and below the lines of the Dice parts.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Source: Huang and Sui, Contour-weighted loss, ICIP 2024, as their program
    computes it, per image; the paper is said to weigh the two Dice parts by
    lambda and 1 - lambda.
    """
    terms = separable_contour_terms(
        logits,
        labels,
        contours=contours,
        contour_weight=contour_weight,
        smooth=smooth,
        where=where,
    )
    return terms["cross_entropy"] + terms["dice"]


def separable_contour_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    contours: ArrayLike | None = None,
    contour_weight: float = 2.0,
    smooth: float = 1e-3,
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """The summands of `separable_contour_loss`: `{"cross_entropy", "dice": [B]}`."""
    name = "separable_contour_loss"
    logits, labels, where = shared.inputs(name, logits, labels, where)
    if contours is None:
        contours = _contours(labels, 1, "inner")
    contours = checks.pixel_map(name, "contours", contours, logits).astype(logits.dtype)
    weights = 2.0 + contour_weight * _any_cell(contours)
    view = _view.classes(logits, labels, where, None, include_background=False)
    on = jnp.broadcast_to(_view.foreground(contours), view.probs.shape)
    parts = [
        _pooled_dice(view, share, smooth)
        for share in (on, 1.0 - on)  # contour, everything else
    ]
    return {
        "cross_entropy": cross_entropy_loss(
            logits, labels, weights=weights, where=where
        ),
        "dice": parts[0] + parts[1],
    }


def boundary_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    distances: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Mean of p times the signed distance to the border of the cells, per image.

    The distance is positive outside; inside it is 1 - the distance to the
    background, so 0 on the outermost pixels of a cell. An image without cells,
    or of nothing else, has distance 0 everywhere: no value and no gradient.
    Combine it with an overlap loss, and increase its weight slowly: the authors
    add 0.01 per epoch.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      distances: `[B, *S, 1 or K]` in pixels or any other unit to use instead of
        those of `labels`.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, the mean over the foreground classes; negative where more
      than the outside is right.

    Source: Kervadec et al., Boundary loss for highly unbalanced segmentation,
    MIDL 2019. Their loader truncates distances to whole pixels; ours does not.
    A full mask has distance 0 as in MONAI.
    """
    name = "boundary_loss"
    logits, labels, where = shared.inputs(name, logits, labels, where)
    view = _view.classes(logits, labels, where, None, include_background=False)
    if distances is None:
        field = _each_image(_signed_distance, view.labels > 0.5).astype(logits.dtype)
    else:
        distances = checks.pixel_map(name, "distances", distances, logits)
        field = _view.foreground(distances.astype(logits.dtype))
    return _pixel_mean(view, view.probs * lax.stop_gradient(field))


def hausdorff_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 2.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Squared errors, dearer the farther from both borders, one value per image.

    The mean over pixels of (p - y)² (d_p^alpha + d_y^alpha), d the distance of a
    pixel to the border of the predicted (p above 0.5) and of the true mask, from
    either side, without gradient. A mask that is empty or full has distance 0.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      alpha: power of the distances, above 0.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0, the mean over the foreground classes; in
      pixels^alpha, so that a weight of 0.01 and less is usual in a sum.

    Source: Karimi and Salcudean, Reducing the Hausdorff distance, TMI 2020,
    with distances on both sides of the border; some programs use the inside
    only, where an error far outside is free.
    """
    name = "hausdorff_loss"
    logits, labels, where = shared.inputs(name, logits, labels, where)
    view = _view.classes(logits, labels, where, None, include_background=False)
    field = functools.partial(_border_distance, alpha=alpha)
    masks = jnp.concatenate([view.probs > 0.5, view.labels > 0.5], axis=-1)
    far = _each_image(field, masks).astype(logits.dtype)
    classes = view.probs.shape[-1]
    far = far[..., :classes] + far[..., classes:]
    return _pixel_mean(view, (view.probs - view.labels) ** 2 * lax.stop_gradient(far))


def _contours(labels: jax.Array, width: int, mode: str) -> jax.Array:
    """Contours `[B, *S, K]` bool of the masks of each class."""
    contour = functools.partial(contour_map, width=width, mode=mode)
    return jax.vmap(jax.vmap(contour, in_axes=-1, out_axes=-1))(labels > 0.5)


def _any_cell(contours: jax.Array) -> jax.Array:
    """The union over the foreground classes, `[B, *S, 1]`."""
    return jnp.max(_view.foreground(contours), axis=-1, keepdims=True)


def _pooled_dice(view: _view.View, share: jax.Array, smooth: float) -> jax.Array:
    """Dice `[B]` of the pixels in `share`, all classes counted together."""
    probs, labels = view.probs, view.labels
    wrong = probs * (1.0 - labels) + (1.0 - probs) * labels
    apart, areas = _view.totals(view, share * wrong, share * (probs + labels))
    return shared.ratio(apart.sum(-1), areas.sum(-1) + smooth)


def _each_image(field, masks: jax.Array) -> jax.Array:
    """`field` of every mask `[B, *S, C]`, class by class.

    The passes of a distance transform end when the largest distance is reached:
    one image at a time on CPU, where waiting for the widest costs time.
    """
    images = jnp.moveaxis(masks, -1, 1).reshape(-1, *masks.shape[1:-1])
    images = lax.stop_gradient(images)
    if jax.default_backend() == "cpu":
        fields = lax.map(field, images)
    else:
        fields = jax.vmap(field)(images)
    fields = fields.reshape(masks.shape[0], masks.shape[-1], *masks.shape[1:-1])
    return jnp.moveaxis(fields, 1, -1)


def _signed_distance(mask: jax.Array) -> jax.Array:
    inside, outside = distance_transform(mask), distance_transform(~mask)
    signed = outside - jnp.where(mask, inside - 1.0, 0.0)
    return jnp.where(_has_border(mask), signed, 0.0)


def _border_distance(mask: jax.Array, alpha: float) -> jax.Array:
    """Distance to the border to the power of alpha, from either side."""
    squared = alpha == 2.0
    inside = distance_transform(mask, squared=squared)
    outside = distance_transform(~mask, squared=squared)
    far = jnp.where(mask, inside, outside)
    far = jnp.where(_has_border(mask), far, 0.0)
    return far if squared else shared.power(far, alpha)


def _has_border(mask: jax.Array) -> jax.Array:
    return jnp.any(mask) & ~jnp.all(mask)


def _pixel_mean(view: _view.View, values: jax.Array) -> jax.Array:
    """Mean over the pixels that count and the classes, `[B]`."""
    sums = _view.total(view, values)
    pixels = shared.pixel_count(view.where, view.probs)
    return jnp.mean(shared.ratio(sums, jnp.broadcast_to(pixels, sums.shape)), axis=-1)
