r"""Losses that know instances: do small ones profit?

Source: ICI, Rachmadi et al., MIDL 2023 (PMLR 227, 286-300), against blob loss and Dice;
besides, connected-component Dice and a moment term per instance.
Data:   ATLAS R2.0 (tfds:atlas_r2, manual download) in 3-D; DSB2018 nuclei in 2-D.
Full:   fluojax sweep experiments/instance_losses.py --scale full --variant 3d \
            --data tfds:atlas_r2 --workdir runs/instance_losses_3d
        U-Net (2-D unet_small, 3-D unet_tiny), crop 192 or 96 cubed, 2,000 steps
Small:  fluojax sweep experiments/instance_losses.py [--variant 3d] [--data DATA]
        generated cells (2-D) or lesions (3-D), unet_nano, crop 128 (batch 8) or 32
        cubed (batch 4), 400 steps; 3 to 5 minutes a member on two CPU cores
Quick:  add --smoke

The centre term of the published program ("box") has no gradient, so no gain can come
from it; the row without it tests that, the row "soft" has one that can learn.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import measures
import numpy as np

from fluojax.config import Experiment, Term
from fluojax.files import write_atomic
from fluojax.report.figures import png_bytes, subplots
from fluojax.sweep import Options, Study
from fluojax.sweep.members import Member, by_configuration

VARIANTS = ("2d", "3d")
DICE = Term("dice_loss")
THIRDS = {"global_weight": 1 / 3, "instance_weight": 2 / 3, "center_weight": 0.0}
ROWS = {
    "dice": (DICE,),
    "blob": (Term("blob"),),
    "ici": (Term("ici"),),
    "ici_no_centre": (Term("ici", 1.0, THIRDS),),
    "ici_soft_centre": (Term("ici", 1.0, {"center": "soft"}),),
    "dual_ici": (Term("dual_ici"),),
    "cc_dice": (Term("cc_dice"),),
    "dice_moments": (DICE, Term("instance_moment_loss", 0.1)),
}
LABELS = {
    "dice": "Dice",
    "blob": "Dice + blob (2 : 1)",
    "ici": "ICI (1/4, 1/2, 1/4)",
    "ici_no_centre": "ICI without the centre term",
    "ici_soft_centre": "ICI with a soft centre term",
    "dual_ici": "dual ICI",
    "cc_dice": "connected-component Dice",
    "dice_moments": "Dice + instance moments",
}
COMMON = {
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "threshold": None,  # tuned on validation
    "touching_gap": 1,  # cells that touch are learned apart
    "postprocess_options": {"apart": True},
}
SCALES = {
    ("2d", "small"): {"model": "unet_nano", "crop": 128, "batch_size": 8},
    ("2d", "full"): {"model": "unet_small", "crop": 192, "batch_size": 16},
    ("3d", "small"): {
        "data": "lesion3d_synth/demo",
        "model": "unet",
        "model_options": {"features": (8, 16, 32)},
        "crop": 32,
        "batch_size": 4,
    },
    ("3d", "full"): {
        "data": "tfds:atlas_r2",
        "model": "unet_tiny",
        "crop": 96,
        "batch_size": 8,
    },
}
CLASSES = tuple(f"recall_size_{k}_of_4" for k in (1, 2, 3, 4))
BINS = 8


def study(options: Options) -> Study:
    variant = options.variant or "2d"
    steps = 400 if options.scale == "small" else 2000
    budget = {"num_steps": steps, "eval_every": steps // 4, "save_every": steps}
    settings = COMMON | SCALES[variant, options.scale] | budget
    return Study(
        title=f"Losses of instances, {variant.upper()}, {options.scale} scale",
        members={name: Experiment(**settings, loss=loss) for name, loss in ROWS.items()},
        columns=("f1_50", "dice", "instance_dice", "instance_recall",
                 "instance_precision", *CLASSES, "mae"),
        labels=LABELS,
        notes=(
            "Published (ATLAS R2.0, abstract only): Dice of the ICI loss 1.7 to 3.7 % "
            "above Dice and 0.6 to 5.0 % above blob loss.",
            "recall size k of 4: share of the true objects in the k-th quartile of "
            "size that are found (IoU at least 0.5).",
        ),
        measure=measures.instances,
        figures=recall_over_size,
    )  # fmt: skip


def recall_over_size(root: Path, members: Sequence[Member]) -> list[tuple[str, str]]:
    """Share of true objects found over their size, a line for each loss."""
    figure, ((axis,),) = subplots(1, 1, figsize=(7, 4.5))
    for configuration, group in by_configuration(members).items():
        files = [m.folder / "objects.csv" for m in group]
        objects = [_sizes_and_hits(path) for path in files if path.exists()]
        if not objects:
            continue
        sizes = objects[0][0]
        edges = np.unique(np.quantile(sizes, np.linspace(0, 1, BINS + 1)))
        bins = np.clip(np.searchsorted(edges, sizes, "right") - 1, 0, len(edges) - 2)
        shares = [
            [hits[bins == k].mean() for k in range(len(edges) - 1)]
            for _, hits in objects
        ]
        middles = [np.median(sizes[bins == k]) for k in range(len(edges) - 1)]
        label = LABELS.get(configuration, configuration)
        axis.plot(middles, np.mean(shares, axis=0), marker="o", ms=3, label=label)
    axis.set(xscale="log", ylim=(0, 1), xlabel="size of the object in pixels")
    axis.set(ylabel="share found (IoU at least 0.5)")
    axis.legend(fontsize=7)
    write_atomic(root / "figures" / "recall_over_size.png", png_bytes(figure))
    return [("Recall over the size of objects", "figures/recall_over_size.png")]


def _sizes_and_hits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sizes = np.array([float(row["size"]) for row in rows])
    hits = np.array([float(row["iou"]) >= measures.FOUND for row in rows])
    return sizes, hits
