"""Figures of a sweep as PNG bytes; matplotlib is imported when one is drawn."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fluojax.report.figures import png_bytes, subplots
from fluojax.sweep.members import Member, by_configuration, score_of
from fluojax.sweep.table import Row
from fluojax.train.journal import read_journal


def bars(rows: Sequence[Row], column: str) -> bytes | None:
    """A bar for each configuration with its sd, published means as diamonds.

    None where no row has the score.
    """
    rows = [row for row in rows if not math.isnan(row.cells[column].every.mean)]
    if not rows:
        return None
    figure, ((axis,),) = subplots(1, 1, figsize=(7, 0.8 + 0.32 * len(rows)))
    places = range(len(rows))
    cells = [row.cells[column] for row in rows]
    spread = [0 if math.isnan(c.every.sd) else c.every.sd for c in cells]
    failed = [row.collapsed + row.diverged > 0 for row in rows]
    axis.barh(
        places,
        [c.every.mean for c in cells],
        xerr=spread,
        color=["#d9a15b" if bad else "#5b8cc0" for bad in failed],
        error_kw={"elinewidth": 1, "capsize": 3},
    )
    told = [(c.published.mean, k) for k, c in enumerate(cells) if c.published]
    if told:
        axis.plot(*zip(*told, strict=True), "D", color="0.2", ms=5, label="published")
        axis.legend(fontsize=8)
    axis.set_yticks(places, [row.label for row in rows], fontsize=8)
    axis.invert_yaxis()
    note = " (orange: some members failed, counted as 0)" if any(failed) else ""
    axis.set_xlabel(f"{score_of(column).label}, mean ± sd over seeds{note}", fontsize=8)
    return png_bytes(figure)


def curves(members: Sequence[Member], labels: Mapping[str, str]) -> bytes | None:
    """Training loss and validation Dice over steps, means over the seeds.

    A seed that stopped early leaves the mean from there on. None without any run.
    """
    journals = {
        name: [read_journal(m.folder / "metrics.jsonl") for m in group]
        for name, group in by_configuration(members).items()
    }
    if not any(lines for group in journals.values() for lines in group):
        return None
    figure, (axes,) = subplots(1, 2, figsize=(11, 4.2))
    kinds = (("train", "loss", "training loss"), ("val", "dice", "validation Dice"))
    for axis, (split, name, text) in zip(axes, kinds, strict=True):
        for configuration, group in journals.items():
            points = _mean_over_seeds(group, split, name)
            if points:
                label = labels.get(configuration, configuration)
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1)
        axis.set(xlabel="step", ylabel=text)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 1)
    axes[1].legend(fontsize=7)
    return png_bytes(figure)


def _mean_over_seeds(journals, split: str, name: str) -> list[tuple[int, float]]:
    """(step, mean) of the lines that hold a number."""
    values: dict[int, list[float]] = {}
    for line in (line for journal in journals for line in journal):
        if line["split"] == split and line.get(name) is not None:
            values.setdefault(line["step"], []).append(line[name])
    return [(step, float(np.mean(values[step]))) for step in sorted(values)]
