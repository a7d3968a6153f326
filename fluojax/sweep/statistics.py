"""Means over seeds, and which rows of a table can be told apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluojax.sweep.members import Member, Score

DRAWS = 2000
ALPHA = 0.05


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of `n` values; NaN where undefined."""

    mean: float
    sd: float
    n: int

    @property
    def standard_error(self) -> float:
        return self.sd / math.sqrt(self.n) if self.n else math.nan


def summarise(values: Sequence[float]) -> Summary:
    """Of the values that are numbers; the sd needs two."""
    numbers = np.array([v for v in values if not math.isnan(v)], float)
    mean = float(numbers.mean()) if numbers.size else math.nan
    sd = float(numbers.std(ddof=1)) if numbers.size > 1 else math.nan
    return Summary(mean, sd, numbers.size)


def differs(ours: Summary, theirs: Summary) -> bool:
    """Whether means lie more than two pooled standard errors apart.

    sqrt(se² + se²) of both; never where one of them has no standard deviation.
    """
    error = math.hypot(ours.standard_error, theirs.standard_error)
    return abs(ours.mean - theirs.mean) > 2 * error


@dataclass(frozen=True)
class Comparison:
    """A row against the best one: difference (row - best) and its interval.

    Attributes:
      low, high: interval at the level that Holm's correction leaves this row.
      p: two-sided, corrected.
      distinct: the interval excludes 0, and so did those of all smaller p.
    """

    difference: float
    low: float
    high: float
    p: float
    distinct: bool


def compare_with_best(
    rows: Sequence[Sequence[Member]], best: int, score: Score, *, seed: int = 0
) -> list[Comparison | None]:
    """Every row of members against row `best`, paired by seed and by image.

    Each of 2,000 draws takes as many seeds as there are, with replacement, and
    for them as many images, the same for both rows; counts are summed over the
    drawn images and the score averaged over the drawn seeds. One set of images
    serves all seeds of a draw, since all seeds were scored on the same images;
    drawn anew for each seed they would seem to be more than they are (Owen,
    The pigeonhole bootstrap, Ann. Appl. Stat. 2007).

    Returns:
      Per row, None for the best itself and for rows without common images or
      with a single common seed.
    """
    rng = np.random.default_rng(seed)
    draws = [
        None if k == best else _differences(row, rows[best], score, rng)
        for k, row in enumerate(rows)
    ]
    tested = [k for k, found in enumerate(draws) if found is not None]
    raw = {k: _p_value(draws[k][1]) for k in tested}
    results: list[Comparison | None] = [None] * len(rows)
    distinct, corrected = True, 0.0
    for rank, k in enumerate(sorted(tested, key=raw.get)):
        left = len(tested) - rank
        difference, values = draws[k]
        tail = ALPHA / left / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        corrected = max(corrected, min(1.0, left * raw[k]))
        distinct = distinct and bool(low > 0 or high < 0)
        results[k] = Comparison(
            difference, float(low), float(high), corrected, distinct
        )
    return results


def _p_value(values: np.ndarray) -> float:
    side = min((values <= 0).sum(), (values >= 0).sum())
    return float(min(1.0, 2 * (side + 1) / (values.size + 1)))


def _differences(
    row: Sequence[Member], best: Sequence[Member], score: Score, rng
) -> tuple[float, np.ndarray] | None:
    """Observed difference of the mean scores, and those of the draws."""
    pairs = _paired_counts(row, best)
    if pairs is None or score.ratio is None:
        return None
    names, ours, theirs = pairs  # arrays [seeds, images, columns]
    seeds, images, _ = ours.shape
    every = np.ones((1, images))
    observed = [
        float(_scores(x.transpose(0, 2, 1) @ every.T, names, score).mean())
        for x in (ours, theirs)
    ]
    chosen = rng.integers(seeds, size=(DRAWS, seeds))
    weights = rng.multinomial(images, np.full(images, 1 / images), size=DRAWS)
    means = []
    for counts in (ours, theirs):
        sums = np.einsum("sic,di->dsc", counts, weights)
        values = _scores(sums.transpose(0, 2, 1), names, score)
        means.append(np.take_along_axis(values, chosen, axis=1).mean(1))
    return observed[0] - observed[1], means[0] - means[1]


def _scores(sums: np.ndarray, names: Sequence[str], score: Score) -> np.ndarray:
    """`[..., columns, n]` sums as `[..., n]` scores; undefined ones are 0."""
    above, below = score.ratio({n: sums[..., k, :] for k, n in enumerate(names)})
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)


def _paired_counts(row, best):
    """Counts of the common seeds and images of two rows, failed members as they are.

    A member that diverged predicted nothing: all its true objects and pixels are
    missed.
    """
    rows = [{m.seed: m for m in members if m.finished} for members in (row, best)]
    seeds = sorted(set(rows[0]) & set(rows[1]))
    known = [m for members in rows for m in members.values() if m.counts]
    if len(seeds) < 2 or not known:
        return None
    images = [name for name in known[0].images if all(name in m.images for m in known)]
    names = sorted(set.intersection(*(set(m.counts) for m in known)))
    if not images:
        return None
    arrays = [
        np.stack([_counts(members[s], known[0], images, names) for s in seeds])
        for members in rows
    ]
    return names, *arrays


def _counts(member: Member, like: Member, images, names) -> np.ndarray:
    """`[images, columns]` of a member; an empty prediction for one without counts."""
    source = member if member.counts else like
    where = [source.images.index(name) for name in images]
    columns = {name: source.counts[name][where].astype(float) for name in names}
    if not member.counts:
        columns = {name: _empty(name, columns) for name in names}
    return np.stack([columns[name] for name in names], axis=-1)


def _empty(name: str, counts: dict[str, np.ndarray]) -> np.ndarray:
    kind, _, rule = name.partition("_")
    if kind == "fn":
        pixels = rule == "px"
        return counts["tp_px"] + counts["fn_px"] if pixels else counts["n_true"]
    if kind == "tn":
        return counts[f"fp_{rule}"] + counts[name]
    return counts[name] if name == "n_true" else np.zeros_like(counts[name])
