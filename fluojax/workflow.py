"""The jobs of the command line as functions: train, evaluate, predict.

Composes what the layers below offer; every function here reads or writes
folders, and none of them decides anything mathematical.
"""

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fluojax import config as configs
from fluojax import report, runs
from fluojax.config import Experiment
from fluojax.console import Console, duration
from fluojax.data import fingerprint as fingerprints
from fluojax.data import pipeline, read, scaling
from fluojax.data.folder import MASK_ENDINGS, list_files, read_folder
from fluojax.data.read import MASK_SUFFIXES
from fluojax.data.record import Dataset, Record
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError, some
from fluojax.files import to_json, write_atomic
from fluojax.inference import evaluation, prediction
from fluojax.inference.postprocess import components, instances_from_probs
from fluojax.train import checkpoint, loop, parallel
from fluojax.train.journal import read_journal

PANELS = 3  # images drawn after each evaluation


# --- training ---------------------------------------------------------------------


def train(
    config: Experiment,
    *,
    dataset: Dataset | None = None,
    console: Console | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Trains, or continues, an experiment in its work folder.

    Args:
      config: `workdir` None means `runs/<data>_<model>_<loss>/seed<k>`.
      dataset: read from `config.data` where None.
      console: where progress goes; None is silent.
      dry_run: stops after everything has been checked.

    Returns:
      The contents of `results.json` ({} for a dry run).

    Raises:
      UserError: and its kinds, see `fluojax.errors` and `train.loop`.
    """
    console = console or Console(quiet=True)
    workdir = Path(config.workdir or configs.default_workdir(config))
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir}: a file; choose another --workdir")
    if dataset is None:
        dataset = load_dataset(
            config.data, config.data_options, data_dir=config.manual_dir
        )
    config = resolve(config, dataset)
    diameter = fingerprints.median_diameter(
        dataset.splits["train"] or dataset.splits["val"]
    )
    _say_what_runs(config, dataset, workdir, console)
    if dry_run:
        loop.build(config, dataset)
        console.line("dry run: everything needed is there; nothing was trained")
        return {}
    with checkpoint.lock(workdir):
        done = runs.read_results(workdir)
        facts = {
            "channels": dataset.splits["train"][0].image.shape[-1],
            "diameter": diameter,
            "reference": dataset.reference,
        }
        runs.start_run(config, workdir, facts)
        if done is not None and done["steps"] >= config.num_steps:
            console.line(f"{workdir}: finished at step {done['steps']}; nothing to do")
            return done
        console.log_to(workdir / "log.txt")
        options = scoring_options(diameter)
        validate = _validator(config, dataset, workdir, options, console)
        outcome = loop.run(config, dataset, workdir, validate=validate, console=console)
        return _finish(config, dataset, workdir, outcome, options, console)


def resolve(config: Experiment, dataset: Dataset) -> Experiment:
    """The experiment with `crop`, `batch_size` and `scaling` from the data.

    Raises:
      UserError: the train split is empty.
    """
    records = dataset.splits["train"]
    if not records:
        raise UserError(f"{config.data}: no training images")
    diameter = fingerprints.median_diameter(records)
    crop = config.crop or fingerprints.suggest_crop(diameter)
    size = config.batch_size
    if size is None:
        size = fingerprints.suggest_batch(crop)
        size += -size % jax.device_count()
    kind = dataset.scaling if config.scaling == "auto" else config.scaling
    return dataclasses.replace(config, crop=crop, batch_size=size, scaling=kind)


def _say_what_runs(config, dataset, workdir, console) -> None:
    devices = jax.devices()
    console.line(
        f"fluojax {runs.fluojax.__version__}  {len(devices)} x {devices[0].device_kind}"
        f"  run {workdir}"
    )
    for note in dataset.notes:
        console.line(f"note   {note}")
    counts = ", ".join(f"{len(part)} {name}" for name, part in dataset.splits.items())
    first = dataset.splits["train"][0].image
    smaller = sum(min(r.image.shape[:2]) < config.crop for r in dataset.splits["train"])
    console.line(
        f"data   {dataset.name}: {counts} · {first.dtype}, {first.shape[-1]} channel(s) "
        f"· scaling {config.scaling} · scored against {dataset.reference}"
    )
    if smaller:
        console.line(
            f"note   {smaller} images are smaller than the crop of {config.crop} px: "
            "padded by reflection"
        )
    if jax.default_backend() == "cpu" and Path("/proc/driver/nvidia").exists():
        console.line(
            'note   NVIDIA GPU visible, JAX uses the CPU: pip install "jax[cuda13]"; '
            "--device cpu silences this"
        )
    loss = " + ".join(f"{term.weight:g} {term.name}" for term in config.loss)
    console.line(
        f"train  {config.model} · {loss} · crop {config.crop}, batch "
        f"{config.batch_size}, {config.num_steps} steps · {config.optimizer} "
        f"{config.learning_rate:g} {config.schedule}"
    )


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


def _validator(config, dataset, workdir, options, console):
    """`f(variables, eval_step, step)` for the loop: scores, curves and panels."""
    records = [r for r in dataset.splits["val"] if r.has_labels]
    if not records:
        raise UserError("validation: no labelled image; one is needed to choose by")
    truths = [reference_instances(r, dataset.reference) for r in records]
    post = configs.postprocess_options(config)
    threshold = 0.5 if config.threshold is None else config.threshold

    def validate(variables, eval_step, step: int) -> Mapping[str, float]:
        probs, losses = _eval_records(eval_step, variables, records, config.scaling)
        preds = [instances_from_probs(p, threshold=threshold, **post) for p in probs]
        rows = [
            evaluation.score_image(true, pred, options, quick=True)
            for true, pred in zip(truths, preds, strict=True)
        ]
        scores = evaluation.summarise(rows, options, dataset.reference)
        share = float(np.mean([(p > threshold).mean() for p in probs]))
        panels = [
            report.Panel(r.id, r.image, true, pred)
            for r, true, pred in zip(records[:PANELS], truths, preds, strict=False)
        ]
        _draw(workdir / "figures" / "panels" / f"{step:06d}.png", panels, console)
        chosen = ("dice", "f1_iou", "f1_50", "mae")
        numbers = {name: scores[name] for name in chosen}
        return {
            "score": _selection_score(scores),
            "loss": float(np.mean(losses)),
            "foreground": share,
            **numbers,
        }

    return validate


def _selection_score(scores: Mapping[str, float]) -> float:
    """What "best" means: the mean of Dice and object F1; undefined counts as 0."""
    values = [scores["dice"], scores["f1_50"]]
    return float(np.mean(np.nan_to_num(values)))


def _eval_records(eval_step, variables, records: Sequence[Record], kind):
    """Probabilities and losses of whole images, equal shapes together."""
    dtype = pipeline.common_dtype(records)
    devices = jax.local_device_count()
    groups: dict[tuple, list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault(record.image.shape, []).append(i)
    probs: list[Any] = [None] * len(records)
    losses = np.zeros(len(records))
    for members in groups.values():
        for start in range(0, len(members), devices):
            chunk = members[start : start + devices]
            filled = chunk + [chunk[-1]] * (devices - len(chunk))
            batch = _whole_images([records[i] for i in filled], kind, dtype)
            p, value = jax.device_get(eval_step(variables, parallel.shard(batch)))
            for k, i in enumerate(chunk):
                probs[i], losses[i] = p[k, 0], value[k, 0]
    return probs, losses


def _whole_images(records: Sequence[Record], kind, dtype) -> pipeline.Batch:
    return {
        "image": np.stack([r.image.astype(dtype) for r in records]),
        "scale": np.stack([scaling.offset_and_gain(r.image, kind) for r in records]),
        "instances": np.stack([r.instances for r in records]),
        "where": np.ones((len(records), *records[0].instances.shape), bool),
    }


def _draw(path: Path, panels, console: Console) -> None:
    """A picture that cannot be drawn costs a line, never the run."""
    try:
        report.draw_panels(path, panels)
        folder = path.parent.parent
        journal = read_journal(folder.parent / "metrics.jsonl")
        if journal:
            report.draw_curves(folder / "curves.png", journal)
    except (OSError, ImportError) as error:
        console.line(f"{path.name}: not drawn: {error}")


def _finish(config, dataset, workdir, outcome, options, console) -> dict[str, Any]:
    """Scores the best checkpoint on test (or val) and writes results.json last."""
    began = time.monotonic()
    run = runs.open_run(workdir, threshold=0.5 if config.threshold is None else None)
    network = network_of(run)
    threshold = run.threshold
    if config.threshold is None:
        threshold = tune_threshold(
            network, run, dataset.splits["val"], dataset.reference
        )
        console.line(f"threshold {threshold:g}, tuned on validation")
    split = "test" if dataset.splits["test"] else "val"
    run = dataclasses.replace(run, threshold=threshold)
    scored = score_records(
        run, dataset.splits[split], dataset.reference, options, console
    )
    write_atomic(workdir / "per_image.csv", evaluation.rows_csv(scored.rows))
    journal = read_journal(workdir / "metrics.jsonl")
    report.draw_curves(workdir / "figures" / "curves.png", journal)
    earlier = runs.read_results(workdir) or {}
    seconds = outcome.seconds + time.monotonic() - began
    results = {
        "scores": {**scored.scores, "diverged": False},
        "split": split,
        "steps": outcome.step,
        "best_step": outcome.best_step,
        "best_validation": outcome.best,
        "threshold": threshold,
        "postprocess": configs.postprocess_options(config),
        "hours": round(earlier.get("hours", 0.0) + seconds / 3600, 4),
        "config": configs.to_dict(config),
        **runs.environment(),
    }
    write_atomic(workdir / "results.json", to_json(results))
    write_page(workdir, f"Run {workdir.name}", run, scored, split)
    for name, value in report.score_table(scored.scores):
        console.line(f"  {name:<48} {value}")
    console.line(
        f"done: step {outcome.best_step} is best of {outcome.step}, scored on {split}, "
        f"{duration(seconds)} -> {workdir}"
    )
    return results


def tune_threshold(network, run, records: Iterable[Record], reference: str) -> float:
    """The threshold in 0.1, 0.15, ..., 0.9 with the best validation score."""
    records = [r for r in records if r.has_labels]
    probs = [prediction.probabilities(network, r.image) for r in records]
    truths = [reference_instances(r, reference) for r in records]
    post = configs.postprocess_options(run.config)
    options = scoring_options(run.diameter)

    def score(threshold: float) -> float:
        rows = [
            evaluation.score_image(
                true,
                instances_from_probs(p, threshold=threshold, **post),
                options,
                quick=True,
            )  # fmt: skip
            for true, p in zip(truths, probs, strict=True)
        ]
        return _selection_score(evaluation.summarise(rows, options, reference))

    candidates = [round(0.1 + 0.05 * k, 2) for k in range(17)]
    # Of equals the one nearest to 1/2.
    return max(candidates, key=lambda t: (round(score(t), 6), -abs(t - 0.5)))


# --- scoring ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of a split with what the pages show of it."""

    scores: dict[str, Any]
    rows: list[dict[str, Any]]
    panels: list[report.Panel]  # worst first


def network_of(run: runs.Run) -> prediction.Network:
    return prediction.create_network(
        run.model, run.variables, run.config.scaling, run.config.crop
    )


def score_records(run, records, reference, options, console, *, keep=4) -> Scored:
    """Predicts and scores labelled records; keeps panels of the worst."""
    network = network_of(run)
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
            "fluojax": runs.fluojax.__version__,
        }
    figures = ["figures/worst.png", "figures/counts.png"]
    if (folder / "figures" / "curves.png").exists():
        figures.append("figures/curves.png")
    worst = [panel.title for panel in scored.panels]
    page = report.markdown_report(title, facts, scored.scores, worst, figures)
    write_atomic(folder / "report.md", page)


