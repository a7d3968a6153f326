"""`fluojax train`: an experiment from its fields to `results.json`."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fluojax import __version__, environment, report, runs
from fluojax import config as configs
from fluojax.config import Experiment
from fluojax.console import Console, duration
from fluojax.data import fingerprint as fingerprints
from fluojax.data import pipeline, scaling
from fluojax.data.record import Dataset, Record
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError
from fluojax.files import to_json, write_atomic
from fluojax.inference import evaluation, prediction
from fluojax.inference.postprocess import instances_from_probs
from fluojax.jobs import evaluate
from fluojax.train import checkpoint, loop, parallel, program
from fluojax.train.journal import read_journal

PANELS = 3  # images drawn after each evaluation


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
        built = program.build(config, dataset)
        state = parallel.replicate(built.new_state())
        loop.compile_first(config, built, state, console)
        console.line("dry run: everything needed is there; nothing was trained")
        return {}
    if not parallel.is_first():
        console = Console(quiet=True)
        _loop(config, dataset, workdir, diameter, console)
        return {}
    with checkpoint.lock(workdir):
        done = runs.read_results(workdir)
        records = dataset.splits["train"]
        facts = {
            "channels": records[0].image.shape[-1],
            "diameter": diameter,
            "intensity": fingerprints.intensity_range(records)[::2],
            "reference": dataset.reference,
        }
        runs.start_run(config, workdir, facts)
        if done is not None and done["steps"] >= config.num_steps:
            console.line(f"{workdir}: finished at step {done['steps']}; nothing to do")
            return done
        console.log_to(workdir / "log.txt")
        outcome = _loop(config, dataset, workdir, diameter, console)
        return _finish(config, dataset, workdir, outcome, diameter, console)


def _loop(config, dataset, workdir, diameter, console) -> loop.Outcome:
    validate = _validator(config, dataset, workdir, diameter, console)
    return loop.run(config, dataset, workdir, validate=validate, console=console)


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
        f"fluojax {__version__}  {len(devices)} x {devices[0].device_kind}"
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
        probs, losses = _eval_records(
            eval_step, variables, records, config.scaling, least
        )
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
        numbers = {name: scores[name] for name in chosen}
        return {
            "score": evaluate.selection_score(scores),
            "loss": float(np.mean(losses)),
            "foreground": share,
            "foreground_true": true_share,
            **numbers,
        }

    return validate


def _eval_records(eval_step, variables, records: Sequence[Record], kind, least):
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
            batch = _whole_images([records[i] for i in filled], kind, dtype, least)
            p, value = jax.device_get(eval_step(variables, parallel.shard(batch)))
            for k, i in enumerate(chunk):
                rows, columns = records[i].instances.shape
                probs[i], losses[i] = p[k, 0, :rows, :columns], value[k, 0]
    return probs, losses


def _whole_images(records: Sequence[Record], kind, dtype, least) -> pipeline.Batch:
    """A batch of equal shapes; images below the model's least size are enlarged."""
    parts = [
        pipeline.enlarged(
            r.image.astype(dtype), r.instances, np.ones(r.instances.shape, bool), least
        )
        for r in records
    ]
    image, instances, where = (np.stack(x) for x in zip(*parts, strict=True))
    scale = np.stack([scaling.offset_and_gain(r.image, kind) for r in records])
    return {"image": image, "scale": scale, "instances": instances, "where": where}


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
    write_atomic(workdir / "per_image.csv", evaluation.rows_csv(scored.rows))
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
        "postprocess": configs.postprocess_options(config),
        "hours": round(seconds / 3600, 4),
        "config": configs.to_dict(config),
        **environment.environment(),
    }
    evaluate.write_page(workdir, f"Run {workdir.name}", run, scored, split)
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
    """The threshold in 0.1, 0.15, ..., 0.9 with the best validation score."""
    records = [r for r in records if r.has_labels]
    probs = [prediction.probabilities(network, r.image) for r in records]
    truths = [evaluate.reference_instances(r, reference) for r in records]
    post = configs.postprocess_options(run.config)
    options = evaluate.scoring_options(run.diameter)

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

    candidates = [round(0.1 + 0.05 * k, 2) for k in range(17)]
    # Of equals the one nearest to 1/2.
    return max(candidates, key=lambda t: (round(score(t), 6), -abs(t - 0.5)))
