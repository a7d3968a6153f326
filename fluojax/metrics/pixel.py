"""Scores of masks and class maps, pixel by pixel.

Shared contract: `true` and `pred` are one image `[*S]` without channel axis, S
of rank 2 or 3, `jax.vmap` for a batch. Masks have any dtype, non-zero is
foreground. With `num_classes` the two are maps of the classes 0 to K - 1, and a
pixel whose class is outside that range in either map is left out.

A score that is 0/0 (two empty masks, precision without prediction, recall
without truth) is `empty_value`, NaN by default; if only one mask is empty, the
overlap scores are 0. Counts are exact int32, scores are float32 (float64 where
jax_enable_x64 is on).

Source: the usual definitions, as in scikit-learn, whose `zero_division` is
`empty_value` here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fluojax import checks


class PerClass(NamedTuple):
    """Scores of each class against all others, arrays `[K]`.

    `support` is the number of pixels of the class in the truth (int32).
    """

    precision: jax.Array
    recall: jax.Array
    f1: jax.Array
    iou: jax.Array
    support: jax.Array


def confusion(
    true: ArrayLike, pred: ArrayLike, *, num_classes: int | None = None
) -> jax.Array:
    """Numbers of pixels `[K, K]` int32, rows the truth, columns the prediction.

    K is 2 (background, foreground) unless `num_classes` is given.

    Raises:
      ValueError: shapes differ or the rank is neither 2 nor 3.
    """
    true, pred = checks.image_pair("confusion", true, pred)
    if num_classes is None:
        return _mask_counts(true, pred)
    inside = (true >= 0) & (true < num_classes) & (pred >= 0) & (pred < num_classes)
    # Casts come before the product, so that uint8 class maps do not wrap.
    cell = true.astype(jnp.int32) * num_classes + pred.astype(jnp.int32)
    cell = jnp.where(inside, cell, num_classes**2)
    counts = jnp.zeros(num_classes**2, jnp.int32).at[cell].add(1, mode="drop")
    return counts.reshape(num_classes, num_classes)


def accuracy(
    true: ArrayLike, pred: ArrayLike, *, num_classes: int | None = None
) -> jax.Array:
    """Share of pixels with the right class; 1 for two empty masks."""
    counts = _floats(confusion(true, pred, num_classes=num_classes))
    return _ratio(jnp.trace(counts), jnp.sum(counts), jnp.nan)


def precision(
    true: ArrayLike, pred: ArrayLike, *, empty_value: float = jnp.nan
) -> jax.Array:
    """TP / (TP + FP); `empty_value` without predicted foreground."""
    _, fp, _, tp = _cells(true, pred)
    return _ratio(tp, tp + fp, empty_value)


def recall(
    true: ArrayLike, pred: ArrayLike, *, empty_value: float = jnp.nan
) -> jax.Array:
    """TP / (TP + FN); `empty_value` without true foreground."""
    _, _, fn, tp = _cells(true, pred)
    return _ratio(tp, tp + fn, empty_value)


def specificity(
    true: ArrayLike, pred: ArrayLike, *, empty_value: float = jnp.nan
) -> jax.Array:
    """TN / (TN + FP); `empty_value` without true background."""
    tn, fp, _, _ = _cells(true, pred)
    return _ratio(tn, tn + fp, empty_value)


def dice(
    true: ArrayLike, pred: ArrayLike, *, empty_value: float = jnp.nan
) -> jax.Array:
    """Dice = F1 = 2 TP / (2 TP + FP + FN); `empty_value` for two empty masks."""
    _, fp, fn, tp = _cells(true, pred)
    return _ratio(2 * tp, 2 * tp + fp + fn, empty_value)


def iou(true: ArrayLike, pred: ArrayLike, *, empty_value: float = jnp.nan) -> jax.Array:
    """Jaccard index TP / (TP + FP + FN); `empty_value` for two empty masks."""
    _, fp, fn, tp = _cells(true, pred)
    return _ratio(tp, tp + fp + fn, empty_value)


def mcc(true: ArrayLike, pred: ArrayLike, *, empty_value: float = jnp.nan) -> jax.Array:
    """Matthews correlation coefficient in [-1, 1].

    (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)), and 0 if one factor
    below the line is 0. If truth and prediction are the same constant, both
    empty or both full, the answer is `empty_value`.
    """
    tn, fp, fn, tp = _cells(true, pred)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    value = _ratio(tp * tn - fp * fn, jnp.sqrt(product), 0.0)
    same_constant = (fp + fn == 0) & ((tp == 0) | (tn == 0))
    return jnp.where(same_constant, empty_value, value)


def per_class(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    num_classes: int | None = None,
    empty_value: float = jnp.nan,
) -> PerClass:
    """Precision, recall, F1 and IoU of every class, background included.

    A class that neither map contains has `empty_value` everywhere.
    """
    counts = confusion(true, pred, num_classes=num_classes)
    support = jnp.sum(counts, axis=1)
    tp = _floats(jnp.diagonal(counts))
    in_true = _floats(support)
    in_pred = _floats(jnp.sum(counts, axis=0))
    return PerClass(
        precision=_ratio(tp, in_pred, empty_value),
        recall=_ratio(tp, in_true, empty_value),
        f1=_ratio(2 * tp, in_true + in_pred, empty_value),
        iou=_ratio(tp, in_true + in_pred - tp, empty_value),
        support=support,
    )


def balanced_accuracy(
    true: ArrayLike, pred: ArrayLike, *, num_classes: int | None = None
) -> jax.Array:
    """Mean recall over the classes that the truth contains."""
    classes = per_class(true, pred, num_classes=num_classes)
    present = classes.support > 0
    total = jnp.sum(jnp.where(present, classes.recall, 0.0))
    return _ratio(total, _floats(jnp.sum(present)), jnp.nan)


def macro_f1(
    true: ArrayLike,
    pred: ArrayLike,
    *,
    num_classes: int | None = None,
    empty_value: float = 0.0,
) -> jax.Array:
    """Unweighted mean of F1 over all classes, background included.

    A class that neither map contains counts with `empty_value`, 0 by default
    as in scikit-learn.
    """
    classes = per_class(true, pred, num_classes=num_classes, empty_value=empty_value)
    return jnp.mean(classes.f1)


def micro_f1(
    true: ArrayLike, pred: ArrayLike, *, num_classes: int | None = None
) -> jax.Array:
    """F1 of the counts pooled over all classes, which equals the accuracy.

    Every wrong pixel is one false positive and one false negative.
    """
    return accuracy(true, pred, num_classes=num_classes)


def weighted_f1(
    true: ArrayLike, pred: ArrayLike, *, num_classes: int | None = None
) -> jax.Array:
    """Mean of F1 over all classes, weighted by their true numbers of pixels."""
    classes = per_class(true, pred, num_classes=num_classes, empty_value=0.0)
    weights = _floats(classes.support)
    return _ratio(jnp.sum(weights * classes.f1), jnp.sum(weights), jnp.nan)


def _mask_counts(true: jax.Array, pred: jax.Array) -> jax.Array:
    """The 2 x 2 table by three sums rather than a scatter."""
    true, pred = true.astype(bool), pred.astype(bool)
    both = jnp.sum(true & pred, dtype=jnp.int32)
    in_true = jnp.sum(true, dtype=jnp.int32)
    in_pred = jnp.sum(pred, dtype=jnp.int32)
    neither = true.size - in_true - in_pred + both
    return jnp.stack([neither, in_pred - both, in_true - both, both]).reshape(2, 2)


def _cells(true: ArrayLike, pred: ArrayLike) -> jax.Array:
    """(TN, FP, FN, TP) of two masks as floats."""
    return _floats(confusion(true, pred)).ravel()


def _floats(counts: jax.Array) -> jax.Array:
    return counts.astype(jnp.result_type(float))


def _ratio(part: jax.Array, whole: jax.Array, empty_value: float) -> jax.Array:
    """part / whole, and `empty_value` where whole is 0."""
    filled = jnp.where(whole == 0, 1.0, whole)
    return jnp.where(whole == 0, empty_value, part / filled)
