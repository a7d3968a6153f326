"""Scores of predicted cells, image by image and summed over a split.

Counts are kept per image and summed before any ratio is formed, so that a split
of many small images and one of few large ones are treated alike. Label maps are
padded with background to a common size, which changes no score and saves a
compilation per image size.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from fluojax import metrics
from fluojax.inference import tables

AP_THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
_BLOCKS = {2: 256, 3: 32}  # label maps are padded to multiples of this, by rank


@dataclass(frozen=True)
class Options:
    """IoU above which, and distance in pixels within which, an object is found."""

    iou: float = 0.4
    distance_px: float = 40.0


def score_image(
    true: np.ndarray, pred: np.ndarray, options: Options, *, quick: bool = False
) -> dict[str, Any]:
    """Counts of one image `[*S]` of instances against another.

    Args:
      true, pred: int32 labels, 0 background.
      options: thresholds of the matching rules.
      quick: pixels, counts and the two IoU rules only, for validation.

    Returns:
      Plain numbers: `tp_px fp_px fn_px tn_px`, `n_true n_pred`, `tp_iou fp_iou
      fn_iou` (many-to-one, IoU > `options.iou`), `tp_50 ...` (one-to-one,
      IoU >= 0.5) and, unless `quick`, `tp_distance ...`, `pq_iou` (summed IoU of
      pairs above 0.5), `pq_tp pq_fp pq_fn`, `aji`, `tp_ap` (one per threshold).
    """
    if true.shape != pred.shape:
        raise ValueError(
            f"score_image: true and pred must have one shape, got {true.shape} and "
            f"{pred.shape}"
        )
    inside_true, inside_pred = true > 0, pred > 0
    row: dict[str, Any] = {
        "tp_px": int((inside_true & inside_pred).sum()),
        "fp_px": int((inside_pred & ~inside_true).sum()),
        "fn_px": int((inside_true & ~inside_pred).sum()),
        "tn_px": int((~inside_true & ~inside_pred).sum()),
        "n_true": len(np.unique(true[inside_true])),
        "n_pred": len(np.unique(pred[inside_pred])),
    }
    bound = 64
    while bound < max(row["n_true"], row["n_pred"]):
        bound *= 2
    counts = _object_counts(
        _padded(true), _padded(pred), options.iou, options.distance_px, bound, quick
    )
    for name, value in jax.device_get(counts).items():
        row[name] = value.tolist()
    return row


def _padded(labels: np.ndarray) -> np.ndarray:
    return np.pad(labels, [(0, -n % _BLOCKS[labels.ndim]) for n in labels.shape])


@functools.partial(jax.jit, static_argnames=("iou", "distance_px", "bound", "quick"))
def _object_counts(true, pred, iou, distance_px, bound, quick) -> dict[str, jax.Array]:
    by_iou = functools.partial(metrics.match_by_iou, true, pred, max_instances=bound)
    found = {
        "iou": by_iou(threshold=iou, rule="many_to_one", strict=True),
        "50": by_iou(threshold=0.5, rule="optimal"),
    }
    if not quick:
        found["distance"] = metrics.match_by_distance(
            true, pred, threshold=distance_px, rule="many_to_one", max_instances=bound
        )
    counts = {
        f"{kind}_{name}": getattr(match, kind)
        for name, match in found.items()
        for kind in ("tp", "fp", "fn")
    }
    if not quick:
        pq = metrics.panoptic_quality(true, pred, max_instances=bound)
        counts |= {
            "pq_iou": pq.iou_sum,
            "pq_tp": pq.tp,
            "pq_fp": pq.fp,
            "pq_fn": pq.fn,
            "aji": metrics.aggregated_jaccard(true, pred, max_instances=bound),
            "tp_ap": by_iou(threshold=AP_THRESHOLDS, rule="optimal").tp,
        }
    return counts


def ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray | float:
    """part / whole, element by element; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    undefined = np.full(np.broadcast(part, whole).shape, np.nan)
    return np.divide(part, whole, out=undefined, where=whole != 0)[()]


