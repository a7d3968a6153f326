"""What the runs of a sweep left behind, read from their folders alone.

    DIR/sweep.json                      what was planned
    DIR/<configuration>/seed<k>/        a run folder; results.json ends it
    DIR/<configuration>/seed<k>/measures.json   further scores of the experiment

A member that collapsed (no object on the whole test set) or diverged (not
finite) has failed: its overlap scores count as 0, its counting errors are those
of its predictions or, without any, left out and told.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fluojax.errors import UserError

State = Literal["done", "collapsed", "diverged", "started", "missing"]
PLAN = "sweep.json"
MEASURES = "measures.json"


@dataclass(frozen=True)
class Score:
    """How a score is named, written, and found from counts of pixels or objects.

    Attributes:
      label: heading of its column.
      form: of one value.
      scale: values are multiplied by it before they are written.
      overlap: a share in [0, 1] that is 0 where nothing was found; failed
        members count. Otherwise an error, lower is better.
      ratio: (numerator, denominator) from summed columns of per_image.csv, for
        scores that are ratios of sums; None for the others.
    """

    label: str
    form: str = "{:.3f}"
    scale: float = 1.0
    overlap: bool = True
    ratio: Callable[[Mapping[str, Any]], tuple[Any, Any]] | None = None


def _f1(rule: str) -> Callable[[Mapping[str, Any]], tuple[Any, Any]]:
    tp, fp, fn = (f"{kind}_{rule}" for kind in ("tp", "fp", "fn"))
    return lambda s: (2 * s[tp], 2 * s[tp] + s[fp] + s[fn])


def _macro_f1(s: Mapping[str, Any]) -> tuple[Any, Any]:
    """Mean of the F1 of cells and of background, as one fraction."""
    a, b = _f1("px")(s)
    c, d = 2 * s["tn_px"], 2 * s["tn_px"] + s["fp_px"] + s["fn_px"]
    return (a * d + c * b), 2 * b * d


SCORES: dict[str, Score] = {
    "f1_iou": Score("F1 (IoU>0.4)", ratio=_f1("iou")),
    "f1_distance": Score("F1 (distance)", ratio=_f1("distance")),
    "f1_50": Score("F1 (IoU≥0.5)", ratio=_f1("50")),
    "f1_75": Score("F1 (IoU≥0.75)"),
    "f1_90": Score("F1 (IoU≥0.9)"),
    "dice": Score("Dice", ratio=_f1("px")),
    "iou": Score(
        "IoU", ratio=lambda s: (s["tp_px"], s["tp_px"] + s["fp_px"] + s["fn_px"])
    ),
    "precision": Score(
        "precision", ratio=lambda s: (s["tp_px"], s["tp_px"] + s["fp_px"])
    ),
    "recall": Score("recall", ratio=lambda s: (s["tp_px"], s["tp_px"] + s["fn_px"])),
    "accuracy": Score(
        "accuracy",
        ratio=lambda s: (
            s["tp_px"] + s["tn_px"],
            s["tp_px"] + s["tn_px"] + s["fp_px"] + s["fn_px"],
        ),
    ),
    "macro_f1": Score("macro F1", ratio=_macro_f1),
    "ap": Score("AP"),
    "pq": Score("PQ"),
    "aji": Score("AJI"),
    "mae": Score("MAE", "{:.2f}", overlap=False),
    "medae": Score("MedAE", "{:.2f}", overlap=False),
    "mpe": Score("MPE %", "{:.1f}", overlap=False),
    "steps_to_95": Score("steps to 95 %", "{:.0f}", overlap=False),
    "splits_per_image": Score("splits per image", "{:.2f}", overlap=False),
    "merges_per_image": Score("merges per image", "{:.2f}", overlap=False),
    "gflops": Score("GFLOPs of 256 px", "{:.1f}", overlap=False),
    "images_per_s": Score("images/s of 256 px", "{:.1f}", overlap=False),
    "misses_per_image": Score("misses per image", "{:.2f}", overlap=False),
}


def score_of(column: str) -> Score:
    """The score of a column; other names of `measure` are shares in [0, 1]."""
    return SCORES.get(column) or Score(column.replace("_", " "))


@dataclass(frozen=True)
class Member:
    """One configuration and seed.

    Attributes:
      folder: its run folder.
      state: "collapsed" and "diverged" are finished, and failed.
      results: of results.json, {} where it is missing.
      measures: of measures.json, {} where it is missing.
      counts: columns of per_image.csv, one entry per image; {} without any.
      images: their names.
    """

    configuration: str
    seed: int
    folder: Path
    state: State
    results: Mapping[str, Any] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.state in ("done", "collapsed", "diverged")

    def value(self, column: str) -> float:
        """The score, 0 where a failed member found nothing, NaN if undefined."""
        score = score_of(column)
        scores = {**self.results.get("scores", {}), **self.measures}
        value = scores.get(column, _on_curve(column, scores))
        if value is None and score.ratio is not None and self.counts:
            value = _ratio(score, self.counts)
        value = math.nan if value is None else float(value)
        failed = self.state in ("collapsed", "diverged")
        return 0.0 if failed and score.overlap and math.isnan(value) else value


def _on_curve(column: str, scores: Mapping[str, Any]) -> float | None:
    """F1 at an IoU of the curve that results.json holds, e.g. of f1_75."""
    curve = scores.get("f1_curve")
    if curve is None or not column.startswith("f1_") or not column[3:].isdigit():
        return None
    return dict(zip(curve["iou"], curve["f1"], strict=True)).get(int(column[3:]) / 100)


def _ratio(score: Score, counts: Mapping[str, np.ndarray]) -> float:
    try:
        above, below = score.ratio({k: float(v.sum()) for k, v in counts.items()})
    except KeyError:  # runs of an earlier version counted less
        return math.nan
    return above / below if below else math.nan


def member_folder(root: Path, configuration: str, seed: int) -> Path:
    """`DIR/<configuration>/seed<k>`."""
    return root / configuration / f"seed{seed}"


def read_plan(root: Path) -> dict[str, Any]:
    """`sweep.json` of a sweep's folder.

    Raises:
      UserError: the folder is no sweep, or the file is damaged.
    """
    try:
        plan = json.loads((root / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{root}: no sweep: {PLAN} is not readable: {error}") from error
    return {"comparable": True} | plan  # plans of older versions do not say


def read_members(root: Path, plan: Mapping[str, Any]) -> list[Member]:
    """Every planned member, in the order of configurations and seeds."""
    return [
        read_member(root, configuration, seed)
        for configuration in plan["configurations"]
        for seed in plan["seeds"]
    ]


def read_member(root: Path, configuration: str, seed: int) -> Member:
    """One member as its folder shows it."""
    folder = member_folder(root, configuration, seed)
    results = _read_json(folder / "results.json")
    if not results:
        state: State = "started" if (folder / "config.json").exists() else "missing"
        return Member(configuration, seed, folder, state)
    scores = results["scores"]
    if scores.get("diverged"):
        return Member(configuration, seed, folder, "diverged", results)
    images, counts = read_counts(folder / "per_image.csv")
    return Member(
        configuration,
        seed,
        folder,
        "collapsed" if scores.get("collapsed") else "done",
        results,
        _read_json(folder / MEASURES),
        counts,
        images,
    )


def read_counts(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the images and the columns of whole numbers of a per_image.csv."""
    if not path.is_file():
        return (), {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [n for n in (rows[0] if rows else ()) if n.startswith(_COUNTED)]
    counts = {n: np.array([int(row[n]) for row in rows]) for n in names}
    return tuple(row["image"] for row in rows), counts


_COUNTED = ("n_true", "n_pred", "tp_", "fp_", "fn_", "tn_")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not readable: {error}; delete it to redo") from error


def by_configuration(members: Sequence[Member]) -> dict[str, list[Member]]:
    """Members grouped in the order in which configurations first appear."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.configuration, []).append(member)
    return groups
