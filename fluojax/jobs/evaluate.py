"""`fluojax evaluate`: a run, or the masks of any tool, against the truth."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fluojax import __version__, report, runs
from fluojax import config as configs
from fluojax.console import Console
from fluojax.data import fingerprint as fingerprints
from fluojax.data import masks, read
from fluojax.data.pairing import MASK_ENDINGS, list_files
from fluojax.data.record import Record
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError, some
from fluojax.files import to_json, write_atomic
from fluojax.inference import evaluation, prediction
from fluojax.inference.postprocess import components, instances_from_probs


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of a split with what the pages show of it."""

    scores: dict[str, Any]
    rows: list[dict[str, Any]]
    panels: list[report.Panel]  # worst first


def scoring_options(
    diameter: float, iou: float = 0.4, distance_px: float | None = None
) -> evaluation.Options:
    """IoU 0.4 and, as in the loss study, one cell diameter between centres."""
    if distance_px is None:
        distance_px = round(diameter, 1) if diameter > 0 else 40.0
    return evaluation.Options(iou=iou, distance_px=distance_px)


def reference_instances(record: Record, reference: str) -> np.ndarray:
    """The objects that scores count against."""
    if reference == "components":
        return components(record.instances > 0)
    return record.instances


def selection_score(scores: Mapping[str, float]) -> float:
    """What "best" means: the mean of Dice and object F1; undefined counts as 0."""
    values = [scores["dice"], scores["f1_50"]]
    return float(np.mean(np.nan_to_num(values)))


def score_records(run, records, reference, options, console, *, keep=4) -> Scored:
    """Predicts and scores labelled records; keeps panels of the worst."""
    network = runs.network_of(run)
    post = configs.postprocess_options(run.config)

    def predicted():
        for record in records:
            if record.has_labels:
                probs = prediction.probabilities(network, record.image)
                pred = instances_from_probs(probs, threshold=run.threshold, **post)
                true = reference_instances(record, reference)
                yield report.Panel(record.id, record.image, true, pred)

    return score_panels(predicted(), reference, options, console, keep=keep)


def score_panels(panels, reference, options, console, *, keep=4) -> Scored:
    """Scores (truth, prediction) pairs one by one; images come as a stream."""
    rows, worst = [], []
    for number, panel in enumerate(panels, start=1):
        row = {"image": panel.title}
        row |= evaluation.score_image(panel.true, panel.pred, options)
        rows.append(row)
        worst = sorted([*worst, (_badness(row), number, panel)])[:keep]
        console.progress(number, {"scored": number, "image": panel.title})
    if not rows:
        raise UserError("no labelled image to score")
    scores = evaluation.summarise(rows, options, reference)
    return Scored(scores, rows, [panel for _, _, panel in worst])


def _badness(row: Mapping[str, float]) -> float:
    f1 = evaluation.f1(row["tp_50"], row["fp_50"], row["fn_50"])
    return float(np.nan_to_num(f1, nan=1.0))


def write_page(
    folder: Path, title: str, run: runs.Run | None, scored: Scored, split: str
):
    """report.md with figures, in a run folder or in one of an evaluation."""
    report.draw_panels(folder / "figures" / "worst.png", scored.panels)
    true = [row["n_true"] for row in scored.rows]
    pred = [row["n_pred"] for row in scored.rows]
    report.draw_counts(folder / "figures" / "counts.png", true, pred)
    facts = {"split": split}
    if run is not None:
        terms = " + ".join(f"{t.weight:g} {t.name}" for t in run.config.loss)
        facts |= {
            "data": run.config.data,
            "model": run.config.model,
            "loss": terms,
            "steps": f"{run.config.num_steps}, best {run.step}",
            "threshold": f"{run.threshold:g}",
            "seed": str(run.config.seed),
            "fluojax": __version__,
        }
    figures = ["figures/worst.png", "figures/counts.png"]
    if (folder / "figures" / "curves.png").exists():
        figures.append("figures/curves.png")
    worst = [panel.title for panel in scored.panels]
    page = report.markdown_report(title, facts, scored.scores, worst, figures)
    write_atomic(folder / "report.md", page)


