"""The unified focal loss: a Tversky part and a cross-entropy part, both focal.

`unified_focal_loss(logits, labels, *, ...) -> [B]` with the shapes of the other
losses.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fluojax.losses import _shared as shared
from fluojax.losses import _view
from fluojax.losses._view import View

# Of the authors' program; a pixel count, so practically none.
_SMOOTH = 1e-7


def unified_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    weight: float = 0.5,
    delta: float = 0.6,
    gamma: float = 0.5,
    asymmetric: bool = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Weighted sum of a focal Tversky and a focal cross-entropy loss, per image.

    With c over all classes, the background included (1 - p and p for one
    class), and d = delta for cells, 1 - delta for the background,

        weight mean_c (1 - T_c)^(1 - gamma)
        + (1 - weight) mean_pixels Σ_c -d (1 - p_c)^gamma y_c log p_c,

    T_c the Tversky index with prices delta of false negatives and 1 - delta of
    false positives.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      weight: of the Tversky part, in [0, 1].
      delta: price of missed cells against that of false ones, in [0, 1].
      gamma: in [0, 1): focus; it takes easy pixels away and strengthens nearly
        correct classes.
      asymmetric: the exponent of the Tversky part acts on the cells only and
        the focal factor on the background only, so that rare cells are never
        weighed down. False applies both to all classes.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0. A class without pixels that is nowhere predicted
      costs 0 in the Tversky part.

    Raises:
      TypeError: logits are not floating point, or `where` is not bool.
      ValueError: shapes do not fit.

    Source: Yeung et al., Unified Focal loss, Computerized Medical Imaging and
    Graphics 2022, as its authors' program computes it, but in 3-D too and from
    logits: the program clips probabilities at 1e-7, which takes the gradient
    from confident errors. MONAI weighs the two parts the other way round and
    halves the second.
    """
    name = "unified_focal_loss"
    logits, labels, where = shared.inputs(name, logits, labels, where)
    view = _view.classes(logits, labels, where, None, include_background=True)
    is_cell = np.arange(view.probs.shape[-1]) > 0
    overlap = _tversky_part(name, view, is_cell, delta, gamma, asymmetric)
    pixel = _cross_entropy_part(logits, view, is_cell, delta, gamma, asymmetric)
    return weight * overlap + (1.0 - weight) * pixel


def _tversky_part(name, view: View, is_cell, delta, gamma, asymmetric) -> jax.Array:
    probs, labels = view.probs, view.labels
    missed, false = (1.0 - probs) * labels, probs * (1.0 - labels)
    errors, hits = _view.totals(
        view, delta * missed + (1.0 - delta) * false, probs * labels
    )
    losses = shared.ratio(errors, hits + errors + _SMOOTH)
    focal = shared.power(losses, 1.0 - gamma)
    if asymmetric:
        focal = jnp.where(is_cell[None], focal, losses)
    return _view.class_mean(name, view, focal)


def _cross_entropy_part(
    logits, view: View, is_cell, delta, gamma, asymmetric
) -> jax.Array:
    if logits.shape[-1] == 1:
        log_p, log_q = shared.log_sigmoids(logits)
        logs = jnp.concatenate([log_q, log_p], axis=-1)
    else:
        logs = jax.nn.log_softmax(logits, axis=-1)
    # 1 - p as the sum of the other classes keeps its digits near p = 1.
    others = jnp.asarray(1.0 - np.eye(view.probs.shape[-1]), view.probs.dtype)
    rest = jnp.einsum("...k,kc->...c", view.probs, others, precision="highest")
    focus = shared.power(rest, gamma)
    is_cell = shared.along_classes(jnp.asarray(is_cell), rest)
    if asymmetric:
        focus = jnp.where(is_cell, 1.0, focus)
    price = jnp.where(is_cell, delta, 1.0 - delta).astype(rest.dtype)
    sums = _view.total(view, -price * focus * view.labels * logs)
    pixels = shared.pixel_count(view.where, view.probs)
    return jnp.sum(shared.ratio(sums, jnp.broadcast_to(pixels, sums.shape)), axis=-1)