def with_overrides(run: runs.Run, overrides: Mapping[str, Any] | None) -> runs.Run:
    """The run with other data options or post-processing; its network stays.

    Raises:
      UserError: a field that only training can change.
    """
    if not overrides:
        return run
    allowed = ("data_options", "postprocess", "postprocess_options")
    for key in overrides:
        if key.split(".")[0] not in allowed:
            raise UserError(
                f"--set {key}: a trained run can change {', '.join(allowed)} only"
            )
    config = configs.apply_overrides(run.config, overrides)
    return dataclasses.replace(run, config=config)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self):
        self._began = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._began


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
    run = with_overrides(runs.open_run(folder, threshold=threshold), overrides)
    dataset = load_dataset(data or run.config.data, run.config.data_options)
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
        paths = [p for p in list_files(folder) if p.suffix.lower() in MASK_SUFFIXES]
        masks = [p for p in paths if p.stem.endswith(MASK_ENDINGS)]
        stems = {}
        for path in masks or paths:
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
    plane = read.read_mask_plane(path)
    binary = read.single_valued(plane) or read.looks_soft(plane)
    return read.to_instances(plane, "binary" if binary else "instances")


def _write_evaluation(out, title, run, scored, split, console) -> dict[str, Any]:
    write_atomic(out / "per_image.csv", evaluation.rows_csv(scored.rows))
    write_page(out, title, run, scored, split)
    write_atomic(out / "scores.json", to_json(scored.scores))
    for name, value in report.score_table(scored.scores):
        console.line(f"  {name:<48} {value}")
    console.line(f"-> {out}")
    return scored.scores


