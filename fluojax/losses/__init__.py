"""Losses for segmenting cells: pure functions of logits and labels.

`f(logits, labels, *, ...) -> [B]` with logits and labels `[B, *S, K]`, S of
rank 2 or 3, channels last: the output of a Flax model goes in unchanged, and
the caller takes the mean over the batch. One class means sigmoid, several mean
softmax. jax and numpy are all that is imported.
"""

from fluojax.losses.compound import (
    combined_focal_tversky_loss,
    combined_focal_tversky_terms,
    combined_loss,
    combined_terms,
    weighted_sum,
)
from fluojax.losses.lovasz import lovasz_loss
from fluojax.losses.overlap import (
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    power_mae_loss,
    tversky_loss,
)
from fluojax.losses.pixel import cross_entropy_loss, focal_loss
from fluojax.losses.registry import create_loss, list_losses
from fluojax.losses.unified import unified_focal_loss

__all__ = [
    "combined_focal_tversky_loss",
    "combined_focal_tversky_terms",
    "combined_loss",
    "combined_terms",
    "create_loss",
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "jaccard_loss",
    "list_losses",
    "lovasz_loss",
    "power_mae_loss",
    "tversky_loss",
    "unified_focal_loss",
    "weighted_sum",
]
