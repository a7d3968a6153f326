"""What some experiments measure beside the scores of every run.

`f(run folder) -> numbers`, computed once for a finished member on its test split;
what figures need object by object is written beside as CSV.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fluojax import metrics, runs
from fluojax.config import Experiment, postprocess_options
from fluojax.data.fingerprint import touching_cells
from fluojax.data.record import Record
from fluojax.data.sources import load_dataset
from fluojax.files import write_atomic
from fluojax.inference import prediction
from fluojax.inference.evaluation import f1
from fluojax.inference.postprocess import instances_from_probs
from fluojax.inference.tables import csv_text
from fluojax.models.summary import flops
from fluojax.train.journal import read_journal

FOUND = 0.5  # IoU from which a true object counts as found; at most one can be so near
TOUCHED = 0.1  # share of an object under another that makes them neighbours in a graph
BORDER_PX = 2.0
COST_SIDE = 256  # pixels of the image by which networks are compared


class Predicted(NamedTuple):
    """A test image with what a run makes of it; instances `[*S]`."""

    record: Record
    found: np.ndarray


def test_predictions(run: Path) -> Iterator[Predicted]:
    """The labelled test images (validation where there are none) one by one."""
    config = runs.read_config(run)
    opened = runs.open_run(run)
    network, clean_up = runs.network_of(opened), postprocess_options(config)
    for record in test_records(config):
        probs = prediction.probabilities(network, record.image)
        yield Predicted(
            record,
            instances_from_probs(probs, threshold=opened.threshold, **clean_up),
        )


def test_records(config: Experiment) -> list[Record]:
    """The labelled test images, of validation where there are none."""
    dataset = load_dataset(config.data, config.data_options, data_dir=config.manual_dir)
    records = dataset.splits["test"] or dataset.splits["val"]
    return [record for record in records if record.has_labels]


def shared_pixels(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """`[N + 1, M + 1]` pixels that label n and label m have in common."""
    rows, columns = true.max(initial=0) + 1, found.max(initial=0) + 1
    pairs = true.astype(np.int64) * columns + found
    return np.bincount(pairs.ravel(), minlength=rows * columns).reshape(rows, columns)


def best_overlaps(shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best IoU and best Dice of each true object with any found one, 0 for none."""
    areas = shared.sum(1)[1:, None], shared.sum(0)[None, 1:]
    common = shared[1:, 1:]
    if not common.size:
        none = np.zeros(common.shape[0])
        return none, none
    total = areas[0] + areas[1]
    return (common / (total - common)).max(1), (2 * common / total).max(1)


def instances(run: Path) -> dict[str, float]:
    """Detection and Dice of single objects, also by quartile of their size.

    Writes `objects.csv` (size in pixels, best IoU, best Dice of every true object).
    """
    rows, predicted = [], 0
    for record, found in test_predictions(run):
        shared = shared_pixels(record.instances, found)
        ious, dices = best_overlaps(shared)
        sizes = shared.sum(1)[1:]
        predicted += found.max(initial=0)
        rows += [[record.id, *row] for row in zip(sizes, ious, dices, strict=True)]
    write_atomic(run / "objects.csv", csv_text(["image", "size", "iou", "dice"], rows))
    sizes, ious, dices = (np.array([row[k] for row in rows], float) for k in (1, 2, 3))
    hits = ious >= FOUND
    values = {
        "instance_recall": float(hits.mean()),
        "instance_precision": float(hits.sum() / predicted) if predicted else 0.0,
        "instance_dice": float(dices.mean()),
    }
    edges = np.quantile(sizes, [0.25, 0.5, 0.75])
    classes = np.searchsorted(edges, sizes, side="left")
    for k in range(4):
        inside = classes == k
        share = float(hits[inside].mean()) if inside.any() else float("nan")
        values[f"recall_size_{k + 1}_of_4"] = share
    return values


def cost(run: Path) -> dict[str, float]:
    """Operations of the network for an image of 256 x 256, and such images a second.

    Predictions of single images on the machine that measures, their median time
    after one that compiles; two operations per multiply-add.
    """
    opened = runs.open_run(run)
    network = runs.network_of(opened)
    sides = (COST_SIDE,) * opened.rank
    image = np.random.default_rng(0).random((*sides, opened.channels), np.float32)
    prediction.probabilities(network, image)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        prediction.probabilities(network, image)
        times.append(time.perf_counter() - began)
    operations = flops(opened.model, sides, opened.channels)
    return {"gflops": operations / 1e9, "images_per_s": 1 / float(np.median(times))}


def borders(run: Path) -> dict[str, float]:
    """Border F1 at 2 px, kinds of errors, and object F1 of dense and sparse images.

    An image is dense if at least half of its cells touch another one. Errors are read
    off the graph of overlaps: a split is a true object under several found ones (each
    with at least a tenth of its own area in it), a merge the reverse, a miss a true
    object of which less than a tenth lies under found ones.
    """
    borders_f1, splits, merges, misses, images = [], 0, 0, 0, 0
    counts = {"dense": np.zeros(3), "sparse": np.zeros(3)}
    for record, found in test_predictions(run):
        shared = shared_pixels(record.instances, found)
        images += 1
        split, merged = splits_and_merges(shared)
        splits, merges = splits + split, merges + merged
        misses += count_misses(shared)
        true = record.instances
        value = metrics.boundary_f1(true > 0, found > 0, tolerance=BORDER_PX)
        borders_f1.append(float(value.f1))
        hits = int((best_overlaps(shared)[0] >= FOUND).sum())
        n_true, n_found = shared.shape[0] - 1, shared.shape[1] - 1
        kind = "dense" if touching_share(true) >= 0.5 else "sparse"
        counts[kind] += (hits, n_found - hits, n_true - hits)
    return {
        "boundary_f1": float(np.nanmean(borders_f1)),
        "splits_per_image": splits / images,
        "merges_per_image": merges / images,
        "misses_per_image": misses / images,
        **{f"f1_{kind}": float(f1(*c)) for kind, c in counts.items()},
    }


def borders_and_pace(run: Path) -> dict[str, float]:
    """`borders`, and the first step with 95 % of the best validation score."""
    lines = [x for x in read_journal(run / "metrics.jsonl") if x["split"] == "val"]
    best = max(line["score"] for line in lines)
    early = [line["step"] for line in lines if line["score"] >= 0.95 * best]
    return borders(run) | {"steps_to_95": float(early[0])}


def splits_and_merges(shared: np.ndarray) -> tuple[int, int]:
    """Found objects beyond the first in a true one, and the reverse."""
    areas = shared.sum(1)[1:, None], shared.sum(0)[None, 1:]
    common = shared[1:, 1:]
    inside = common > TOUCHED * np.maximum(areas[1], 1)
    holds = common > TOUCHED * np.maximum(areas[0], 1)
    splits = np.maximum(inside.sum(1) - 1, 0).sum()
    merges = np.maximum(holds.sum(0) - 1, 0).sum()
    return int(splits), int(merges)


def count_misses(shared: np.ndarray) -> int:
    """True objects of which less than a tenth lies under found ones."""
    covered = shared[1:, 1:].sum(1)
    return int((covered < TOUCHED * shared[1:].sum(1)).sum())


def touching_share(true: np.ndarray) -> float:
    """Share of the cells of an image that touch another one."""
    count = int(true.max(initial=0))
    return touching_cells(true) / count if count else 0.0
