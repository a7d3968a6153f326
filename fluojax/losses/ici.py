"""ICI loss: instances, and the centres of instances, against what is predicted.

Shared contract, also of `instance`: `f(logits, labels, *, ...) -> [B]`; several
classes count together as cells; `instances` `[B, *S]` ids or None for the
connected components of labels > 0.5; `max_instances`, `loss`, `smooth` and
`where` as there. Predicted components are those of p >= 0.5.

An instance k meets the predicted components that share a pixel with it, D_k
together. Its prediction is p on k within D_k and on the background within D_k:
a component that covers two instances is no false positive of either
(`others_tp=True` makes it one). Its loss l is Dice or another of p so masked
against [x in k]; cross-entropy is the mean over k and those pixels of the
background, on k without the mask, since log 0 has no slope.

Predicted components beyond `max_instances`, in raster order, are false
positives of no instance; where they cover one they count as predicted, and the
counts of components are true ones.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fluojax.losses import _instances as inst
from fluojax.losses import _shared as shared
from fluojax.losses._centers import box_center, soft_center
from fluojax.losses._instances import Objects, Sums, by_row, image_sum

# Guard of the rates, as published.
_GUARD = 1e-7


def ici_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    instances: ArrayLike | None = None,
    loss: str = "dice",
    global_weight: float = 0.25,
    instance_weight: float = 0.5,
    center_weight: float = 0.25,
    center: str = "box",
    center_offset: int = 3,
    fp: str = "plain",
    others_tp: bool = False,
    connectivity: int | None = None,
    smooth: float = 1e-5,
    max_instances: int = 256,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Weighted sum of the terms global, instance and center of `ici_terms`.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1], for the global
        term.
      instances: `[B, *S]` ids, or None; what is 0 there is background.
      loss: "dice", "tversky", "cross_entropy" or "dice_cross_entropy".
      global_weight: weight of the loss of the whole image.
      instance_weight: weight of the mean over instances.
      center_weight: weight of the centres.
      center: "box" draws a box around the centre of every instance and of every
        predicted component and compares the drawings, as published: constants
        without any gradient, good for a log only. "soft", our own, compares p
        with 1 in the box of every instance and does train.
      center_offset: half the width of the boxes in pixels, along the longest
        axis of the image; in proportion along the others.
      fp: "plain" counts false positives by p; "detached" by p times itself
        without gradient, as the published program does for probabilities.
      others_tp: whether a component counts in full for all instances it meets.
      connectivity: steps along how many axes join pixels, 1 (faces) to the rank
        (also corners, the default), of predicted components and of instances
        that are not given.
      smooth: pixels added above and below the line.
      max_instances: instances, and predicted components, with a row.
      where: pixels marked False are ignored.

    Returns:
      `[B]` losses, at least 0.

    Raises:
      TypeError, ValueError: as `instance`, or an unknown `center` or `fp`, or a
        negative `center_offset`.

    Source: Rachmadi, Poon and Skibbe, MIDL 2023 (PMLR 227); the proportion 1:2:1
    is that of a port, the paper's own was not read. The program thresholds p
    where it applies the sigmoid itself, which leaves only the global term a
    gradient; here p is always soft. It labels components by repeated pooling,
    which takes long ones apart; here they are exact. Its offset is 5, that of
    its documentation 3.
    """
    terms = ici_terms(
        logits,
        labels,
        instances=instances,
        loss=loss,
        center=center,
        center_offset=center_offset,
        fp=fp,
        others_tp=others_tp,
        connectivity=connectivity,
        smooth=smooth,
        max_instances=max_instances,
        where=where,
    )
    weights = (global_weight, instance_weight, center_weight)
    return sum(w * terms[n] for w, n in zip(weights, _TERMS, strict=True))


_TERMS = ("global", "instance", "center")


def ici_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    rates: bool = False,
    **options,
) -> dict[str, jax.Array]:
    """The terms of `ici_loss` and three counts, unweighted, for logs.

    Args:
      logits: `[B, *S, K]` scores.
      labels: `[B, *S, K]` indicators or probabilities in [0, 1].
      rates: false components per component and missed instances per instance
        instead of their numbers; 0 where there is none.
      **options: those of `ici_loss` except the weights.

    Returns:
      `[B]` each. "global": l(p, y). "instance": the mean over instances of l,
      about 1 and without gradient for one that no component meets, and the
      global term without an instance. "center": see `ici_loss`; "soft" is 0
      without an instance. "fdr": 1 - Σ p y / Σ p, 0 without a predicted
      component. "false_instances": components that meet no instance;
      "missed_instances": instances that meet no component; true numbers beyond
      `max_instances` too.

    Raises:
      As `ici_loss`.
    """
    return _terms("ici_terms", logits, labels, rates, dual=False, **options)


