"""Sums carried over batches and devices, divided once at the end.

Shared contract: `PixelSums` and `ObjectSums` are NamedTuples of integer counts
whose leaves may be added, `jax.lax.psum`ed and carried through `lax.scan`.
Pooled scores (counts summed, then the formula) come from them; the mean of
image values, which is another number, from `image_mean`.

Pixels of a test set pass 2^31, so their counts are kept in two int32 words;
the sum over up to 2,000 devices needs no carry in between.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

_WORD = 2**20


class Wide(NamedTuple):
    """A count as high * 2^20 + low, int32 each, exact to about 2^51."""

    low: jax.Array
    high: jax.Array


class PixelSums(NamedTuple):
    """Pixels of foreground masks, and the number of images summed."""

    tp: Wide
    fp: Wide
    fn: Wide
    tn: Wide
    images: jax.Array


class ObjectSums(NamedTuple):
    """Counts of matched objects, the sum of their scores, and the images."""

    tp: jax.Array
    fp: jax.Array
    fn: jax.Array
    score_sum: jax.Array
    images: jax.Array


Sums = TypeVar("Sums", PixelSums, ObjectSums)


class PixelScores(NamedTuple):
    """Scores of pooled pixel counts, scalars; NaN for 0/0."""

    accuracy: jax.Array
    precision: jax.Array
    recall: jax.Array
    specificity: jax.Array
    dice: jax.Array
    iou: jax.Array


class ImageMean(NamedTuple):
    """Mean over images that have a value, and how many these were (int32)."""

    mean: jax.Array
    used: jax.Array


def zero_pixels() -> PixelSums:
    """No pixel and no image."""
    none = jnp.zeros((), jnp.int32)
    return PixelSums(*(Wide(none, none),) * 4, images=none)


def zero_objects() -> ObjectSums:
    """No object and no image."""
    none = jnp.zeros((), jnp.int32)
    return ObjectSums(none, none, none, jnp.zeros((), jnp.result_type(float)), none)


def pixel_sums(
    true: ArrayLike, pred: ArrayLike, *, valid: ArrayLike | None = None
) -> PixelSums:
    """Pixel counts of a batch of masks `[B, *S]`, non-zero is foreground.

    Args:
      valid: `[B]` bool; images marked False (padding of a batch) do not count.

    Raises:
      ValueError: shapes differ, or an image has more than 2^31 - 1 pixels.
    """
    true, pred = jnp.asarray(true), jnp.asarray(pred)
    if true.shape != pred.shape or true.ndim < 2 or true[0].size >= 2**31:
        raise ValueError(
            "pixel_sums: true and pred must be one [batch, ...] shape of images below "
            f"2^31 pixels, got {true.shape} and {pred.shape}"
        )
    true, pred = true.astype(bool), pred.astype(bool)
    within = tuple(range(1, true.ndim))
    valid = _valid(valid, true.shape[0])

    def count(pixels: jax.Array) -> Wide:
        per_image = jnp.sum(pixels, axis=within, dtype=jnp.int32)
        return _wide_sum(jnp.where(valid, per_image, 0))

    return PixelSums(
        tp=count(true & pred),
        fp=count(~true & pred),
        fn=count(true & ~pred),
        tn=count(~true & ~pred),
        images=jnp.sum(valid, dtype=jnp.int32),
    )


def object_sums(
    tp: ArrayLike,
    fp: ArrayLike,
    fn: ArrayLike,
    *,
    score_sum: ArrayLike | None = None,
    valid: ArrayLike | None = None,
) -> ObjectSums:
    """Sums over the images of a batch of object counts `[B]`."""
    tp, fp, fn = (jnp.asarray(counts) for counts in (tp, fp, fn))
    dtype = jnp.result_type(float)
    scores = jnp.zeros(tp.shape, dtype) if score_sum is None else score_sum
    valid = _valid(valid, tp.shape[0])

    def total(values: ArrayLike, dtype: jnp.dtype) -> jax.Array:
        return jnp.sum(jnp.where(valid, values, 0), dtype=dtype)

    return ObjectSums(
        tp=total(tp, jnp.int32),
        fp=total(fp, jnp.int32),
        fn=total(fn, jnp.int32),
        score_sum=total(scores, dtype),
        images=jnp.sum(valid, dtype=jnp.int32),
    )


def add(first: Sums, second: Sums) -> Sums:
    """The two sums together, of pixels or of objects."""
    added = jax.tree.map(jnp.add, first, second)
    return jax.tree.map(_carry, added, is_leaf=lambda leaf: isinstance(leaf, Wide))


def pixel_scores(sums: PixelSums) -> PixelScores:
    """Pooled scores: accuracy, precision, recall, specificity, Dice, IoU."""
    tp, fp, fn, tn = (_value(count) for count in sums[:4])
    return PixelScores(
        accuracy=_ratio(tp + tn, tp + fp + fn + tn),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        specificity=_ratio(tn, tn + fp),
        dice=_ratio(2 * tp, 2 * tp + fp + fn),
        iou=_ratio(tp, tp + fp + fn),
    )


def image_mean(
    values: ArrayLike,
    *,
    valid: ArrayLike | None = None,
    inf_as: ArrayLike | None = None,
) -> ImageMean:
    """Mean of image values `[images]` that skips NaN, and the number used.

    Args:
      valid: `[images]` bool; entries marked False are skipped too.
      inf_as: put in place of infinite distances (one side empty), for example
        the diagonal of the image, so that a missed object is not a skipped one;
        `[images]` or one number. None keeps them, and the mean is infinite.

    Returns:
      The mean, NaN if no image has a value, and the count.
    """
    values = jnp.asarray(values)
    if inf_as is not None:
        values = jnp.where(jnp.isposinf(values), inf_as, values)
    use = ~jnp.isnan(values) & _valid(valid, values.shape[0])
    used = jnp.sum(use, dtype=jnp.int32)
    total = jnp.sum(jnp.where(use, values, 0))
    return ImageMean(_ratio(total, used.astype(total.dtype)), used)


def _valid(valid: ArrayLike | None, count: int) -> jax.Array:
    return jnp.ones(count, bool) if valid is None else jnp.asarray(valid).astype(bool)


def _wide_sum(counts: jax.Array) -> Wide:
    """Sum over images; no word overflows below 2^11 images of a batch."""
    low = jnp.sum(counts % _WORD, dtype=jnp.int32)
    return _carry(Wide(low, jnp.sum(counts // _WORD, dtype=jnp.int32)))


def _carry(count: Wide | jax.Array) -> Wide | jax.Array:
    """A count in two words with its low word in range; others as they are."""
    if not isinstance(count, Wide):
        return count
    return Wide(count.low % _WORD, count.high + count.low // _WORD)


def _value(count: Wide) -> jax.Array:
    dtype = jnp.result_type(float)
    return count.high.astype(dtype) * _WORD + count.low.astype(dtype)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """part / whole, NaN where whole is 0."""
    return jnp.where(whole == 0, jnp.nan, part / jnp.where(whole == 0, 1.0, whole))
