"""Scores of objects: who is matched with whom, and what follows from the counts.

Shared contract: `true` and `pred` are label maps `[*S]` of integers, S of rank
2 or 3, `jax.vmap` for a batch; 0 and only 0 is background, ids need not be
consecutive, and the pixels of one id need not touch. `max_instances` bounds
the objects of each map that take part, in the order of their ids; those beyond
it match nothing and are counted all the same: `n_true` and `n_pred` are the
true numbers, so `n_true > max_instances` tells that the bound was too low.
Counts are exact int32, scores float32 (float64 where jax_enable_x64 is on).

Scores that are 0/0 (two maps without objects) are NaN; if only one map is
empty they are 0, the worst value. Thresholds are static Python numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fluojax.metrics import overlap as ov
from fluojax.metrics.agreement import (
    aggregated_jaccard,
    det_score,
    ensemble_dice,
    panoptic_quality,
    seg_score,
)
from fluojax.metrics.assignment import one_to_one

__all__ = [
    "average_precision",
    "aggregated_jaccard",
    "det_score",
    "ensemble_dice",
    "fluocells_summary_legacy",
    "match_by_distance",
    "match_by_iou",
    "object_scores",
    "panoptic_quality",
    "seg_score",
    "FluocellsSummary",
    "Matching",
    "ObjectScores",
]

_AP_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# Guard of the study's program below its ratios.
_FLUOCELLS_GUARD = 0.01
# Below it a threshold in pixels stands for "the same centroid".
_SMALLEST_DISTANCE = 1e-6


class Matching(NamedTuple):
    """Counts of matched objects, with a leading axis `[T]` for T thresholds.

    Attributes:
      tp: matched true objects.
      fp: predictions that matched nothing.
      fn: true objects that matched nothing.
      n_true: true objects, beyond `max_instances` too; without `[T]`.
      n_pred: predicted objects likewise.
      score_sum: sum over the matched true objects of their score (IoU,
        coverage, or for distances the distance in pixels).
      true_ids: `[N]` ids of the true objects, 0 in unused rows; without `[T]`.
      match: `[N]` id of the prediction that each true object matched, 0 without.
    """

    tp: jax.Array
    fp: jax.Array
    fn: jax.Array
    n_true: jax.Array
    n_pred: jax.Array
    score_sum: jax.Array
    true_ids: jax.Array
    match: jax.Array


class _Pairs(NamedTuple):
    """Chosen pairs for T thresholds: hit and column `[T, N]` per true object,
    and `[T]` predictions that serve a true object."""

    hit: jax.Array
    column: jax.Array
    used: jax.Array


class ObjectScores(NamedTuple):
    """Scores from counts, each of the shape of the counts.

    `accuracy` is TP / (TP + FP + FN), often called average precision at one
    threshold. The last three are None without a sum of scores.
    """

    precision: jax.Array
    recall: jax.Array
    f1: jax.Array
    accuracy: jax.Array
    mean_true_score: jax.Array | None
    mean_matched_score: jax.Array | None
    panoptic_quality: jax.Array | None


class FluocellsSummary(NamedTuple):
    """What the study's program prints for a data set, scalars."""

    f1: jax.Array
    accuracy: jax.Array
    precision: jax.Array
    recall: jax.Array
    mae: jax.Array
    medae: jax.Array
    mpe: jax.Array


