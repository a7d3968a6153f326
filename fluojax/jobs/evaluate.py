"""`fluojax evaluate`: a run, or the masks of any tool, against the truth."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluojax import __version__, report, runs
from fluojax import config as configs
from fluojax.console import Console
from fluojax.data import fingerprint as fingerprints
from fluojax.data import masks, names, read
from fluojax.data.layouts import OUTPUT_ENDINGS
from fluojax.data.pairing import MASK_ENDINGS, list_files
from fluojax.data.record import Record
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError, some
from fluojax.files import to_json, write_atomic
from fluojax.inference import evaluation, intervals, prediction
from fluojax.inference.postprocess import components, instances_from_probs

WORST = 3  # images shown as such


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of a split with what the pages show of it."""

    scores: dict[str, Any]
    rows: list[dict[str, Any]]
    panels: dict[str, list[report.Panel]]  # by "worst", "median" and "best"


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


def score_records(run, records, reference, options, console) -> Scored:
    """Predicts and scores labelled records."""
    network = runs.network_of(run)
    post = configs.postprocess_options(run.config)

    def predicted(record: Record) -> report.Panel:
        probs = prediction.probabilities(network, record.image)
        pred = instances_from_probs(probs, threshold=run.threshold, **post)
        true = reference_instances(record, reference)
        return report.Panel(record.id, record.image, true, pred)

    labelled = [record for record in records if record.has_labels]
    makers = [functools.partial(predicted, record) for record in labelled]
    return score_panels(makers, reference, options, console)


def score_panels(
    makers: Sequence[Callable[[], report.Panel]], reference, options, console
) -> Scored:
    """Scores (truth, prediction) pairs one by one.

    Args:
      makers: each makes one panel; called again for the few that are shown, so
        that no more than one image is held at a time.
    """
    if not makers:
        raise UserError("no labelled image to score")
    rows = []
    for number, make in enumerate(makers, start=1):
        panel = make()
        row = {"image": panel.title}
        rows.append(row | evaluation.score_image(panel.true, panel.pred, options))
        console.progress(number, {"scored": number, "image": panel.title})
    scores = evaluation.summarise(rows, options, reference)
    scores["intervals"] = intervals.bootstrap(rows)
    shown = {
        name: [makers[i]() for i in places] for name, places in _shown(rows).items()
    }
    return Scored(scores, rows, shown)


