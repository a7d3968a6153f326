"""The table of a sweep as rows of numbers, and as texts for people.

Everything comes from `sweep.json` and the folders of the members, so a table can
be built again at any time. Nothing in it depends on the clock: a sweep that was
killed and restarted ends in the same table.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluojax.inference.tables import csv_text
from fluojax.sweep.members import Member, by_configuration, score_of
from fluojax.sweep.statistics import (
    Comparison,
    Summary,
    compare_with_best,
    differs,
    summarise,
)


@dataclass(frozen=True)
class Cell:
    """One score of one configuration.

    Attributes:
      every: over all finished members, overlap scores of failed ones counted as 0.
      worked: over the members that neither collapsed nor diverged.
      published: None where nothing was published.
      marked: ours and the published value are comparable and differ by more than
        two pooled standard errors.
    """

    every: Summary
    worked: Summary
    published: Summary | None
    marked: bool

    @property
    def difference(self) -> float:
        return self.every.mean - self.published.mean if self.published else math.nan


@dataclass(frozen=True)
class Row:
    """One configuration: members by fate, scores, comparison with the best row."""

    configuration: str
    label: str
    planned: int
    worked: int
    collapsed: int
    diverged: int
    parameters: int | None
    cells: Mapping[str, Cell]
    to_best: Comparison | None

    @property
    def missing(self) -> int:
        return self.planned - self.worked - self.collapsed - self.diverged


def rows_of(plan: Mapping[str, Any], members: Sequence[Member]) -> list[Row]:
    """Rows sorted by the main score, the best first; rows without any come last."""
    main = plan["columns"][0]
    groups = by_configuration(members)
    means = {
        name: summarise([m.value(main) for m in group if m.finished]).mean
        for name, group in groups.items()
    }
    sign = 1.0 if score_of(main).overlap else -1.0
    order = sorted(
        groups,
        key=lambda n: (math.isnan(means[n]), -sign * means[n], [*groups].index(n)),
    )
    compared = compare_with_best([groups[name] for name in order], 0, score_of(main))
    return [
        _row(plan, name, groups[name], comparison)
        for name, comparison in zip(order, compared, strict=True)
    ]


def _row(
    plan: Mapping[str, Any],
    name: str,
    members: Sequence[Member],
    comparison: Comparison | None,
) -> Row:
    fates = [m.state for m in members]
    sizes = {m.results.get("parameters") for m in members if m.results}
    published = plan["published"].get(name, {})
    cells = {
        column: _cell(column, members, published.get(column), plan["comparable"])
        for column in plan["columns"]
    }
    return Row(
        configuration=name,
        label=plan["labels"].get(name, name),
        planned=len(members),
        worked=fates.count("done"),
        collapsed=fates.count("collapsed"),
        diverged=fates.count("diverged"),
        parameters=next((n for n in sizes if n), None),
        cells=cells,
        to_best=comparison,
    )


def _cell(
    column: str,
    members: Sequence[Member],
    published: Mapping[str, Any] | None,
    comparable: bool,
) -> Cell:
    every = summarise([m.value(column) for m in members if m.finished])
    worked = summarise([m.value(column) for m in members if m.state == "done"])
    if published is None:
        return Cell(every, worked, None, False)
    sd = math.nan if published["sd"] is None else published["sd"]
    theirs = Summary(published["mean"], sd, published["n"] or 0)
    return Cell(every, worked, theirs, comparable and differs(every, theirs))


# --- texts ------------------------------------------------------------------------


def main_table(
    plan: Mapping[str, Any], rows: Sequence[Row]
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of all scores."""
    main, *others = plan["columns"]
    published = any(row.cells[main].published for row in rows)
    missing = any(row.missing for row in rows)
    sizes = len({row.parameters for row in rows if row.parameters}) > 1
    header = ["configuration", "n", "collapsed", "diverged"]
    header += ["missing"] * missing + [score_of(main).label]
    header += ["published", "Δ"] * published + ["to best (corrected interval)"]
    header += [score_of(c).label for c in others] + ["parameters"] * sizes
    table = []
    for row in rows:
        cell = row.cells[main]
        line = [row.label, f"{row.worked}/{row.planned}"]
        line += [str(row.collapsed), str(row.diverged)]
        line += [str(row.missing)] * missing + [both_means(cell, main)]
        line += [published_text(cell, main), difference_text(cell, main)] * published
        line += [comparison_text(row, rows[0], main)]
        line += [both_means(row.cells[c], c) for c in others]
        line += [f"{row.parameters:,}" if row.parameters else "–"] * sizes
        table.append(line)
    return header, table


