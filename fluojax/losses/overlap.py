"""Losses that compare areas: ratios of sums over the pixels of one image.

`f(logits, labels, *, ...) -> [B]`: logits and labels `[B, *S, K]`, S of rank 2
or 3; float32 or better inside; one value per image, the mean over classes. One
class means p = sigmoid(logits), several mean softmax over the last axis.

`include_background=False` (default) leaves class 0 of several out of the mean,
so that a two-class head (a, b) costs the same as the single logit b - a. True
keeps it; a one-class head then has the two classes 1 - p and p.

`where` `[B, *S, 1 or K]` bool takes pixels out of all sums; an image without
any left costs 0. An image without cells that is predicted empty costs about 0
with the default smoothing; without smoothing, 0/0 counts as 0.

Ratios are computed as errors over areas rather than as 1 minus an overlap over
areas: equal in exact arithmetic, but a good prediction loses no digits.

Every function raises TypeError for logits that are not floating point and for
a `where` that is not bool, ValueError for shapes that do not fit.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared
from fluojax.losses import _view
from fluojax.losses._view import View, class_mean, total, totals


def dice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: float | tuple[float, float] = 1.0,
    squared: bool = False,
    soft_labels: str = "product",
    include_background: bool = False,
    class_weights: Sequence[float] | None = None,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Soft Dice loss, one value per image.

    With p the probabilities and y the labels of one class, the mean over
    classes of

        1 - (2 Σ p·y + smooth) / (Σ p + Σ y + smooth).

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      smooth: pixels added above and below the line, or a pair of the two. It
        gives empty images a usable gradient; without it they cost 1 as soon
        as a single pixel is predicted.
      squared: Σ p² + Σ y² below the line.
      soft_labels: "product" as above, which for labels strictly between 0 and
        1 is not least at p = y; "l1" takes (Σ p + Σ y - Σ |p - y|) / 2 for
        Σ p·y and is. Both agree for labels 0 and 1. With `squared` the product
        is least at p = y already and both mean the same.
      include_background: also class 0 (or 1 - p).
      class_weights: one factor per class that counts; the mean is over
        classes, not over weights. None means 1.
      weights: `[B, *S, 1 or K]` importance of pixels in every sum.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, in [0, 1] unless weighted by class.

    Raises:
      ValueError: `soft_labels` is another word, or `class_weights` has not one
        number per class that counts.

    Source: Milletari et al., V-Net, 3DV 2016 (`squared=True`), with p rather
    than p² below the line as in nnU-Net; "l1" from Wang et al., Dice
    Semimetric Losses, MICCAI 2023. optax adds its smoothing to Σ p·y, so that
    its 1 is 2 here.
    """
    view = _view.check("dice_loss", logits, labels, where, weights, include_background)
    apart, areas = _apart_and_areas("dice_loss", view, squared, soft_labels)
    above, below = _pair(smooth)
    losses = shared.ratio(apart + (below - above), areas + below)
    return class_mean("dice_loss", view, losses, class_weights)