def _shown(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Places of the worst, the middle and the best images by object F1."""
    f1 = [evaluation.f1(row["tp_50"], row["fp_50"], row["fn_50"]) for row in rows]
    order = np.argsort(np.nan_to_num(f1, nan=1.0), kind="stable").tolist()
    shown = {"best": order[-1:]} if len(order) > 1 else {}
    if len(order) > 2:
        shown["median"] = [order[len(order) // 2]]
    taken = {place for places in shown.values() for place in places}
    return {"worst": [place for place in order if place not in taken][:WORST], **shown}


def write_figures(folder: Path, scored: Scored) -> None:
    """The pictures of a page that need the images, or all rows."""
    figures = folder / "figures"
    for name, panels in scored.panels.items():
        report.draw_panels(figures / f"{name}.png", panels)
    counts = ([row[f"n_{side}"] for row in scored.rows] for side in ("true", "pred"))
    write_atomic(figures / "counts.png", report.counts_png(*counts))
    curve = scored.scores["f1_curve"]
    write_atomic(
        figures / "f1_curve.png", report.f1_curve_png(curve["iou"], curve["f1"])
    )


def write_page(
    folder: Path, title: str, scored: Scored, results: Mapping[str, Any],
    experiment: configs.Experiment | None,
) -> None:  # fmt: skip
    """per_image.csv, figures, report.md and report.html.

    Args:
      folder: of a run or an evaluation.
      title: of the page.
      scored: what was measured.
      results: of results.json: `scores`, `split`, and what is known beside.
      experiment: of the run, None for masks of folders.
    """
    rows = evaluation.rows_csv(scored.rows)
    write_atomic(folder / "per_image.csv", rows)
    write_figures(folder, scored)
    page = report.run_page(
        folder, results, report.read_rows(rows), experiment=experiment
    )
    report.write_pages(folder, title, page)


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

    Writes scores.json, per_image.csv, report.md, report.html and figures to `out`,
    by default `RUN/evaluation/<split>`.
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
    missing: str = "count",
    out: Path,
    console: Console,
) -> dict[str, Any]:
    """Scores masks of any tool against true masks, paired by `data.names.key`.

    True masks without prediction are named and, by `missing`, counted as images in
    which every cell is missed ("count"), left out ("skip") or refused ("refuse").
    Predictions without true mask are named. `results.json` records both.

    Raises:
      UserError: as `mask_sets` says, sizes differ, or one is missing with "refuse".
    """
    if (out / "config.json").exists():
        raise UserError(f"{out}: holds a run; name another folder with --out")
    predicted, truth_of = mask_sets(pred, true, console)
    absent = [key for key in truth_of if key not in predicted]
    beyond = [key for key in predicted if key not in truth_of]
    if absent:
        told = f"{len(absent)} of {len(truth_of)} true masks have no prediction"
        if missing == "refuse":
            raise UserError(
                f"{told}: {some(absent)}; predict them, or --missing count or skip"
            )
        done = "left out" if missing == "skip" else "every cell counts as missed"
        console.line(f"{told}, {done}: {', '.join(absent)}")
    if beyond:
        console.line(
            f"{len(beyond)} predictions have no true mask: {', '.join(beyond)}"
        )
    keys = [key for key in truth_of if missing != "skip" or key in predicted]
    truths = [read_labels(truth_of[key]) for key in keys]
    areas = np.concatenate([fingerprints.cell_areas(t) for t in truths])
    diameter = float(2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.0
    options = scoring_options(diameter, iou, distance_px)

    def compared(key: str, truth: np.ndarray) -> report.Panel:
        path = predicted.get(key)
        labels = np.zeros_like(truth) if path is None else read_labels(path)
        if labels.shape != truth.shape:
            raise UserError(
                f"{key}: predicted {labels.shape}, true {truth.shape}; both need "
                "one size"
            )
        image = (truth > 0).astype(np.uint8)[..., None]
        return report.Panel(key, image, truth, labels)

    makers = [
        functools.partial(compared, key, truth)
        for key, truth in zip(keys, truths, strict=True)
    ]
    scored = score_panels(makers, "instances", options, console)
    title = f"{pred.name} against {true.name}"
    pairing = {
        "missing": missing, "without_prediction": absent, "without_truth": beyond,
    }  # fmt: skip
    return _write_evaluation(
        out, title, None, scored, "all", console, {"pairing": pairing}
    )


def mask_sets(
    pred: Path, true: Path, console: Console
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Mask files of two folders by the key under which they pair, sorted.

    Where some names of a folder end as those of masks do (`_masks`), only these are
    masks; what else could be one is named.

    Raises:
      UserError: a folder is missing, two files of one have one key, or no key is
        common.
    """
    predicted, truths = (_masks_by_key(folder, console) for folder in (pred, true))
    if predicted.keys().isdisjoint(truths):
        raise UserError(
            f"no common names: {pred} has {some(predicted) or 'no masks'}; {true} has "
            f"{some(truths) or 'no masks'}; names pair without _masks"
        )
    return predicted, truths


def _masks_by_key(folder: Path, console: Console) -> dict[str, Path]:
    paths = [p for p in list_files(folder) if p.suffix.lower() in read.MASK_SUFFIXES]
    named = [p for p in paths if names.stem(p).endswith(MASK_ENDINGS)]
    found: dict[str, Path] = {}
    for path in named or paths:
        first = found.setdefault(names.key(path, folder), path)
        if first != path:
            both = " and ".join(str(p.relative_to(folder)) for p in (first, path))
            raise UserError(f"{folder}: two masks of one image: {both}; keep one")
    others = [
        p.relative_to(folder)
        for p in paths
        if names.key(p, folder) not in found
        and not names.stem(p).endswith(OUTPUT_ENDINGS)
    ]
    if others:
        console.line(
            f"{len(others)} files of {folder} are no masks by their names: "
            f"{', '.join(map(str, others))}"
        )
    return dict(sorted(found.items()))


def read_labels(path: Path) -> np.ndarray:
    """A mask file as instances: components if it holds one value, else its ids."""
    plane = masks.read_mask_plane(path)
    masks.refuse_fractions(path, plane)
    binary = masks.single_valued(plane) or masks.looks_soft(plane)
    return masks.to_instances(plane, "binary" if binary else "instances")


def _write_evaluation(
    out, title, run, scored, split, console, facts: Mapping | None = None
) -> dict[str, Any]:
    results = {"scores": scored.scores, "split": split, "fluojax": __version__}
    if run is not None:
        results |= {"best_step": run.step, "threshold": run.threshold}
    write_page(out, title, scored, results, run and run.config)
    write_atomic(out / "scores.json", to_json(scored.scores))
    if facts:
        write_atomic(out / "results.json", to_json(results | facts))
    for name, value in report.score_table(scored.scores):
        console.line(f"  {name:<48} {value}")
    console.line(f"-> {out / 'report.html'}")
    return scored.scores