def published_table(
    plan: Mapping[str, Any], rows: Sequence[Row]
) -> tuple[list[str], list[list[str]]] | None:
    """Every score beside the published one; None where nothing was published."""
    columns = [
        c for c in plan["columns"] if any(row.cells[c].published for row in rows)
    ]
    if not columns:
        return None
    header = ["configuration"]
    for column in columns:
        header += [score_of(column).label, "published", "Δ"]
    table = []
    for row in rows:
        line = [row.label]
        for column in columns:
            cell = row.cells[column]
            line += [mean_sd(cell.every, column)]
            line += [published_text(cell, column), difference_text(cell, column)]
        table.append(line)
    return header, table


def mean_sd(summary: Summary, column: str) -> str:
    """`0.781 ± 0.004`; a dash where there is no value, no sd for a single one."""
    if math.isnan(summary.mean):
        return "–"
    text = number(summary.mean, column)
    if math.isnan(summary.sd):
        return text
    return f"{text} ± {number(summary.sd, column)}"


def number(value: float, column: str) -> str:
    score = score_of(column)
    return score.form.format(value * score.scale)


def both_means(cell: Cell, column: str) -> str:
    """Over all members, and in brackets over those that worked if some failed."""
    text = mean_sd(cell.every, column)
    same = cell.every.n == cell.worked.n and cell.every.mean == cell.worked.mean
    if same or math.isnan(cell.every.mean):
        return text
    if not cell.worked.n:
        return f"{text} [0]"
    return f"{text} [{cell.worked.n}: {mean_sd(cell.worked, column)}]"


def published_text(cell: Cell, column: str) -> str:
    return mean_sd(cell.published, column) if cell.published else ""


def difference_text(cell: Cell, column: str) -> str:
    """Signed, with a star where it is more than two pooled standard errors."""
    if cell.published is None or math.isnan(cell.difference):
        return ""
    sign = "+" if cell.difference >= 0 else "−"
    return sign + number(abs(cell.difference), column) + ("*" if cell.marked else "")


def comparison_text(row: Row, best: Row, column: str) -> str:
    """`−0.031 (−0.052 to −0.010) worse`, or without a verdict."""
    if row is best:
        return "best"
    found = row.to_best
    if found is None:
        return ""
    parts = [
        f"{x:+.3f}".replace("-", "−") for x in (found.difference, found.low, found.high)
    ]
    verdict = " worse" if found.distinct else ""
    return f"{parts[0]} ({parts[1]} to {parts[2]}){verdict}"


def to_csv(plan: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """One line per configuration, unrounded; undefined numbers are empty."""
    fields = ["configuration", "label", "planned", "worked", "collapsed", "diverged"]
    fields += ["missing", "parameters"]
    for column in plan["columns"]:
        fields += [f"{column}_{part}" for part in _PARTS]
    fields += ["to_best", "to_best_low", "to_best_high", "to_best_p"]
    lines = []
    for row in rows:
        line: list[Any] = [row.configuration, row.label, row.planned, row.worked]
        line += [row.collapsed, row.diverged, row.missing, row.parameters]
        for column in plan["columns"]:
            cell = row.cells[column]
            theirs = cell.published or Summary(math.nan, math.nan, 0)
            line += [cell.every.mean, cell.every.sd, cell.worked.mean, cell.worked.sd]
            line += [theirs.mean, theirs.sd, cell.difference, int(cell.marked)]
        found = row.to_best
        line += (
            [found.difference, found.low, found.high, found.p] if found else [None] * 4
        )
        lines.append(line)
    return csv_text(fields, lines)


_PARTS = ("mean", "sd", "worked_mean", "worked_sd", "published", "published_sd")
_PARTS += ("difference", "differs")


def members_csv(plan: Mapping[str, Any], members: Sequence[Member]) -> str:
    """One line per finished member, unrounded: what the means are made of."""
    fields = ("best_step", "threshold", "hours", "commit")
    lines = [
        [m.configuration, m.seed, m.state]
        + [m.value(column) for column in plan["columns"]]
        + [m.results.get(field) for field in fields]
        for m in members
        if m.finished
    ]
    return csv_text(
        ["configuration", "seed", "state", *plan["columns"], *fields], lines
    )


def to_tex(header: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """A `tabular` for a paper; needs no package."""
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", "\\hline"]
    lines += [" & ".join(map(_tex, header)) + r" \\", "\\hline"]
    lines += [" & ".join(map(_tex, line)) + r" \\" for line in table]
    return "\n".join([*lines, "\\hline", "\\end{tabular}"]) + "\n"


_TEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
}
_TEX |= {"≥": r"$\geq$", "≤": r"$\leq$", ">": "$>$", "<": "$<$"}
_TEX |= {sign: "\\" + sign for sign in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)
