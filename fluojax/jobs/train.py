"""`fluojax train`: an experiment from its fields to `results.json`."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fluojax import __version__, environment, report, runs
from fluojax import config as configs
from fluojax.config import Experiment, Term
from fluojax.console import Console, duration, reading
from fluojax.data import fingerprint as fingerprints
from fluojax.data import pipeline
from fluojax.data.contrast import prepared
from fluojax.data.record import Dataset, Record
from fluojax.data.sources import load_dataset
from fluojax.errors import Diverged, UserError
from fluojax.files import to_json, write_atomic
from fluojax.inference import evaluation, prediction
from fluojax.inference.postprocess import instances_from_probs
from fluojax.jobs import evaluate
from fluojax.train import checkpoint, ensemble, loop, parallel, program
from fluojax.train.journal import read_journal

PANELS = 3  # images drawn after each evaluation
# Mean diameters that the loss study counts by; fnc_synth shows 0.24 of its pixels.
CELL_DIAMETERS = {f"fnc_v2/{stain}": 40.0 for stain in ("yellow", "green", "red")}
CELL_DIAMETERS |= {"fnc_v1/authors": 40.0, "fnc_v1/by_animal": 40.0}
CELL_DIAMETERS |= {"fnc_synth": 9.6}


def train(
    config: Experiment,
    *,
    dataset: Dataset | None = None,
    console: Console | None = None,
    dry_run: bool = False,
    built: program.Program | None = None,
) -> dict[str, Any]:
    """Trains, or continues, an experiment in its work folder.

    Args:
      config: `workdir` None means `runs/<data>_<model>_<loss>/seed<k>`.
      dataset: read from `config.data` where None.
      console: where progress goes; None is silent.
      dry_run: stops after everything has been checked.
      built: of the same experiment with any seed; built here where None.

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
            config.data,
            config.data_options,
            data_dir=config.manual_dir,
            progress=reading(console),
        )
    config = resolve(config, dataset)
    diameter = cell_diameter(dataset)
    _say_what_runs(config, dataset, workdir, console)
    if dry_run:
        built = program.build(config, dataset)
        state = parallel.replicate(built.new_state())
        loop.compile_first(config, built, state, console)
        console.line("dry run: everything needed is there; nothing was trained")
        return {}
    if not parallel.is_first():
        console = Console(quiet=True)
        _loop(config, dataset, workdir, diameter, console, built)
        return {}
    with checkpoint.lock(workdir):
        done = runs.read_results(workdir)
        runs.start_run(config, workdir, _facts(dataset, diameter))
        if done is not None and done["steps"] >= config.num_steps:
            console.line(f"{workdir}: finished at step {done['steps']}; nothing to do")
            return done
        console.log_to(workdir / "log.txt")
        outcome = _loop(config, dataset, workdir, diameter, console, built)
        return _finish(config, dataset, workdir, outcome, diameter, console)


def train_seeds(
    members: Sequence[Experiment],
    *,
    dataset: Dataset,
    built: program.Program,
    form: ensemble.Form,
    console: Console,
) -> dict[int, Diverged]:
    """Trains, or continues, seeds of one experiment at once.

    Args:
      members: differ in `seed` and `workdir` only; the latter is given.
      dataset: of all of them.
      built: of the experiment with any seed.
      form: how they share the devices, see `train.ensemble`.
      console: where progress goes.

    Returns:
      The errors of seeds that diverged; all others have their results.json.

    Raises:
      UserError: and its kinds, as `train`.
    """
    diameter = cell_diameter(dataset)
    resolved = [resolve(member, dataset) for member in members]
    _say_what_runs(resolved[0], dataset, Path(resolved[0].workdir).parent, console)
    with contextlib.ExitStack() as locks:
        seats = {}
        for config in resolved:
            workdir = Path(config.workdir)
            locks.enter_context(checkpoint.lock(workdir))
            runs.start_run(config, workdir, _facts(dataset, diameter))
            validate = _validator(config, dataset, workdir, diameter, console)
            seats[config.seed] = (workdir, validate)
        ends = ensemble.run(built, seats, form, console)
        for config in resolved:
            end = ends[config.seed]
            if isinstance(end, loop.Outcome):
                workdir = Path(config.workdir)
                _finish(config, dataset, workdir, end, diameter, console)
    return {seed: end for seed, end in ends.items() if isinstance(end, Diverged)}


