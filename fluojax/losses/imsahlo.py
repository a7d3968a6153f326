"""The hybrid loss of IMSAHLO, from the losses it is made of."""

from collections.abc import Sequence

import jax
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared
from fluojax.losses.boundary import contour_weighted_loss
from fluojax.losses.overlap import tversky_loss
from fluojax.losses.pixel import focal_loss
from fluojax.losses.topology import soft_cldice_loss

# Tversky, boundary, focal, clDice: as in the text of the paper; its ablation
# section swaps the second and the third.
TEXT = (0.4, 0.2, 0.3, 0.1)
ABLATION = (0.4, 0.3, 0.2, 0.1)

# Not given in the paper.
_SMOOTH = 1e-6


def imsahlo_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weights: Sequence[float] = TEXT,
    contour_weight: float = 2.0,
    num_iters: int = 10,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Tversky, contour-weighted, focal and clDice loss in one sum, per image.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      weights: of the Tversky, boundary, focal and clDice term, in this order.
      contour_weight: of the boundary term, as in `contour_weighted_loss`.
      num_iters: of the soft skeleton, at least the largest radius in pixels.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Raises:
      TypeError: logits are not floating point, or `where` is not bool.
      ValueError: shapes do not fit, or `weights` are not four.

    Source: Jain et al., IMSAHLO, arXiv 2601.11645: Tversky with prices 0.3 for
    false positives and 0.7 for false negatives, focal with alpha 0.8 and gamma
    3. Its equation 4, taken as printed, is 1/2 whatever the prediction: the
    prices are those of its experiments. Contour weight, skeleton iterations and
    smoothing (1e-6; 1 in clDice) are not given there. Everything is counted per
    image.
    """
    terms = imsahlo_terms(
        logits, labels, contour_weight=contour_weight, num_iters=num_iters, where=where
    )
    return shared.weigh("imsahlo_loss", weights, terms)


def imsahlo_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    contour_weight: float = 2.0,
    num_iters: int = 10,
    where: ArrayLike | None = None,
) -> dict[str, jax.Array]:
    """The summands of `imsahlo_loss`, unweighted.

    Returns:
      `{"tversky": [B], "boundary": [B], "focal": [B], "cldice": [B]}`.
    """
    return {
        "tversky": tversky_loss(
            logits, labels, fp_weight=0.3, fn_weight=0.7, smooth=_SMOOTH, where=where
        ),
        "boundary": contour_weighted_loss(
            logits,
            labels,
            contour_weight=contour_weight,
            smooth=_SMOOTH,
            where=where,
        ),
        "focal": focal_loss(logits, labels, gamma=3.0, alpha=0.8, where=where),
        "cldice": soft_cldice_loss(logits, labels, num_iters=num_iters, where=where),
    }
