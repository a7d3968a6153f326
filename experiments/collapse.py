r"""How often does a loss end in the empty prediction?

In the loss study two of five focal Tversky runs and one of five focal runs predicted
nothing, and the table's means skip them. Its focal Tversky is in effect the mean
absolute error of all pixels to the power 4/3 (`power_mae_loss`), for which an image
without cells is nearly right where cells cover 0.5 %. This experiment counts how
often that happens, on generated cells of the same rarity, over 20 seeds, whether the
literature's focal Tversky does it as well, and whether a moment term prevents it.

Data:   fnc_synth (0.5 % foreground; no download), or FNC v2 yellow.
Small:  fluojax sweep experiments/collapse.py --workdir runs/collapse
        c-ResUnet of half the width, crop 64 drawn anywhere, batch 16, 400 steps;
        20 seeds, 1.3 minutes a member on one CPU core
Full:   add --scale full [--data tfds:fnc_v2/yellow]: c-ResUnet, crop 256, 1,000
        steps, all twelve configurations of the study beside
Quick:  add --smoke
"""

import math
from collections.abc import Sequence
from pathlib import Path

import loss_study

from fluojax.config import Experiment, Term
from fluojax.files import write_atomic
from fluojax.report.figures import png_bytes, subplots
from fluojax.sweep import Options, Study
from fluojax.sweep.members import Member, by_configuration
from fluojax.train.journal import read_journal

MOMENTS = Term("local_moment_loss", 1.0, {"scales": (1.0, 2.0, 4.0)})
ROWS = {
    "power_mae": (Term("focal_tversky_fluocells"),),
    "power_mae_moments": (Term("focal_tversky_fluocells"), MOMENTS),
    "focal": (Term("focal"),),
    "focal_moments": (Term("focal"), MOMENTS),
    "focal_tversky": (Term("focal_tversky"),),
    "dice": (Term("dice"),),
    "bce": (Term("cross_entropy_loss"),),
}
LABELS = {
    "power_mae": "power of the MAE (the study's focal Tversky)",
    "power_mae_moments": "power of the MAE + local moments",
    "focal": "focal",
    "focal_moments": "focal + local moments",
    "focal_tversky": "focal Tversky (Abraham and Khan)",
    "dice": "Dice",
    "bce": "cross-entropy, unweighted",
}
COMMON = {
    "augmentation": "study",
    "foreground_crops": 0.0,  # most crops hold no cell at all
    "clip_norm": None,
    "schedule": "one_cycle",
    "learning_rate": 1e-3,
    "batch_size": 16,
    "select": "dice",
    "threshold": 0.5,  # the network's own word: collapsed means nothing above it
}
SCALES = {
    "small": {"model": "cresunet_nano", "crop": 64, "num_steps": 400},
    "full": {"model": "cresunet", "crop": 256, "num_steps": 1000},
}


def study(options: Options) -> Study:
    settings = COMMON | SCALES[options.scale]
    every = {"eval_every": settings["num_steps"] // 2, "save_every": 1000}
    rows = dict(ROWS)
    if options.scale == "full":
        rows |= {
            f"study_{stem}": (Term(loss_study.loss_name(stem, "slides")),)
            for stem in loss_study.LABELS
        }
    members = {
        name: Experiment(**settings, **every, loss=loss) for name, loss in rows.items()
    }
    return Study(
        title=f"Collapse to the empty prediction, {options.scale} scale",
        members=members,
        seeds=tuple(range(20)),
        columns=("f1_iou", "dice", "mae"),
        labels=LABELS,
        notes=(
            "The best of the evaluations is scored: a member counts as collapsed only "
            "if that one predicts nothing on any test image at threshold 0.5.",
        ),
        figures=draw_rates,
    )


def draw_rates(root: Path, members: Sequence[Member]) -> list[tuple[str, str]]:
    """Share of the seeds that collapsed or end without a cell, 95 % intervals (Wilson).

    Selection can hide a collapse: a network that ends in the empty prediction is
    scored by an earlier evaluation if that one hit a single pixel.
    """
    groups = by_configuration(members)
    figure, ((axis,),) = subplots(1, 1, figsize=(7, 1.3 + 0.4 * len(groups)))
    kinds = (
        (-0.15, "o", "#c0603a", has_collapsed, "scored step: nothing in the test set"),
        (0.15, "s", "#3a6ea5", ends_blind, "last step: no cell found in validation"),
    )
    for shift, marker, color, failed, words in kinds:
        counts = [(sum(map(failed, g)), len(g)) for g in groups.values()]
        heights = [place + shift for place in range(len(counts))]
        shares = [hits / seeds for hits, seeds in counts]
        lows, highs = zip(*(wilson(*count) for count in counts), strict=True)
        axis.hlines(heights, lows, highs, color=color, lw=1)
        axis.plot(shares, heights, marker, color=color, ms=5, label=words)
    names = [LABELS.get(n, n) + f" ({len(g)} seeds)" for n, g in groups.items()]
    axis.set_yticks(range(len(groups)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlim=(-0.02, 1.02), xlabel="share of the seeds")
    axis.legend(fontsize=7, loc="lower right")
    write_atomic(root / "figures" / "collapse_rate.png", png_bytes(figure))
    text = (
        "Share of the seeds that collapsed (the scored step predicts nothing) or that "
        "find no cell at their last step, 95 % intervals (Wilson)"
    )
    return [(text, "figures/collapse_rate.png")]


def has_collapsed(member: Member) -> bool:
    return member.state == "collapsed"


def ends_blind(member: Member) -> bool:
    """Whether the last evaluation matched no cell of the validation images."""
    journal = read_journal(member.folder / "metrics.jsonl")
    found = [line.get("f1_iou") for line in journal if line.get("split") == "val"]
    return found[-1:] == [0]


def wilson(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (Wilson 1927); of no trials all of [0, 1]."""
    if not trials:
        return 0.0, 1.0
    share, spread = hits / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)
