"""Weighted sums of losses, each formula kept in its own module.

`f(logits, labels, *, ...) -> [B]` as in the modules they combine. The functions
ending in `_terms` return the summands without their weights, for logs:
`{name: [B]}`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared
from fluojax.losses.overlap import dice_loss, focal_tversky_loss, power_mae_loss
from fluojax.losses.pixel import cross_entropy_loss, focal_loss
from fluojax.losses.registry import resolve_terms

BALANCED = (0.3, 0.3, 0.4)


def weighted_sum(
    logits: ArrayLike, labels: ArrayLike, *, terms: Sequence[Sequence], **context: Any
) -> jax.Array:
    """Σ weight · loss over named terms, one value per image.

        weighted_sum(logits, labels, where=valid, terms=(
            ("cross_entropy_loss", 0.5, {"pos_weight": 50.0}),
            ("dice_loss", 0.5),
        ))

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      terms: (name, weight) or (name, weight, options) each; names as in
        `list_losses()`, presets included.
      **context: arrays such as `instances` or `where`; each reaches the terms
        that take it.

    Returns:
      `[B]` losses.

    Raises:
      TypeError: an option or a name in the context that nothing takes.
      ValueError: an unknown name, no term, or a term of another form.
    """
    parts = [
        weight * loss(logits, labels, **context)
        for weight, loss in resolve_terms(terms)
    ]
    return sum(parts[1:], start=parts[0])


def combined_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: Sequence[float] = BALANCED,
    gamma: float = 2.0,
    smooth: float = 1.0,
    dice_reduction: str = "mean",
    batch_size_equivalent: float = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy, Dice and focal loss in one sum, one value per image.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      weights: of cross-entropy, Dice and focal loss, in this order.
      gamma: of the focal loss.
      smooth: of the Dice loss, in pixels.
      dice_reduction: "mean" is `dice_loss`. "fluocells" is the sum over all
        classes, background included, times `batch_size_equivalent`: the
        study's program sums its Dice term over classes and batch while it
        averages the others, so that it counts 64-fold in batches of 32.
      batch_size_equivalent: the batch size imitated by "fluocells".
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses.

    Raises:
      ValueError: `dice_reduction` is another word, or `weights` are not three.

    Source: Clissa, Macaluso and Zoccoli (ICIAP Workshops 2023); as on their
    slides by default, as their program with "fluocells".
    """
    terms = combined_terms(
        logits,
        labels,
        gamma=gamma,
        smooth=smooth,
        dice_reduction=dice_reduction,
        batch_size_equivalent=batch_size_equivalent,
        where=where,
    )
    return shared.weigh("combined_loss", weights, terms)


def combined_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: float = 2.0,
    smooth: float = 1.0,
    dice_reduction: str = "mean",
    batch_size_equivalent: float = 1.0,
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """The summands of `combined_loss`, unweighted.

    Returns:
      `{"cross_entropy": [B], "dice": [B], "focal": [B]}`; "dice" as summed,
      thus with the factor of `dice_reduction="fluocells"`.
    """
    dice = _dice(logits, labels, smooth, dice_reduction, batch_size_equivalent, where)
    return {
        "cross_entropy": cross_entropy_loss(logits, labels, where=where),
        "dice": dice,
        "focal": focal_loss(logits, labels, gamma=gamma, where=where),
    }


def combined_focal_tversky_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: Sequence[float] = BALANCED,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 0.75,
    tversky_smooth: float = 1.0,
    flatten: bool = False,
    smooth: float = 1.0,
    dice_reduction: str = "mean",
    batch_size_equivalent: float = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy, Dice and focal Tversky loss in one sum, one value per image.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      weights: of cross-entropy, Dice and focal Tversky loss, in this order.
      fp_weight: price of false positives in the focal Tversky loss.
      fn_weight: price of false negatives there.
      exponent: of the focal Tversky loss.
      tversky_smooth: its smoothing in pixels.
      flatten: count over all classes at once, as the study's program does. The
        term is then `power_mae_loss(exponent)`; prices and smoothing drop out.
      smooth: of the Dice loss, in pixels.
      dice_reduction: as in `combined_loss`.
      batch_size_equivalent: as in `combined_loss`.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses.

    Raises:
      ValueError: `dice_reduction` is another word, or `weights` are not three.

    Source: as `combined_loss`; the slides raise to 2, the program to 4/3, the
    default is that of `focal_tversky_loss`.
    """
    terms = combined_focal_tversky_terms(
        logits,
        labels,
        fp_weight=fp_weight,
        fn_weight=fn_weight,
        exponent=exponent,
        tversky_smooth=tversky_smooth,
        flatten=flatten,
        smooth=smooth,
        dice_reduction=dice_reduction,
        batch_size_equivalent=batch_size_equivalent,
        where=where,
    )
    return shared.weigh("combined_focal_tversky_loss", weights, terms)


def combined_focal_tversky_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    exponent: float = 0.75,
    tversky_smooth: float = 1.0,
    flatten: bool = False,
    smooth: float = 1.0,
    dice_reduction: str = "mean",
    batch_size_equivalent: float = 1.0,
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """The summands of `combined_focal_tversky_loss`, unweighted.

    Returns:
      `{"cross_entropy": [B], "dice": [B], "focal_tversky": [B]}`; "dice" as
      summed, thus with the factor of `dice_reduction="fluocells"`.
    """
    dice = _dice(logits, labels, smooth, dice_reduction, batch_size_equivalent, where)
    if flatten:
        third = power_mae_loss(logits, labels, exponent=exponent, where=where)
    else:
        third = focal_tversky_loss(
            logits,
            labels,
            fp_weight=fp_weight,
            fn_weight=fn_weight,
            exponent=exponent,
            smooth=tversky_smooth,
            where=where,
        )
    cross_entropy = cross_entropy_loss(logits, labels, where=where)
    return {"cross_entropy": cross_entropy, "dice": dice, "focal_tversky": third}


def _dice(logits, labels, smooth, reduction, batch_size, where) -> jax.Array:
    if reduction == "mean":
        return dice_loss(logits, labels, smooth=smooth, where=where)
    if reduction == "fluocells":
        both = dice_loss(
            logits, labels, smooth=smooth, include_background=True, where=where
        )
        return max(np.shape(logits)[-1], 2) * batch_size * both
    raise ValueError(
        'combined_loss: dice_reduction must be "mean" or "fluocells", '
        f"got {reduction!r}"
    )