def dual_ici_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    instances: ArrayLike | None = None,
    loss: str = "dice",
    global_weight: float = 0.25,
    instance_weight: float = 0.5,
    center_weight: float = 0.25,
    center: str = "box",
    center_offset: int = 3,
    fp: str = "plain",
    others_tp: bool = False,
    connectivity: int | None = None,
    smooth: float = 1e-5,
    max_instances: int = 256,
    where: ArrayLike | None = None,
) -> jax.Array:
    """`ici_loss` with a term for every predicted component too.

    The weighted sum of `dual_ici_terms`; arguments as in `ici_loss`. The terms
    instance and instance_output each have half of `instance_weight`.

    Returns:
      `[B]` losses, at least 0.

    Raises:
      As `ici_loss`.

    Source: the extended program of the authors of `ici_loss`; that instances
    and components weigh the same is our choice.
    """
    terms = dual_ici_terms(
        logits,
        labels,
        instances=instances,
        loss=loss,
        center=center,
        center_offset=center_offset,
        fp=fp,
        others_tp=others_tp,
        connectivity=connectivity,
        smooth=smooth,
        max_instances=max_instances,
        where=where,
    )
    half = 0.5 * instance_weight
    weights = (global_weight, half, center_weight, half)
    names = (*_TERMS, "instance_output")
    return sum(w * terms[n] for w, n in zip(weights, names, strict=True))


def dual_ici_terms(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    rates: bool = False,
    **options,
) -> dict[str, jax.Array]:
    """The terms of `ici_terms` and "instance_output", unweighted.

    That is the mean over predicted components j of l of p on j against the
    instances that share a pixel with it; a component that meets none is
    compared with nothing. Without a component it is the global term.

    Args and raises as `ici_terms`.

    Returns:
      `[B]` each.
    """
    return _terms("dual_ici_terms", logits, labels, rates, dual=True, **options)


def _terms(
    name,
    logits,
    labels,
    rates,
    dual,
    *,
    instances=None,
    loss="dice",
    center="box",
    center_offset=3,
    fp="plain",
    others_tp=False,
    connectivity=None,
    smooth=1e-5,
    max_instances=256,
    where=None,
) -> dict[str, jax.Array]:
    _check(name, loss, center, center_offset, fp)
    scene = inst.scene(name, logits, labels, where, max_instances)
    true = inst.instances(name, scene, instances, connectivity, max_instances)
    found = lax.stop_gradient(scene.logits) >= 0.0
    pred = inst.components(scene, found, connectivity, max_instances)
    meets = _meets(true, pred, max_instances)
    cost = functools.partial(inst.pixel_loss, loss, smooth=smooth)
    whole = cost(inst.whole_image(scene))
    sums = _instance_sums(scene, true, pred, meets, fp, others_tp, loss)
    terms = {"global": whole, "instance": _mean_or(cost(sums), true.areas > 0, whole)}
    if dual:
        sums = _component_sums(scene, true, pred, meets, loss)
        terms["instance_output"] = _mean_or(cost(sums), pred.areas > 0, whole)
    if center == "soft":
        terms["center"] = soft_center(scene, true, center_offset, loss, smooth)
    else:
        terms["center"] = box_center(scene, true, pred, center_offset, loss, smooth)
    terms["fdr"] = _false_discovery(scene, pred)
    return terms | _counts(true, pred, meets, rates, scene.logits.dtype)


def _check(name, loss, center, center_offset, fp) -> None:
    inst.check_loss(name, loss)
    if center not in ("box", "soft"):
        raise ValueError(f'{name}: center must be "box" or "soft", got {center!r}')
    if fp not in ("plain", "detached"):
        raise ValueError(f'{name}: fp must be "plain" or "detached", got {fp!r}')
    if center_offset < 0:
        raise ValueError(f"{name}: center_offset must be >= 0, got {center_offset}")


def _meets(true: Objects, pred: Objects, max_instances) -> jax.Array:
    """Whether component j and instance k share a pixel, `[B, N + 1, N + 1]`.

    The last row and column are for all without a row of their own.
    """
    width = max_instances + 1
    both = (true.numbers != 0) & (pred.numbers != 0)
    cells = jnp.where(both, pred.rows * width + true.rows, width * width)

    def of_image(cells):
        table = jnp.zeros(width * width, bool)
        return table.at[cells].set(True, mode="drop").reshape(width, width)

    return jax.vmap(of_image)(cells)