def evaluate_run(
    folder: Path,
    *,
    split: str | None = None,
    data: str | None = None,
    iou: float = 0.4,
    distance_px: float | None = None,
    threshold: float | None = None,
    out: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    console: Console,
) -> dict[str, Any]:
    """Scores a run on a split of its data, or of other data.

    Writes scores.json, per_image.csv, report.md and figures to `out`, by
    default `RUN/evaluation/<split>`.
    """
    run = runs.with_overrides(runs.open_run(folder, threshold=threshold), overrides)
    config = run.config
    dataset = load_dataset(
        data or config.data, config.data_options, data_dir=config.manual_dir
    )
    if split is None:
        split = "test" if dataset.splits["test"] else "val"
        console.line(f"split {split}")
    if not dataset.splits[split]:
        raise UserError(
            f"{dataset.name}: no {split} split; it has "
            + ", ".join(name for name, part in dataset.splits.items() if part)
        )
    options = scoring_options(run.diameter, iou, distance_px)
    scored = score_records(
        run, dataset.splits[split], dataset.reference, options, console
    )
    out = out or folder / "evaluation" / split
    title = f"{folder.name} on {dataset.name}, {split}"
    return _write_evaluation(out, title, run, scored, split, console)


def evaluate_folders(
    pred: Path,
    true: Path,
    *,
    iou: float = 0.4,
    distance_px: float | None = None,
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Scores masks of any tool against true masks, paired by stem without `_masks`."""
    pairs = pair_masks(pred, true)
    truths = [read_labels(path) for _, path in pairs.values()]
    areas = np.concatenate([fingerprints.cell_areas(t) for t in truths])
    diameter = float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0
    options = scoring_options(diameter, iou, distance_px)

    def panels():
        for (stem, (path, _)), truth in zip(pairs.items(), truths, strict=True):
            labels = read_labels(path)
            if labels.shape != truth.shape:
                raise UserError(
                    f"{stem}: predicted {labels.shape}, true {truth.shape}; both need "
                    "one size"
                )
            image = (truth > 0).astype(np.uint8)[..., None]
            yield report.Panel(stem, image, truth, labels)

    scored = score_panels(panels(), "instances", options, console)
    title = f"{pred.name} against {true.name}"
    return _write_evaluation(out, title, None, scored, "all", console)


def pair_masks(pred: Path, true: Path) -> dict[str, tuple[Path, Path]]:
    """Mask files of two folders by their common stems.

    Raises:
      UserError: a folder is missing, or no name is common.
    """
    sides = []
    for folder in (pred, true):
        paths = [
            p for p in list_files(folder) if p.suffix.lower() in read.MASK_SUFFIXES
        ]
        named = [p for p in paths if p.stem.endswith(MASK_ENDINGS)]
        stems = {}
        for path in named or paths:
            ending = next((e for e in MASK_ENDINGS if path.stem.endswith(e)), "")
            stems[path.stem.removesuffix(ending)] = path
        sides.append(stems)
    common = sorted(set(sides[0]) & set(sides[1]))
    if not common:
        raise UserError(
            f"no common names: {pred} has {some(sides[0]) or 'no masks'}; {true} has "
            f"{some(sides[1]) or 'no masks'}; names pair without _masks"
        )
    return {stem: (sides[0][stem], sides[1][stem]) for stem in common}


def read_labels(path: Path) -> np.ndarray:
    """A mask file as instances: components if it holds one value, else its ids."""
    plane = masks.read_mask_plane(path)
    masks.refuse_fractions(path, plane)
    binary = masks.single_valued(plane) or masks.looks_soft(plane)
    return masks.to_instances(plane, "binary" if binary else "instances")


def _write_evaluation(out, title, run, scored, split, console) -> dict[str, Any]:
    write_atomic(out / "per_image.csv", evaluation.rows_csv(scored.rows))
    write_page(out, title, run, scored, split)
    write_atomic(out / "scores.json", to_json(scored.scores))
    for name, value in report.score_table(scored.scores):
        console.line(f"  {name:<48} {value}")
    console.line(f"-> {out}")
    return scored.scores
