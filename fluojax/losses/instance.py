"""Losses in which every instance counts the same, whatever its size.

`f(logits, labels, *, ...) -> [B]`: logits and labels `[B, *S, K]`, S of rank 2
or 3; float32 or better inside; one value per image. Several classes count
together as cells: class 0 is the background, p the probability of all others.

`instances` `[B, *S]` are integers: 0 is background, any other value an
instance, ids may leave out numbers, and the pixels of one need not touch. None
takes the connected components (corners join) of labels > 0.5. `max_instances`
bounds the instances that have a loss of their own, in the order of their ids;
those beyond it leave the mean, and their pixels stay foreground and belong to
no other instance's domain. `ops.count_instances` gives the true number.

`loss` names what is computed for every instance, from sums over its pixels:
"dice", "tversky" (false positives cost 0.3, false negatives 0.7),
"cross_entropy" (the mean over the pixels of the domain) or "dice_cross_entropy"
(their sum). `smooth` are pixels above and below the line of Dice and Tversky.
The cost does not grow with the number of instances.

`where` `[B, *S, 1 or K]` bool takes pixels out of everything, labels and
instances there included; an image without any left costs 0.

Every function raises TypeError for logits that are not floating point and for
a `where` or instances of another type, ValueError for shapes that do not fit,
an unknown `loss` and a `max_instances` below 1.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax.losses import _instances as inst
from fluojax.losses import _shared as shared
from fluojax.losses._instances import Sums, by_row, image_sum
from fluojax.ops.nearest import nearest_rows


def blob_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    instances: ArrayLike | None = None,
    loss: str = "dice",
    main_weight: float = 2.0,
    blob_weight: float = 1.0,
    smooth: float = 1e-5,
    max_instances: int = 256,
    where: ArrayLike | None = None,
) -> jax.Array:
    """A loss of the whole image, and its mean over images of one instance each.

        main_weight l(p, y) + blob_weight mean over k of l(p, [x in k])

    where l of instance k is taken over the background and instance k only: the
    other instances leave every sum and the number of pixels.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1], for the first
        term.
      instances: `[B, *S]` ids, or None; what is 0 there is background.
      loss: "dice", "tversky", "cross_entropy" or "dice_cross_entropy".
      main_weight: weight of the first term.
      blob_weight: weight of the second term, which is 0 without an instance.
      smooth: pixels added above and below the line in both terms.
      max_instances: instances in the second term.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Source: Kofler et al., blob loss, IPMI 2023 (arXiv 2205.08209); the weights
    2 and 1 are those of two ports, the paper's own were not read. The authors'
    program multiplies what it removes by 0, which on logits makes p = 1/2
    there; here removed pixels leave the domain, which for Dice of probabilities
    is the same. It ignores the one weight where the other is 0, and takes
    components of the labels for instances.
    """
    name = "blob_loss"
    inst.check_loss(name, loss)
    scene = inst.scene(name, logits, labels, where, max_instances)
    main = inst.pixel_loss(loss, inst.whole_image(scene), smooth)
    cells = inst.instances(name, scene, instances, None, max_instances)
    losses = inst.pixel_loss(loss, _blobs(scene, cells, loss), smooth)
    blobs = inst.row_mean(losses, cells.areas > 0)
    return main_weight * main + blob_weight * blobs


def _blobs(scene: inst.Scene, cells: inst.Objects, loss: str) -> Sums:
    """Sums over the background and one instance, each `[B, N]`."""
    behind = cells.numbers == 0
    if scene.where is not None:
        behind = behind & scene.where

    def inside(values):
        return by_row(cells.rows, cells.areas.shape[1], values)

    def outside(values):
        return image_sum(jnp.where(behind, values, 0.0))[:, None]

    missed = inside(shared.sigmoid(-scene.logits))
    extra = outside(shared.sigmoid(scene.logits))
    areas = cells.areas.astype(missed.dtype)
    if "cross_entropy" not in loss:
        nothing = jnp.zeros_like(areas)
        return Sums(areas - missed, extra, missed, nothing, nothing)
    log_p, log_q = shared.log_sigmoids(scene.logits)
    pixels = areas + outside(jnp.ones_like(log_p))
    return Sums(areas - missed, extra, missed, -inside(log_p) - outside(log_q), pixels)


def cc_dice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    instances: ArrayLike | None = None,
    regions: ArrayLike | None = None,
    smooth: float = 1.0,
    ce_weight: float = 1.0,
    max_instances: int = 256,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Dice and cross-entropy in the region of every instance, averaged over them.

    Every pixel belongs to the region of the instance that is nearest to it, of
    equally near ones to that of the lower id. In each region the loss is that
    of an image,

        1 - (2 Σ p y + smooth) / (Σ p + Σ y + smooth) + ce_weight · mean CE(p, y).

    An image without an instance is one region.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      instances: `[B, *S]` ids, or None; only used to find the regions.
      regions: `[B, *S]` ids of the regions, 0 for pixels in none, to save
        finding them; `ops.expand_labels` of an instance map.
      smooth: pixels added above and below the line.
      ce_weight: weight of the cross-entropy; 0 leaves Dice alone.
      max_instances: regions that count.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Source: Bouteille et al., arXiv 2511.17146, with the regions of CC-Metrics;
    that both parts weigh the same is our choice.
    """
    name = "cc_dice_loss"
    scene = inst.scene(name, logits, labels, where, max_instances)
    whole = _both(inst.whole_image(scene), smooth, ce_weight)
    rows = _regions(name, scene, instances, regions, max_instances)
    sums = inst.sums_of(scene, lambda x: by_row(rows, max_instances, x))
    known = sums.pixels > 0
    losses = inst.row_mean(_both(sums, smooth, ce_weight), known)
    return jnp.where(jnp.any(known, axis=-1), losses, whole)


def _both(sums: Sums, smooth: float, ce_weight: float) -> jax.Array:
    dice = inst.pixel_loss("dice", sums, smooth)
    return dice + ce_weight * inst.pixel_loss("cross_entropy", sums, smooth)


def _regions(name, scene, instances, regions, max_instances) -> jax.Array:
    """Row of the region of every pixel `[B, P]`."""
    if regions is not None:
        given = inst.instances(name, scene, regions, None, max_instances)
        return given.rows
    cells = inst.instances(name, scene, instances, None, max_instances)
    # Instances that do not fit share the row max_instances and keep their region.
    find = functools.partial(nearest_rows, count=max_instances + 1)
    nearest = inst.each_image(find, cells.rows.reshape(-1, *scene.shape))
    nearest = nearest.reshape(cells.rows.shape)
    if scene.where is None:
        return nearest
    return jnp.where(scene.where, nearest, max_instances + 1)