def _instance_sums(scene, true, pred, meets, fp, others_tp, loss) -> Sums:
    """Sums of every instance against the components that it meets, `[B, N]`."""
    size = true.areas.shape[-1]
    probs, rest = shared.sigmoid(scene.logits), shared.sigmoid(-scene.logits)
    found = pred.numbers != 0
    # A component that covers a pixel of an instance meets it, thus no table.
    missed = by_row(true.rows, size, jnp.where(found, rest, 1.0))
    areas = true.areas.astype(probs.dtype)
    weight = lax.stop_gradient(probs) if fp == "detached" else jnp.ones_like(probs)
    outside = true.numbers == 0
    if others_tp:  # a component counts everywhere, but on the instance itself
        weight, outside = jnp.ones_like(probs), jnp.ones_like(outside)
    rows = jnp.where(outside, pred.rows, size)
    touch = meets[:, :size, :size].astype(probs.dtype)

    def around(values):
        """Summed over the components that each instance meets."""
        every = by_row(rows, size, weight * values)
        every = jnp.einsum("bjk,bj->bk", touch, every, precision="highest")
        if not others_tp:
            return every
        return every - by_row(
            jnp.where(pred.rows < size, true.rows, size), size, values
        )

    extra = around(probs)
    if "cross_entropy" not in loss:
        nothing = jnp.zeros_like(extra)
        return Sums(areas - missed, extra, missed, nothing, nothing)
    log_p, log_q = shared.log_sigmoids(scene.logits)
    entropy = by_row(true.rows, size, -log_p) + around(-log_q)
    pixels = areas + around(jnp.ones_like(probs))
    return Sums(areas - missed, extra, missed, entropy, pixels)


def _component_sums(scene, true, pred, meets, loss) -> Sums:
    """Sums of every component against the instances that it meets, `[B, N]`."""
    size = true.areas.shape[-1]
    probs = shared.sigmoid(scene.logits)
    inside = jnp.where(true.numbers != 0, pred.rows, size)
    outside = jnp.where(true.numbers == 0, pred.rows, size)
    touch = meets[:, :size, :size].astype(probs.dtype)
    areas = jnp.einsum(
        "bjk,bk->bj", touch, true.areas.astype(probs.dtype), precision="highest"
    )
    # Pixels of the instances that the component leaves out, and 1 - p inside.
    covered = by_row(inside, size, jnp.ones_like(probs))
    short = by_row(inside, size, shared.sigmoid(-scene.logits))
    left = jnp.maximum(areas - covered, 0.0)
    hits, extra = covered - short, by_row(outside, size, probs)
    if "cross_entropy" not in loss:
        nothing = jnp.zeros_like(extra)
        return Sums(hits, extra, left + short, nothing, nothing)
    log_p, log_q = shared.log_sigmoids(scene.logits)
    entropy = by_row(inside, size, -log_p) + by_row(outside, size, -log_q)
    return Sums(hits, extra, left + short, entropy, pred.areas.astype(probs.dtype))


def _mean_or(losses, known, otherwise) -> jax.Array:
    mean = inst.row_mean(losses, known)
    return jnp.where(jnp.any(known, axis=-1), mean, otherwise)


def _false_discovery(scene, pred) -> jax.Array:
    probs = shared.masked(shared.sigmoid(scene.logits), scene.where)
    wrong = image_sum(probs * (1.0 - scene.labels))
    rate = wrong / (image_sum(probs) + _GUARD)
    return jnp.where(pred.count > 0, rate, 0.0)


def _counts(true, pred, meets, rates, dtype) -> dict[str, jax.Array]:
    counts = {
        "false_instances": (pred.count, _met(pred, true, meets, 2)),
        "missed_instances": (true.count, _met(true, pred, meets, 1)),
    }
    found = {}
    for name, (count, met) in counts.items():
        number = (count - met).astype(dtype)
        found[name] = number / (count.astype(dtype) + _GUARD) if rates else number
    return found


def _met(these: Objects, others: Objects, meets, axis) -> jax.Array:
    """How many of these meet any of the others, also where they have no row."""
    size = these.areas.shape[-1]
    rows = jnp.any(meets, axis=axis)[:, :size]
    few = jnp.sum(rows, axis=-1, dtype=jnp.int32)
    covered = jnp.where(others.numbers != 0, these.numbers, 0)

    def of_image(count, few, covered):
        def of_all(value):
            _, covered = value
            present = jnp.zeros(covered.size + 1, bool).at[covered].set(True)
            return jnp.sum(present[1:], dtype=jnp.int32), covered

        return inst.if_needed(count > size, of_all, (few, covered))[0]

    return jax.vmap(of_image)(these.count, few, covered)
