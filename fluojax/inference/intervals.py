"""Confidence intervals of scores: images drawn again with replacement.

The images of a split are one sample of those that could have been taken. Drawn
with replacement, as many as there are, they give other scores; the middle 95 %
of these (percentile bootstrap) tell how far a score depends on the images at
hand. Objects of one image stay together, as their errors do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fluojax.inference import evaluation

DRAWS = 2000
_LEVELS = (2.5, 97.5)  # percent
_CHUNK = 2_000_000  # numbers drawn at a time


def bootstrap(
    rows: Sequence[Mapping[str, Any]], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, list[float] | None]:
    """95 % intervals `[low, high]` of the scores of `evaluation.summarise`.

    None for every score of a single image, which says nothing about others, and
    for a score that no drawing defines. Drawings that leave a score undefined
    (no object in any image drawn) do not count for it.

    Args:
      rows: from `evaluation.score_image`, one per image.
      draws: how often the images are drawn.
      seed: the same rows and seed give the same intervals.

    Source: Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    table = evaluation.columns(rows)
    count = len(rows)
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // count)
    parts = []
    for start in range(0, draws, at_once):
        size = (min(at_once, draws - start), count)
        parts.append(_scores(table, rng.integers(0, count, size)))
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        name: _interval(values) if count > 1 else None for name, values in drawn.items()
    }


def _scores(table: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, Any]:
    """Scores `[R]` of the images `chosen` `[R, N]`."""
    # How often each image was drawn; sums over images are then a product.
    count = chosen.shape[1]
    offsets = count * np.arange(len(chosen))[:, None]
    times = np.bincount((chosen + offsets).ravel(), minlength=chosen.size)
    times = times.reshape(chosen.shape).astype(float)
    scores = evaluation.pooled({name: times @ np.nan_to_num(column)
                                for name, column in table.items()})  # fmt: skip
    scores.pop("f1_curve", None)
    missed = table["n_true"] - table["n_pred"]
    share = 100 * missed / np.maximum(table["n_true"], 1)
    scores["mae"] = times @ np.abs(missed) / count
    scores["medae"] = np.median(np.abs(missed)[chosen], axis=1)
    scores["mpe"] = times @ share / count
    if "aji" in table:
        defined = np.isfinite(table["aji"]).astype(float)
        scores["aji"] = evaluation.ratio(
            times @ np.nan_to_num(table["aji"]), times @ defined
        )
    return scores


def _interval(values: np.ndarray) -> list[float] | None:
    values = values[np.isfinite(values)]
    return np.percentile(values, _LEVELS).tolist() if values.size else None
