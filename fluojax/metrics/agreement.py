"""Scores of two label maps from the areas that their objects share.

The contract is that of `objects`: integer label maps `[*S]`, 0 is background,
at most `max_instances` objects of each map take part, the others stay
unmatched and are counted. NaN for two maps without objects, 0 if one is empty.
Results are NamedTuples whose first fields are the scores and whose others are
the counts, so that they can be pooled over images. Areas of objects beyond the
bound are not known and missing in `aggregated_jaccard` and `ensemble_dice`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax.metrics import overlap as ov
from fluojax.metrics.assignment import one_to_one

_DET_WEIGHTS = (5.0, 10.0, 1.0)  # split, missed, invented


class PanopticQuality(NamedTuple):
    """pq = dq * sq, with the counts behind them; `iou_sum` over the matches."""

    dq: jax.Array
    sq: jax.Array
    pq: jax.Array
    tp: jax.Array
    fp: jax.Array
    fn: jax.Array
    iou_sum: jax.Array


class SegScore(NamedTuple):
    """SEG, with what is needed to pool it: iou_sum / n_true over all frames.

    `true_ids`, `match` and `iou` are `[N]`: each true object, the prediction
    that covers more than half of it (0 without) and their IoU.
    """

    seg: jax.Array
    iou_sum: jax.Array
    n_true: jax.Array
    true_ids: jax.Array
    match: jax.Array
    iou: jax.Array


class DetScore(NamedTuple):
    """DET and its counts: splits (NS), fn, fp, n_true."""

    det: jax.Array
    splits: jax.Array
    fn: jax.Array
    fp: jax.Array
    n_true: jax.Array


def panoptic_quality(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    threshold: float = 0.5,
    strict: bool = True,
    max_instances: int = 256,
) -> PanopticQuality:
    """Detection, segmentation and panoptic quality.

    dq = TP / (TP + FP/2 + FN/2), sq = mean IoU of the matches (0 without any),
    pq = dq sq. From one half on a match is any pair with IoU above the
    threshold; below, and for `strict=False` at one half, pairs are assigned one
    to one with the largest sum of IoU first. `strict=False` takes pairs at the
    threshold too.

    Raises:
      TypeError: the maps are not integers.
      ValueError: shapes, rank, or a threshold outside [0, 1].

    Source: Kirillov et al., CVPR 2019; below one half as in HoVer-Net's
    evaluation, without its 1e-6 below the line of sq.
    """
    table = _table("panoptic_quality", true, pred, max_instances)
    whole = ov.wholes(table, "iou")
    iou = ov.scores(table.shared, whole)
    match = ov.reaches(table.shared, whole, [threshold], strict)[0]
    if not (threshold > 0.5 or (threshold == 0.5 and strict)):
        match &= _best_total(iou)
    tp = jnp.sum(match, dtype=jnp.int32)
    fp, fn = table.pred.count - tp, table.true.count - tp
    iou_sum = jnp.sum(jnp.where(match, iou, 0.0))
    errors = _float(tp) + 0.5 * _float(fp + fn)
    nothing = errors == 0
    dq = _float(tp) / jnp.where(nothing, 1.0, errors)
    sq = iou_sum / jnp.maximum(_float(tp), 1.0)
    dq, sq = (jnp.where(nothing, jnp.nan, score) for score in (dq, sq))
    return PanopticQuality(dq, sq, dq * sq, tp, fp, fn, iou_sum)


def aggregated_jaccard(
    true: ArrayLike, pred: ArrayLike, *, plus: bool = False, max_instances: int = 256
) -> jax.Array:
    """Aggregated Jaccard index (AJI), or AJI+ with `plus`.

    Sum of the intersections of partners over the sum of their unions plus the
    areas of all objects without a partner. AJI gives every true object the
    prediction of highest IoU (ties: the lowest id), which may be used again;
    AJI+ assigns one to one with the largest sum of IoU.

    Source: Kumar et al., IEEE TMI 2017; AJI+ Graham et al., HoVer-Net 2019.
    """
    table = _table("aggregated_jaccard", true, pred, max_instances)
    iou = ov.scores(table.shared, ov.wholes(table, "iou"))
    if plus:
        partner = _best_total(iou) & (table.shared > 0)
    else:
        best = jnp.argmax(iou, axis=1)
        columns = jnp.arange(iou.shape[1])[None]
        partner = (best[:, None] == columns) & (table.shared > 0)
    areas_true, areas_pred = _float(table.true.areas), _float(table.pred.areas)
    shared = jnp.sum(jnp.where(partner, _float(table.shared), 0.0))
    union = jnp.where(partner, _float(ov.wholes(table, "iou")), 0.0)
    alone_true = jnp.where(jnp.any(partner, axis=1), 0.0, areas_true)
    alone_pred = jnp.where(jnp.any(partner, axis=0), 0.0, areas_pred)
    below = jnp.sum(union) + jnp.sum(alone_true) + jnp.sum(alone_pred)
    return jnp.where(below == 0, jnp.nan, shared / jnp.maximum(below, 1.0))


def ensemble_dice(
    true: ArrayLike, pred: ArrayLike, *, max_instances: int = 256
) -> jax.Array:
    """Ensemble Dice (Dice2): over all overlapping pairs, 2 sum I / sum (A + B).

    0 if objects exist but none overlap.

    Source: Vu et al., Front. Bioeng. Biotechnol. 2019; the program of HoVer-Net
    fails on empty images.
    """
    table = _table("ensemble_dice", true, pred, max_instances)
    areas = _float(table.true.areas)[:, None] + _float(table.pred.areas)[None]
    below = jnp.sum(jnp.where(table.shared > 0, areas, 0.0))
    value = 2.0 * jnp.sum(_float(table.shared)) / jnp.maximum(below, 1.0)
    nothing = table.true.count + table.pred.count == 0
    return jnp.where(nothing, jnp.nan, value)


def seg_score(
    true: ArrayLike, pred: ArrayLike, *, max_instances: int = 256
) -> SegScore:
    """SEG of the Cell Tracking Challenge: mean IoU over the true objects.

    A prediction matches the true object of which it covers more than half;
    an object without a match counts 0. Of a sequence: `iou_sum` over `n_true`,
    both summed over the frames.

    Source: Maska et al., Bioinformatics 2014.
    """
    table = _table("seg_score", true, pred, max_instances)
    covered = _covers(table)
    iou = ov.scores(table.shared, ov.wholes(table, "iou"))
    per_object = jnp.sum(jnp.where(covered, iou, 0.0), axis=1)
    hit = jnp.any(covered, axis=1)
    iou_sum = jnp.sum(per_object)
    n_true = table.true.count
    nothing = n_true + table.pred.count == 0
    return SegScore(
        seg=jnp.where(nothing, jnp.nan, iou_sum / jnp.maximum(_float(n_true), 1.0)),
        iou_sum=iou_sum,
        n_true=n_true,
        true_ids=table.true.ids,
        match=jnp.where(hit, table.pred.ids[jnp.argmax(covered, axis=1)], 0),
        iou=per_object,
    )


def det_score(
    true: ArrayLike, pred: ArrayLike, *, max_instances: int = 256
) -> DetScore:
    """DET of the Cell Tracking Challenge, 1 - min(A, A0) / A0.

    A = 5 NS + 10 FN + FP is the cost of repairing the prediction and A0 =
    10 n_true that of drawing it anew. NS adds m - 1 over the predictions that
    match m > 1 true objects (as in `seg_score`), FP are predictions that match
    none. NaN without true objects. Of a sequence: from the summed counts.

    Source: Matula et al., PLoS ONE 2015, weights of the challenge.
    """
    table = _table("det_score", true, pred, max_instances)
    covered = _covers(table)
    per_pred = jnp.sum(covered, axis=0, dtype=jnp.int32)
    splits = jnp.sum(jnp.maximum(per_pred - 1, 0), dtype=jnp.int32)
    n_true = table.true.count
    fn = n_true - jnp.sum(covered, dtype=jnp.int32)
    fp = table.pred.count - jnp.sum(per_pred > 0, dtype=jnp.int32)
    split, missed, invented = _DET_WEIGHTS
    repair = split * _float(splits) + missed * _float(fn) + invented * _float(fp)
    anew = missed * _float(n_true)
    value = 1.0 - jnp.minimum(repair, anew) / jnp.maximum(anew, 1.0)
    return DetScore(jnp.where(n_true == 0, jnp.nan, value), splits, fn, fp, n_true)


def _table(
    function: str, true: ArrayLike, pred: ArrayLike, max_instances: int
) -> ov.Overlap:
    true, pred = ov.label_maps(function, true, pred, max_instances)
    return ov.find_overlap(true, pred, max_instances)


def _best_total(iou: jax.Array) -> jax.Array:
    """bool `[N, N]`: the one-to-one pairs with the largest sum of IoU."""
    column = one_to_one(-iou, iou > 0, iou > 0)
    return column[:, None] == jnp.arange(iou.shape[1], dtype=column.dtype)[None]


def _covers(table: ov.Overlap) -> jax.Array:
    """Predictions with more than half of a true object; at most one per object."""
    return table.shared > table.true.areas[:, None] - table.shared


def _float(counts: jax.Array) -> jax.Array:
    return counts.astype(jnp.result_type(float))
