"""Losses for segmenting cells: pure functions of logits and labels.

`f(logits, labels, *, ...) -> [B]` with logits and labels `[B, *S, K]`, S of rank
2 or 3, channels last: the output of a Flax model goes in unchanged, and the
caller takes the mean over the batch. One class means sigmoid, several mean
softmax. jax and numpy are all that is imported. README.md beside this file
tells which loss is for which problem.
"""

from fluojax.losses.boundary import (
    boundary_loss,
    contour_weighted_loss,
    contour_weighted_terms,
    hausdorff_loss,
    separable_contour_loss,
    separable_contour_terms,
)
from fluojax.losses.compound import (
    combined_focal_tversky_loss,
    combined_focal_tversky_terms,
    combined_loss,
    combined_terms,
    weighted_sum,
)
from fluojax.losses.ici import dual_ici_loss, dual_ici_terms, ici_loss, ici_terms
from fluojax.losses.imsahlo import imsahlo_loss, imsahlo_terms
from fluojax.losses.instance import blob_loss, cc_dice_loss
from fluojax.losses.lovasz import lovasz_loss
from fluojax.losses.moments import (
    global_moment_loss,
    instance_moment_loss,
    local_moment_loss,
    residual_moment_loss,
)
from fluojax.losses.overlap import (
    dice_loss,
    focal_tversky_loss,
    generalized_dice_loss,
    jaccard_loss,
    power_mae_loss,
    tversky_loss,
)
from fluojax.losses.pixel import cross_entropy_loss, focal_loss
from fluojax.losses.registry import create_loss, instance_capacity, list_losses
from fluojax.losses.topology import cbdice_loss, dice_cldice_loss, soft_cldice_loss
from fluojax.losses.unified import unified_focal_loss

__all__ = [
    "blob_loss",
    "boundary_loss",
    "cbdice_loss",
    "cc_dice_loss",
    "combined_focal_tversky_loss",
    "combined_focal_tversky_terms",
    "combined_loss",
    "combined_terms",
    "contour_weighted_loss",
    "contour_weighted_terms",
    "create_loss",
    "cross_entropy_loss",
    "dice_cldice_loss",
    "dice_loss",
    "dual_ici_loss",
    "dual_ici_terms",
    "focal_loss",
    "focal_tversky_loss",
    "generalized_dice_loss",
    "global_moment_loss",
    "hausdorff_loss",
    "ici_loss",
    "ici_terms",
    "imsahlo_loss",
    "imsahlo_terms",
    "instance_capacity",
    "instance_moment_loss",
    "jaccard_loss",
    "list_losses",
    "local_moment_loss",
    "lovasz_loss",
    "power_mae_loss",
    "residual_moment_loss",
    "separable_contour_loss",
    "separable_contour_terms",
    "soft_cldice_loss",
    "tversky_loss",
    "unified_focal_loss",
    "weighted_sum",
]