def _facts(dataset: Dataset, diameter: float) -> dict[str, Any]:
    """What a run must know about its data."""
    records = dataset.splits["train"]
    return {
        "channels": records[0].image.shape[-1],
        "rank": records[0].instances.ndim,
        "diameter": diameter,
        "intensity": fingerprints.intensity_range(records)[::2],
        "reference": dataset.reference,
    }


def _loop(config, dataset, workdir, diameter, console, built) -> loop.Outcome:
    validate = _validator(config, dataset, workdir, diameter, console)
    mine = built and built.with_seed(config.seed)
    return loop.run(
        config, dataset, workdir, validate=validate, console=console, program=mine
    )


def cell_diameter(dataset: Dataset) -> float:
    """Diameter of a cell in px: of the data set where known, else the median."""
    if dataset.name in CELL_DIAMETERS:
        return CELL_DIAMETERS[dataset.name]
    records = dataset.splits["train"] or dataset.splits["val"]
    return fingerprints.median_diameter(records)


def resolve(config: Experiment, dataset: Dataset) -> Experiment:
    """The experiment with what it left to the data: sizes, scaling, class weights.

    Raises:
      UserError: the train split is empty, or an option of a loss is "auto" that
        cannot be estimated.
    """
    records = dataset.splits["train"]
    if not records:
        raise UserError(f"{config.data}: no training images")
    diameter = fingerprints.median_diameter(records)
    rank = records[0].instances.ndim
    crop = config.crop or fingerprints.suggest_crop(diameter, rank)
    size = config.batch_size
    if size is None:
        size = fingerprints.suggest_batch(crop, rank)
        size += -size % jax.device_count()
    kind = dataset.scaling if config.scaling == "auto" else config.scaling
    loss = tuple(
        _weighted(term, f"loss.{k}", records) for k, term in enumerate(config.loss)
    )
    config = dataclasses.replace(
        config, crop=crop, batch_size=size, scaling=kind, loss=loss
    )
    return configs.with_scaled_study(config, cell_diameter(dataset))


def _weighted(term: Term, path: str, records: Sequence[Record]) -> Term:
    """The term with options that are "auto" taken from the training records."""
    options = dict(term.options)
    for name, value in options.items():
        if value == "auto":
            if name not in ("pos_weight", "class_weights"):
                raise UserError(
                    f"{path}.options.{name}: auto is known for pos_weight and "
                    "class_weights only; give a value"
                )
            share = fingerprints.foreground_share(records)
            weight = round(fingerprints.suggest_pos_weight(share), 4)
            options[name] = weight if name == "pos_weight" else [1.0, weight]
    return dataclasses.replace(term, options=options)


def _say_what_runs(config, dataset, workdir, console) -> None:
    devices = jax.devices()
    console.line(
        f"fluojax {__version__}  {len(devices)} x {devices[0].device_kind}"
        f"  run {workdir}"
    )
    for note in dataset.notes:
        console.line(f"note   {note}")
    counts = ", ".join(f"{len(part)} {name}" for name, part in dataset.splits.items())
    first = dataset.splits["train"][0].image
    equalised = "" if config.contrast == "none" else f", {config.contrast}"
    smaller = sum(min(r.instances.shape) < config.crop for r in dataset.splits["train"])
    console.line(
        f"data   {dataset.name}: {counts} · {first.dtype}, {first.shape[-1]} channel(s) "
        f"· scaling {config.scaling}{equalised} · scored against {dataset.reference}"
    )
    if smaller:
        largest = min(min(r.instances.shape) for r in dataset.splits["train"])
        console.line(
            f"note   {smaller} images are smaller than the crop of {config.crop} px: "
            f"padded by reflection; the largest crop that fits all is {largest}"
        )
    images = len(dataset.splits["train"])
    if config.batch_size > images:
        console.line(
            f"note   batch size {config.batch_size}, {images} images: a step takes "
            f"several crops of an image; {_sizes_below(images)}"
        )
    asked = os.environ.get("JAX_PLATFORMS", "")
    nvidia = Path("/proc/driver/nvidia").exists()
    if nvidia and jax.default_backend() == "cpu" and asked != "cpu":
        console.line(
            'note   NVIDIA GPU visible, JAX uses the CPU: pip install "jax[cuda13]" '
            '(or "jax[cuda12]"); --device cpu silences this'
        )
    loss = " + ".join(f"{term.weight:g} {term.name}" for term in config.loss)
    console.line(
        f"train  {config.model} · {loss} · crop {config.crop}, batch "
        f"{config.batch_size}, {config.num_steps} steps · {config.optimizer} "
        f"{config.learning_rate:g} {config.schedule}"
    )