def match_by_iou(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    threshold: float | Sequence[float] = 0.5,
    rule: str = "optimal",
    criterion: str = "iou",
    strict: bool = False,
    max_instances: int = 256,
) -> Matching:
    """Matches of two label maps by the pixels that their objects share.

    `"optimal"`: one to one. Of all assignments the one with most pairs at the
    threshold, among these the one with the largest sum of scores, pairs below
    the threshold included; only pairs at the threshold are matches.
    `"many_to_one"`: a true object is a TP if its best score reaches the
    threshold and a prediction a FP if its best score does not, so that one
    prediction may serve several true objects and TP + FP need not be `n_pred`.
    `score_sum` then adds the best score of each TP.

    The comparison with the threshold is exact: 1 of 2 pixels reaches 0.5, and
    11 of 20 reach 0.55. Pairs without a common pixel never match.

    Args:
      threshold: in [0, 1]; several give counts with a leading axis.
      rule: `"optimal"` or `"many_to_one"`.
      criterion: `"iou"`, `"iot"` (share of the true object) or `"iop"`.
      strict: a match is above the threshold rather than at or above it.
      max_instances: objects of each map that take part.

    Raises:
      TypeError: the maps are not integers.
      ValueError: shapes, rank, or an option outside what is listed.

    Source: optimal as in StarDist's `matching` (Weigert et al. 2020);
    many_to_one, strict, at 0.4 as in Clissa et al., fluocells.
    """
    _check_rule("match_by_iou", rule)
    true, pred = ov.label_maps("match_by_iou", true, pred, max_instances)
    table = ov.find_overlap(true, pred, max_instances)
    whole = ov.wholes(table, criterion)
    scores = ov.scores(table.shared, whole)
    single = not isinstance(threshold, Sequence)
    thresholds = [threshold] if single else list(threshold)
    qualifies = ov.reaches(table.shared, whole, thresholds, strict)
    if rule == "many_to_one":
        pairs = _many_to_one(scores, qualifies)
    elif criterion == "iou" and _above_half(thresholds, strict):
        pairs = _only_pairs(qualifies)
    else:
        pairs = _optimal(scores, qualifies, _fewer(table.true, table.pred))
    counts = _matching(table.true, table.pred, scores, pairs)
    return _first_threshold(counts) if single else counts


def match_by_distance(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    threshold: float = 40.0,
    rule: str = "optimal",
    max_instances: int = 256,
) -> Matching:
    """Matches of two label maps by the distance of centroids in pixels.

    A pair qualifies at a distance of at most `threshold`. `"optimal"`: one to
    one, most pairs, then the smallest sum of distances. `"many_to_one"`: a true
    object is a TP if some prediction qualifies, a prediction is a FP if no true
    object does. `match` is then the nearest prediction and `score_sum` adds the
    distances. Whole pixels and fractions of centroids are kept apart, so that
    an object and its copy moved by the threshold are at that distance exactly.
    Centroids are right for objects of up to 2^23 pixels.

    Raises:
      TypeError: the maps are not integers.
      ValueError: shapes, rank, another rule, or a negative threshold.

    Source: `"many_to_one"` at 40 pixels as in Clissa et al., fluocells.
    """
    _check_rule("match_by_distance", rule)
    if threshold < 0:
        raise ValueError(f"match_by_distance: threshold must be >= 0, got {threshold}")
    true, pred = ov.label_maps("match_by_distance", true, pred, max_instances)
    objects_true, centroids_true = ov.find_centroids(true, max_instances)
    objects_pred, centroids_pred = ov.find_centroids(pred, max_instances)
    squared = _squared_distances(centroids_true, centroids_pred)
    exist = (objects_true.areas > 0)[:, None] & (objects_pred.areas > 0)[None]
    qualifies = (exist & (squared <= threshold**2))[None]
    distance = jnp.sqrt(squared)
    # Closer is better, and 0 is the score of pairs that do not qualify.
    nearness = 1.0 - 0.5 * distance / max(threshold, _SMALLEST_DISTANCE)
    scores = jnp.where(qualifies[0], nearness, 0.0)
    if rule == "many_to_one":
        pairs = _many_to_one(scores, qualifies)
    else:
        pairs = _optimal(scores, qualifies, _fewer(objects_true, objects_pred))
    return _first_threshold(_matching(objects_true, objects_pred, distance, pairs))