def f1(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> np.ndarray | float:
    """2 tp / (2 tp + fp + fn); NaN without any object."""
    tp = np.asarray(tp, np.float64)
    return ratio(2 * tp, 2 * tp + np.asarray(fp) + np.asarray(fn))


def summarise(
    rows: Sequence[Mapping[str, Any]], options: Options, reference: str
) -> dict[str, Any]:
    """The scores of results.json from rows of `score_image`.

    F1, Dice, IoU, AP and PQ come from counts summed over the images; AJI is the
    mean over images where it is defined. An undefined score is NaN. `n_skipped`
    counts images without cells in truth and prediction. `f1_curve` holds F1 of
    one-to-one matches for each IoU of `ap`.
    """
    table = columns(rows)
    true, pred = table["n_true"], table["n_pred"]
    scores: dict[str, Any] = {
        **pooled({name: column.sum(axis=0) for name, column in table.items()}),
        "mae": float(metrics.mae(true, pred)),
        "medae": float(metrics.medae(true, pred)),
        "mpe": float(metrics.mpe(true, pred)),
    }
    if "aji" in table:
        defined = table["aji"][np.isfinite(table["aji"])]
        scores["aji"] = float(defined.mean()) if defined.size else float("nan")
    if "f1_curve" in scores:
        values = scores["f1_curve"].tolist()
        scores["f1_curve"] = {"iou": list(AP_THRESHOLDS), "f1": values}
    return {
        **scores,
        "n_images": len(rows),
        "n_skipped": int(((true == 0) & (pred == 0)).sum()),
        "reference": reference,
        "collapsed": bool(pred.sum() == 0 and true.sum() > 0),
        "iou_threshold": options.iou,
        "distance_px": options.distance_px,
    }


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The numbers of the rows by name, `[N]` float64 (`tp_ap`: `[N, 10]`)."""
    names = [name for name in rows[0] if name != "image"]
    return {name: np.array([row[name] for row in rows], float) for name in names}


def pooled(sums: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Scores that are ratios of sums over images.

    Args:
      sums: of the columns of `score_image`, each of any one shape `[*R]`
        (`tp_ap`: `[*R, 10]`), for example one set of sums per resampling.

    Returns:
      `[*R]` each, NaN where undefined; `f1_curve` is `[*R, 10]`.
    """
    tp, fp, fn = (sums[f"{kind}_px"] for kind in ("tp", "fp", "fn"))
    scores: dict[str, Any] = {"dice": f1(tp, fp, fn), "iou": ratio(tp, tp + fp + fn)}
    for rule in ("iou", "50", "distance"):
        if f"tp_{rule}" in sums:
            counts = (sums[f"{kind}_{rule}"] for kind in ("tp", "fp", "fn"))
            scores[f"f1_{rule}"] = f1(*counts)
    if "tp_ap" in sums:
        objects = np.asarray(sums["n_true"] + sums["n_pred"])[..., None]
        scores["ap"] = np.mean(ratio(sums["tp_ap"], objects - sums["tp_ap"]), axis=-1)
        scores["f1_curve"] = ratio(2 * sums["tp_ap"], objects)
        weight = sums["pq_tp"] + (sums["pq_fp"] + sums["pq_fn"]) / 2
        scores["pq"] = ratio(sums["pq_iou"], weight)
    return scores


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Per-image counts and scores as CSV; undefined scores are empty."""
    scores = ["dice", "f1_iou", "f1_distance", "f1_50", "aji"]
    rules = ("px", "iou", "distance", "50")
    counts = [f"{kind}_{rule}" for rule in rules for kind in ("tp", "fp", "fn")]
    fields = ["image", "n_true", "n_pred", *scores, *counts, "tn_px"]
    table = []
    for row in rows:
        by_rule = {r: f1(*(row[f"{k}_{r}"] for k in ("tp", "fp", "fn"))) for r in rules}
        derived = {f"f1_{rule}": value for rule, value in by_rule.items()}
        values = {**row, **derived, "dice": by_rule["px"]}
        table.append([values[name] for name in fields])
    return tables.csv_text(fields, table)