def _sizes_below(images: int) -> str:
    """The two largest batches of different images that the devices can share."""
    devices = jax.device_count()
    largest = images // devices * devices
    sizes = [str(n) for n in (largest, largest - devices) if n > 0]
    if not sizes:
        return f"{devices} devices need at least as many images to show each once"
    return f"each once with --batch-size {' or '.join(sizes)}"


def _validator(config, dataset, workdir, diameter, console):
    """`f(variables, eval_step, step)` for the loop: scores, curves and panels."""
    records = [r for r in dataset.splits["val"] if r.has_labels]
    if not records:
        raise UserError("validation: no labelled image; one is needed to choose by")
    truths = [evaluate.reference_instances(r, dataset.reference) for r in records]
    options = evaluate.scoring_options(diameter)
    post = configs.postprocess_options(config)
    least = program.model_of(config).min_size
    threshold = 0.5 if config.threshold is None else config.threshold
    true_share = float(np.mean([(r.instances > 0).mean() for r in records]))

    def validate(variables, eval_step, step: int) -> Mapping[str, float]:
        probs, losses = _eval_records(eval_step, variables, records, config, least)
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
        if parallel.is_first():
            _draw(workdir / "figures" / "panels" / f"{step:06d}.png", panels, console)
        chosen = ("dice", "f1_iou", "f1_50", "mae")
        numbers = {name: scores[name] for name in chosen} | _pixel_shares(rows)
        loss = float(np.mean(losses))
        return {
            "score": _selection(config, scores, loss),
            "loss": loss,
            "foreground": share,
            "foreground_true": true_share,
            **numbers,
        }

    return validate