def object_scores(
    tp: ArrayLike,
    fp: ArrayLike,
    fn: ArrayLike,
    *,
    score_sum: ArrayLike | None = None,
    convention: str = "nan",
) -> ObjectScores:
    """Precision, recall, F1 and more from counts of any shape.

    precision TP/(TP+FP), recall TP/(TP+FN), F1 = TP/(TP + FP/2 + FN/2),
    accuracy TP/(TP+FP+FN); with the sum of the matched scores also its mean over
    true objects, over matches, and panoptic_quality = sum/(TP + FP/2 + FN/2).

    Args:
      tp, fp, fn: counts of one image, or summed over images (pooled).
      score_sum: sum of the scores of the matches.
      convention: what 0/0 is: `"nan"`, or `"stardist"`, with which every score
        is 0 where TP is 0, two empty images included.

    Raises:
      ValueError: another convention.
    """
    if convention not in ("nan", "stardist"):
        raise ValueError(
            f"object_scores: convention must be nan or stardist, got {convention!r}"
        )
    dtype = jnp.result_type(float)
    tp, fp, fn = (jnp.asarray(count).astype(dtype) for count in (tp, fp, fn))
    empty = jnp.nan if convention == "nan" else 0.0
    half_errors = tp + 0.5 * (fp + fn)
    total = None if score_sum is None else jnp.asarray(score_sum).astype(dtype)
    return ObjectScores(
        precision=_ratio(tp, tp + fp, empty),
        recall=_ratio(tp, tp + fn, empty),
        f1=_ratio(tp, half_errors, empty),
        accuracy=_ratio(tp, tp + fp + fn, empty),
        mean_true_score=None if total is None else _ratio(total, tp + fn, empty),
        mean_matched_score=None if total is None else _ratio(total, tp, empty),
        panoptic_quality=None if total is None else _ratio(total, half_errors, empty),
    )


def average_precision(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    thresholds: Sequence[float] = _AP_THRESHOLDS,
    max_instances: int = 256,
) -> jax.Array:
    """TP / (TP + FP + FN) at each IoU threshold, `[T]`.

    One-to-one matches with IoU >= threshold. NaN for two images without
    objects. The number that papers call AP is usually the mean of these.

    Source: Data Science Bowl 2018; equal to StarDist's accuracy and Cellpose's
    average precision (Cellpose's is another number for images without
    background, from which it subtracts an object).
    """
    counts = match_by_iou(
        true, pred, threshold=tuple(thresholds), max_instances=max_instances
    )
    return object_scores(counts.tp, counts.fp, counts.fn).accuracy


def fluocells_summary_legacy(
    iou_counts: ArrayLike, distance_counts: ArrayLike, *, by: str = "iou"
) -> FluocellsSummary:
    """The data-set summary of the study's program, its defects included.

    Sums first, then accuracy TP/(TP+FP+FN+0.01), precision TP/(TP+FP+0.01),
    recall TP/(TP+FN+0.01) and F1 = 2PR/(P+R), NaN if both are 0. Its counting
    errors are none: it compares TP + FN, the number of true objects, with
    TP_iou + FN_distance, so that MAE, MedAE and MPE measure how far the two
    rules disagree. `counting.mae` and its neighbours give what the names say.

    Args:
      iou_counts: `[images, 3]` TP, FP, FN of the many-to-one rule by IoU.
      distance_counts: `[images, 3]` likewise by distance.
      by: `"iou"` or `"distance"`: the counts that are summed up.

    Raises:
      ValueError: shapes other than `[images, 3]`, or another `by`.

    Source: clissa/fluocells, `all_metrics`. The MPE is a fraction, with the
    sign of the program: mean (p - t) / (t or 1).
    """
    dtype = jnp.result_type(float)
    by_iou, by_distance = (
        jnp.asarray(counts).astype(dtype) for counts in (iou_counts, distance_counts)
    )
    shapes = {by_iou.shape, by_distance.shape}
    if by not in ("iou", "distance") or len(shapes) > 1 or by_iou.shape[1:] != (3,):
        raise ValueError(
            "fluocells_summary_legacy: counts must be [images, 3] twice and by iou or "
            f"distance, got {by_iou.shape}, {by_distance.shape} and {by!r}"
        )
    chosen = by_iou if by == "iou" else by_distance
    tp, fp, fn = jnp.sum(chosen, axis=0)
    precision = tp / (tp + fp + _FLUOCELLS_GUARD)
    recall = tp / (tp + fn + _FLUOCELLS_GUARD)
    target = by_iou[:, 0] + by_distance[:, 2]
    excess = chosen[:, 0] + chosen[:, 2] - target
    return FluocellsSummary(
        f1=_ratio(2 * precision * recall, precision + recall, jnp.nan),
        accuracy=tp / (tp + fp + fn + _FLUOCELLS_GUARD),
        precision=precision,
        recall=recall,
        mae=jnp.mean(jnp.abs(excess)),
        medae=jnp.median(jnp.abs(excess)),
        mpe=jnp.mean(excess / jnp.where(target == 0, 1.0, target)),
    )