# --- checking ---------------------------------------------------------------------


def check(config: Experiment, console: Console, *, json_file: str | None = None) -> int:
    """Prints the fingerprint of a data set and every problem, one line each."""
    problems: list[str] = []
    if Path(config.data).exists() or not _is_named(config.data):
        dataset, problems = read_folder(config.data, config.data_options, strict=False)
    else:
        dataset = load_dataset(
            config.data, config.data_options, data_dir=config.manual_dir
        )
    facts = fingerprints.fingerprint(dataset)
    for line in facts.lines():
        console.line(line)
    console.line(f"scored      against {dataset.reference}")
    for note in dataset.notes:
        console.line(f"note        {note}")
    for problem in problems:
        console.line(f"problem     {problem}")
    if json_file:
        told = {**facts.as_dict(), "notes": dataset.notes, "problems": problems}
        write_atomic(json_file, to_json(told))
    return 0


def _is_named(data: str) -> bool:
    return data.startswith(("tfds:", "fnc_synth"))


# --- clusters ---------------------------------------------------------------------


def join_cluster() -> None:
    """Joins the other processes of a Slurm job step, Open MPI call or TPU pod.

    A lone machine never calls `jax.distributed.initialize`, which would refuse.
    """
    tasks = [
        os.environ.get(n, "1") for n in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    ]
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if any(n.isdigit() and int(n) > 1 for n in tasks) or len(hosts) > 1:
        jax.distributed.initialize()