def _pixel_shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Precision, recall and accuracy of the pixels of all images together."""
    tp, fp, fn, tn = (
        sum(row[f"{n}_px"] for row in rows) for n in ("tp", "fp", "fn", "tn")
    )
    shares = {"precision": (tp, tp + fp), "recall": (tp, tp + fn)}
    shares["accuracy"] = tp + tn, tp + fp + fn + tn
    return {name: float(evaluation.ratio(*share)) for name, share in shares.items()}


def _selection(config: Experiment, scores: Mapping[str, float], loss: float) -> float:
    """The number of validation that decides which step is best; higher is better."""
    if config.select == "loss":
        return -loss
    if config.select == "dice":
        return float(np.nan_to_num(scores["dice"]))
    return evaluate.selection_score(scores)


def _eval_records(eval_step, variables, records: Sequence[Record], config, least):
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
            batch = _whole_images([records[i] for i in filled], config, dtype, least)
            p, value = jax.device_get(eval_step(variables, parallel.shard(batch)))
            for k, i in enumerate(chunk):
                inside = tuple(slice(n) for n in records[i].instances.shape)
                probs[i], losses[i] = p[k, 0][inside], value[k, 0]
    return probs, losses


def _whole_images(records: Sequence[Record], config, dtype, least) -> pipeline.Batch:
    """A batch of equal shapes; images below the model's least size are enlarged."""
    images, scales = zip(
        *(prepared(r.image, config.scaling, config.contrast) for r in records),
        strict=True,
    )
    parts = [
        pipeline.enlarged(
            image.astype(dtype), r.instances, np.ones(r.instances.shape, bool), least
        )
        for r, image in zip(records, images, strict=True)
    ]
    image, instances, where = (np.stack(x) for x in zip(*parts, strict=True))
    return {
        "image": image,
        "scale": np.stack(scales),
        "instances": instances,
        "where": where,
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


def _finish(config, dataset, workdir, outcome, diameter, console) -> dict[str, Any]:
    """Scores the best checkpoint on test (or val) and writes results.json last."""
    options = evaluate.scoring_options(diameter)
    began = time.monotonic()
    run = runs.open_run(workdir, threshold=0.5 if config.threshold is None else None)
    network = runs.network_of(run)
    threshold = run.threshold
    if config.threshold is None:
        threshold = tune_threshold(
            network, run, dataset.splits["val"], dataset.reference
        )
        console.line(f"threshold {threshold:g}, tuned on validation")
    split = "test" if dataset.splits["test"] else "val"
    run = dataclasses.replace(run, threshold=threshold)
    scored = evaluate.score_records(
        run, dataset.splits[split], dataset.reference, options, console
    )
    journal = read_journal(workdir / "metrics.jsonl")
    report.draw_curves(workdir / "figures" / "curves.png", journal)
    seconds = outcome.seconds + time.monotonic() - began
    results = {
        "scores": {**scored.scores, "diverged": False},
        "split": split,
        "steps": outcome.step,
        "best_step": outcome.best_step,
        "best_validation": outcome.best,
        "threshold": threshold,
        "postprocess": configs.postprocess_settings(config),
        "hours": round(seconds / 3600, 4),
        "parameters": sum(x.size for x in jax.tree.leaves(run.variables["params"])),
        "image_sizes": fingerprints.image_sizes(dataset.splits[split]),
        "config": configs.to_dict(config),
        **environment.environment(),
    }
    title = report.run_title(workdir, config)
    evaluate.write_page(workdir, title, scored, results, config)
    # Last: its presence means that all the rest is there.
    write_atomic(workdir / "results.json", to_json(results))
    for name, value in report.score_table(scored.scores):
        console.line(f"  {name:<48} {value}")
    console.line(
        f"done: step {outcome.best_step} is best of {outcome.step}, scored on {split}, "
        f"{duration(seconds)} -> {workdir}"
    )
    return results


def tune_threshold(network, run, records: Iterable[Record], reference: str) -> float:
    """The threshold with the best validation score.

    Of 0.1, 0.15, ..., 0.9; if the best is an end of these, beyond it as well: losses
    that weigh cells many times over move all probabilities towards 1.
    """
    records = [r for r in records if r.has_labels]
    probs = [prediction.probabilities(network, r.image) for r in records]
    truths = [evaluate.reference_instances(r, reference) for r in records]
    post = configs.postprocess_options(run.config)
    options = evaluate.scoring_options(run.diameter)

    @functools.cache
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
        return evaluate.selection_score(evaluation.summarise(rows, options, reference))

    grid = [round(0.1 + 0.05 * k, 2) for k in range(17)]
    best = highest(score, grid)
    return beyond(score, best) if best in (grid[0], grid[-1]) else best


def highest(score: Callable[[float], float], grid: Sequence[float]) -> float:
    """Where on a grid of 17 a score with one broad top is highest, in 9 calls.

    Every fourth place first, then those beside the best; of equals the one nearest
    to the middle.
    """
    known = functools.cache(lambda k: round(score(grid[k]), 6))

    def best(candidates: Iterable[int]) -> int:
        return max(candidates, key=lambda k: (known(k), -abs(k - 8)))

    chosen = best(range(0, 17, 4))
    for step in (2, 1):
        chosen = best([max(chosen - step, 0), chosen, min(chosen + step, 16)])
    return grid[chosen]


def beyond(score: Callable[[float], float], threshold: float) -> float:
    """A threshold nearer to 0 or 1, the distance halved as long as the score rises.

    At most six times, from 0.9 to 0.9984.
    """
    for _ in range(6):
        nearer = threshold / 2 if threshold < 0.5 else (1 + threshold) / 2
        if not score(nearer) > score(threshold):
            break
        threshold = nearer
    return threshold