def jaccard_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    smooth: float | tuple[float, float] = 1.0,
    squared: bool = False,
    soft_labels: str = "product",
    include_background: bool = False,
    class_weights: Sequence[float] | None = None,
    weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Soft Jaccard (intersection over union) loss, one value per image.

    The mean over classes of

        1 - (2 Σ p·y + smooth) / (2 (Σ p + Σ y - Σ p·y) + smooth);

    arguments, classes and edge cases as in `dice_loss`.

    Returns:
      `[B]` losses, in [0, 1] unless weighted by class.

    Raises:
      ValueError: as in `dice_loss`.

    Source: intersection over union with probabilities, smoothed in its doubled
    form as in MONAI, so that one smoothing means the same for both losses.
    """
    name = "jaccard_loss"
    view = _view.check(name, logits, labels, where, weights, include_background)
    apart, areas = _apart_and_areas(name, view, squared, soft_labels)
    above, below = _pair(smooth)
    losses = shared.ratio(2.0 * apart + (below - above), areas + apart + below)
    return class_mean(name, view, losses, class_weights)


def generalized_dice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weighting: str = "square",
    smooth: float | tuple[float, float] = 1e-5,
    include_background: bool = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Dice loss of all classes at once, each weighted by its rarity, per image.

    With w the weight of class k and sums over classes too,

        1 - (2 Σ wₖ Σ p·y + smooth) / (Σ wₖ (Σ p + Σ y) + smooth).

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      weighting: wₖ is 1 / (Σ y)² ("square"), 1 / Σ y ("simple") or 1
        ("uniform"). A class without pixels gets the largest weight of the other
        classes of the image.
      smooth: added above and below the line, or a pair of the two. The terms
        are as small as the weights, so that 1e-5 is not little here.
      include_background: the classes are weighed against each other, so that
        the background takes part; one class means 1 - p and p.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses in [0, 1].

    Raises:
      ValueError: `weighting` is another word.

    Source: Sudre et al., Generalised Dice overlap, DLMIA 2017, per image, absent
    classes as in MONAI. `optax.losses.multiclass_generalized_dice_loss` is a
    mean of Dice losses with weights, another loss.
    """
    name = "generalized_dice_loss"
    view = _view.check(name, logits, labels, where, None, include_background)
    weights = _rarity(name, weighting, total(view, view.labels))
    apart, areas = _apart_and_areas(name, view, False, "product")
    above, below = _pair(smooth)
    apart, areas = jnp.sum(weights * apart, axis=-1), jnp.sum(weights * areas, axis=-1)
    return shared.ratio(apart + (below - above), areas + below)


def tversky_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    smooth: float = 1.0,
    soft_labels: str = "product",
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Dice loss with separate prices for false positives and false negatives.

    The mean over classes of 1 - T, with TP = Σ p y, FP = Σ p (1 - y),
    FN = Σ (1 - p) y and

        T = (TP + smooth) / (TP + fp_weight FP + fn_weight FN + smooth).

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      fp_weight: price of a pixel predicted in excess.
      fn_weight: price of a pixel missed.
      smooth: pixels added above and below the line.
      soft_labels: "product" as above; "l1" takes Σ min(p, y) for TP, Σ max(p - y, 0)
        for FP and Σ max(y - p, 0) for FN, which vanish together at p = y also
        for labels strictly between 0 and 1. Both agree for labels 0 and 1.
      include_background: also class 0 (or 1 - p).
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses in [0, 1]. 0.5 and 0.5 give the Dice loss with twice the
      smoothing.

    Raises:
      ValueError: `soft_labels` is another word.

    Source: Salehi et al., Tversky loss function for image segmentation, MLMI
    2017, whose alpha is `fp_weight` and beta `fn_weight`. Other papers swap
    the letters, so that there are none here.
    """
    name = "tversky_loss"
    view = _view.check(name, logits, labels, where, None, include_background)
    losses = _tversky(name, view, fp_weight, fn_weight, smooth, soft_labels)
    return class_mean(name, view, losses)


def focal_tversky_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 0.75,
    smooth: float = 1.0,
    soft_labels: str = "product",
    include_background: bool = False,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Power of the Tversky loss, one value per image.

    The mean over classes of (1 - T)^exponent, T as in `tversky_loss`. An
    exponent below 1 keeps the pull of nearly correct images, one above 1 takes
    it away from them. Where 1 - T is exactly 0 the gradient is 0.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      fp_weight: price of a pixel predicted in excess.
      fn_weight: price of a pixel missed.
      exponent: power of 1 - T, above 0.
      smooth: pixels added above and below the line.
      soft_labels: "product" or "l1" as in `tversky_loss`.
      include_background: also class 0 (or 1 - p).
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses in [0, 1].

    Raises:
      ValueError: `soft_labels` is another word.

    Source: Abraham and Khan, A novel focal Tversky loss function, ISBI 2019:
    their gamma 4/3 enters as 1/gamma = 0.75. Their program pools the batch.
    """
    name = "focal_tversky_loss"
    view = _view.check(name, logits, labels, where, None, include_background)
    losses = _tversky(name, view, fp_weight, fn_weight, smooth, soft_labels)
    return class_mean(name, view, shared.power(losses, exponent))