def _check_rule(function: str, rule: str) -> None:
    if rule not in ("optimal", "many_to_one"):
        raise ValueError(
            f"{function}: rule must be optimal or many_to_one, got {rule!r}"
        )


def _above_half(thresholds: Sequence[float], strict: bool) -> bool:
    """Whether no object can share enough of the union with two partners."""
    return all(t > 0.5 or (strict and t == 0.5) for t in thresholds)


def _fewer(true: ov.Objects, pred: ov.Objects) -> jax.Array:
    return jnp.maximum(jnp.minimum(true.count, pred.count), 1)


def _many_to_one(scores: jax.Array, qualifies: jax.Array) -> _Pairs:
    """Every true object takes its best partner."""
    return _Pairs(
        hit=jnp.any(qualifies, axis=2),
        column=jnp.broadcast_to(jnp.argmax(scores, axis=1)[None], qualifies.shape[:2]),
        used=jnp.sum(jnp.any(qualifies, axis=1), axis=1, dtype=jnp.int32),
    )


def _only_pairs(qualifies: jax.Array) -> _Pairs:
    """One-to-one pairs where every object qualifies with one partner at most."""
    hit = jnp.any(qualifies, axis=2)
    used = jnp.sum(hit, axis=1, dtype=jnp.int32)
    return _Pairs(hit, jnp.argmax(qualifies, axis=2), used)


@jax.jit
def _optimal(scores: jax.Array, qualifies: jax.Array, fewer: jax.Array) -> _Pairs:
    """One-to-one pairs: most that qualify, then the largest sum of scores."""
    # All scores together stay below the worth of one qualifying pair.
    tie_break = scores * (0.5 / fewer.astype(scores.dtype))

    def columns(chosen: jax.Array) -> jax.Array:
        return one_to_one(-chosen.astype(scores.dtype) - tie_break, scores > 0, chosen)

    column = lax.map(columns, qualifies)
    hit = jnp.take_along_axis(qualifies, column[..., None], axis=2)[..., 0]
    return _Pairs(hit, column, jnp.sum(hit, axis=1, dtype=jnp.int32))


def _matching(
    true: ov.Objects, pred: ov.Objects, scores: jax.Array, pairs: _Pairs
) -> Matching:
    tp = jnp.sum(pairs.hit, axis=1, dtype=jnp.int32)
    row = jnp.arange(scores.shape[0])[None]
    score = jnp.where(pairs.hit, scores[row, pairs.column], 0.0)
    return Matching(
        tp=tp,
        fp=pred.count - pairs.used,
        fn=true.count - tp,
        n_true=true.count,
        n_pred=pred.count,
        score_sum=jnp.sum(score, axis=1),
        true_ids=true.ids,
        match=jnp.where(pairs.hit, pred.ids[pairs.column], 0),
    )


def _first_threshold(counts: Matching) -> Matching:
    return counts._replace(
        tp=counts.tp[0],
        fp=counts.fp[0],
        fn=counts.fn[0],
        score_sum=counts.score_sum[0],
        match=counts.match[0],
    )


def _squared_distances(true: ov.Centroids, pred: ov.Centroids) -> jax.Array:
    """`[N, N]` squared distances in pixels."""
    whole = true.whole[:, :, None] - pred.whole[:, None]
    part = true.part[:, :, None] - pred.part[:, None]
    return jnp.sum((whole.astype(part.dtype) + part) ** 2, axis=0)


def _ratio(part: jax.Array, whole: jax.Array, empty_value: float) -> jax.Array:
    filled = jnp.where(whole == 0, 1.0, whole)
    return jnp.where(whole == 0, empty_value, part / filled)
