r"""Does the local-moment loss help? Cross-entropy + Dice with and without it.

Run:   python experiments/moment_check.py --data DATA --out runs/moment_check
       (DATA: a folder of images and instance masks; ran on DSB2018 fluorescence)
Quick: add --steps 20 --seeds 1
Known: 3 seeds x 500 steps, two CPU cores, 0.8 h: no difference beyond the spread of
       the seeds (experiments/results/moment_check)

Two configurations, equal in everything but one term, over the same seeds. Weight
and scales of the moment term were set from its documentation before any run:
scales near d/16, d/8, d/4 of the median diameter (20 px there) and 1 px for
gaps, value times weight about that of Dice near convergence.
"""

import argparse
import dataclasses
import statistics
from pathlib import Path

import numpy as np

import fluojax
from fluojax import environment, metrics, ops
from fluojax.config import DataOptions, Experiment, Term
from fluojax.console import Console
from fluojax.data.sources import load_dataset
from fluojax.files import to_json, write_atomic
from fluojax.jobs.train import train

REGION = (Term(name="cross_entropy_loss"), Term(name="dice_loss"))
MOMENT = Term(name="local_moment_loss", weight=2.0, options={"scales": (1.0, 2.0, 4.0)})
CONFIGURATIONS = {"bce_dice": REGION, "bce_dice_moments": (*REGION, MOMENT)}
THRESHOLDS = (0.5, 0.75, 0.9)  # IoU, one-to-one
TOLERANCE_PX = 2.0
SCORES = ("boundary_f1", "f1_50", "f1_75", "f1_90", "dice", "count_mae")


def settings(data: str, steps: int) -> dict:
    """What both configurations share."""
    return {
        "data": data,
        "model": "cresunet",
        "model_options": {"base_features": 8},
        "crop": 128,
        "batch_size": 8,
        "num_steps": steps,
        "learning_rate": 2e-3,
        "eval_every": max(steps // 4, 1),
        "save_every": max(steps // 4, 1),
        "touching_gap": 1,
        "postprocess_options": {"apart": True},
    }


def boundary_f1(true: np.ndarray, pred: np.ndarray) -> float:
    """F1 of border pixels within the tolerance; NaN without any in both."""
    borders = [np.asarray(ops.contour_map(m > 0, mode="inner")) for m in (true, pred)]
    near = [np.asarray(ops.distance_transform(~b)) <= TOLERANCE_PX for b in borders]
    hits = [(borders[0] & near[1]).sum(), (borders[1] & near[0]).sum()]
    recall, precision = (
        hit / border.sum() if border.any() else 0.0
        for hit, border in zip(hits, borders, strict=True)
    )
    if not borders[0].any() and not borders[1].any():
        return float("nan")
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def score(run: Path, records) -> dict[str, float]:
    """Means over the test images; object scores pool their counts."""
    model = fluojax.load(run)
    counts = np.zeros((3, len(THRESHOLDS)))
    rows = []
    for record in records:
        found = model(record.image).instances
        bound = int(max(record.instances.max(), found.max(), 1))
        bound = 1 << (bound - 1).bit_length()  # few sizes, few compilations
        match = metrics.match_by_iou(
            record.instances, found, threshold=THRESHOLDS, max_instances=bound
        )
        counts += np.stack([match.tp, match.fp, match.fn])
        both = (record.instances > 0, found > 0)
        rows.append(
            {
                "boundary_f1": boundary_f1(record.instances, found),
                "dice": float(metrics.dice(*both)),
                "count_mae": abs(int(match.n_true) - int(match.n_pred)),
            }
        )
    tp, fp, fn = counts
    f1 = 2 * tp / (2 * tp + fp + fn)
    means = {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}
    return means | dict(zip(("f1_50", "f1_75", "f1_90"), map(float, f1), strict=True))


def table(scores: dict[str, list[dict[str, float]]]) -> str:
    """Mean +- sd per configuration, and the paired difference over the seeds."""
    lines = ["| | " + " | ".join(SCORES) + " |", "|---" * (len(SCORES) + 1) + "|"]
    for name, runs in scores.items():
        cells = [_mean_sd([run[key] for run in runs]) for key in SCORES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    without, with_moments = scores.values()
    pairs = list(zip(without, with_moments, strict=True))
    cells = [_mean_sd([b[key] - a[key] for a, b in pairs], "+") for key in SCORES]
    lines.append("| difference, paired by seed | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean_sd(values: list[float], sign: str = "") -> str:
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):{sign}.3f} ± {spread:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/moment_check"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    args = parser.parse_args()
    records = load_dataset(args.data, DataOptions(), data_dir=None).splits["test"]
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in CONFIGURATIONS}
    for seed in range(args.seeds):
        for name, terms in CONFIGURATIONS.items():
            run = args.out / name / f"seed{seed}"
            config = Experiment(
                **settings(args.data, args.steps),
                loss=terms,
                seed=seed,
                workdir=str(run),
            )
            train(config, console=Console())
            scores[name].append(score(run, records))
            print(name, seed, scores[name][-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "environment": environment.environment(),
        "configurations": {
            name: [dataclasses.asdict(term) for term in terms]
            for name, terms in CONFIGURATIONS.items()
        },
        "settings": settings(Path(args.data).name, args.steps),
        "scores": scores,
    }
    write_atomic(args.out / "scores.json", to_json(facts))
    write_atomic(args.out / "table.md", table(scores))
    print(table(scores))


if __name__ == "__main__":
    main()