def power_mae_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    exponent: float = 4.0 / 3.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Power of the mean absolute error of the probabilities, per image.

        (mean over pixels of |p - y|)^exponent,

    for several classes (mean of ½ Σₖ |pₖ - yₖ|)^exponent over all of them.

    This is what the focal Tversky program of the loss study computes. It
    flattens both softmax channels of all pixels into one vector before it
    counts; then every false positive is also a false negative, TP + FP =
    TP + FN = number of pixels, and the Tversky index is the mean probability
    of the right class whatever the two prices are. The loss has no asymmetry,
    no class balance and no focus on the foreground: an empty prediction of an
    image with 5 % foreground costs 0.018.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      exponent: power of the mean, above 0.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses in [0, 1].

    Source: the program of Clissa, Macaluso and Zoccoli (ICIAP Workshops 2023,
    exponent 4/3), there pooled over the batch and with a smoothing of 1e-6
    pixels, which changes the value by less than 1e-6 over the pixel count.
    """
    name = "power_mae_loss"
    logits, labels, where = shared.inputs(name, logits, labels, where)
    several = logits.shape[-1] > 1
    view = _view.classes(logits, labels, where, None, include_background=several)
    share = 0.5 if several else 1.0
    errors = share * jnp.sum(total(view, _distance(view)), axis=-1)
    pixels = jnp.mean(shared.pixel_count(view.where, view.probs), axis=-1)
    return shared.power(shared.ratio(errors, pixels), exponent)


def _rarity(name: str, weighting: str, volumes: jax.Array) -> jax.Array:
    """Weights `[B, C]` of classes with `volumes` pixels, without gradient."""
    exponents = {"square": 2, "simple": 1, "uniform": 0}
    if weighting not in exponents:
        raise ValueError(
            f"{name}: weighting must be one of {', '.join(exponents)}, got "
            f"{weighting!r}"
        )
    present = volumes > 0
    weights = 1.0 / jnp.where(present, volumes, 1.0) ** exponents[weighting]
    if weighting == "uniform":
        return weights
    largest = jnp.max(jnp.where(present, weights, 0.0), axis=-1, keepdims=True)
    return jnp.where(present, weights, largest)


def _distance(view: View) -> jax.Array:
    """|p - y|, written so that its digits survive p near y = 1."""
    probs, labels = view.probs, view.labels
    return shared.magnitude(probs * (1.0 - labels) - (1.0 - probs) * labels)


def _apart_and_areas(name, view, squared, soft_labels) -> tuple[jax.Array, jax.Array]:
    """areas - 2 Σ p·y and areas = Σ p + Σ y (or of the squares), each `[B, C]`."""
    linear = _check_soft_labels(name, soft_labels)
    probs, labels = view.probs, view.labels
    if squared:
        return totals(view, (probs - labels) ** 2, probs**2 + labels**2)
    if linear:
        wrong = probs * (1.0 - labels) + (1.0 - probs) * labels
    else:
        wrong = _distance(view)
    return totals(view, wrong, probs + labels)


def _tversky(name, view, fp_weight, fn_weight, smooth, soft_labels) -> jax.Array:
    """1 - T `[B, C]`."""
    linear = _check_soft_labels(name, soft_labels)
    probs, labels = view.probs, view.labels
    fp, fn = probs * (1.0 - labels), (1.0 - probs) * labels
    tp = probs * labels
    if not linear:
        both = jnp.minimum(fp, fn)
        fp, fn, tp = fp - both, fn - both, tp + both
    errors, hits = totals(view, fp_weight * fp + fn_weight * fn, tp)
    return shared.ratio(errors, hits + errors + smooth)


def _check_soft_labels(name: str, soft_labels: str) -> bool:
    """Whether overlaps are linear in the labels."""
    if soft_labels not in ("product", "l1"):
        raise ValueError(
            f'{name}: soft_labels must be "product" or "l1", got {soft_labels!r}'
        )
    return soft_labels == "product"


def _pair(smooth) -> tuple[float, float]:
    return tuple(smooth) if isinstance(smooth, tuple | list) else (smooth, smooth)
