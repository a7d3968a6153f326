r"""Twelve losses on Fluorescent Neuronal Cells: which one counts cells best?

Source: Clissa, Macaluso, Zoccoli, ICIAP 2023 workshops; slides and program.
Data:   FNC v2 yellow (tfds:fnc_v2/yellow, manual download), 200/30/70 images.
Full:   fluojax sweep experiments/loss_study.py --scale full --workdir runs/loss_study
        c-ResUnet (1.7 M), crop 512, batch 32, 1,000 steps; minutes a member on a GPU
Small:  the same without --scale [--data DATA]: generated cells, c-ResUnet of half the
        width, crop 128, batch 8, 400 steps; about 3 minutes a member and core
Quick:  add --smoke
Out of sample: python experiments/out_of_sample.py runs/loss_study --data DATA

--variant slides (default): plain Adam, triangles up to the valley of the range test
(fluojax lr-find: 6e-4 for Dice on DSB2018; 2e-3 at the small scale, whose steps are
few), losses as the slides write them, threshold tuned on validation.
--variant program: what the authors' code computes: losses of the pooled batch of
probabilities that are squashed twice, AdamW and one cycle to 1e-3 (beta1 from 0.95 to
0.85 and back), threshold 0.875.
Both validate on whole images instead of centre crops, and on the data set's own
validation images, the same for all seeds.
"""

import published_tables
import signal_share

from fluojax.config import Experiment, Term
from fluojax.sweep import Options, Study

VARIANTS = ("slides", "program")
LABELS = {
    "bce_w50": "BCE, cells x 50",
    "bce_w100": "BCE, cells x 100",
    "bce_w200": "BCE, cells x 200",
    "focal": "Focal",
    "dice": "Dice",
    "focal_tversky": "Focal Tversky",
    "combined_balanced": "Combined, balanced",
    "combined_overcrowd": "Combined, overcrowded",
    "combined_cellvit": "Combined, CellViT",
    "combined_ft_balanced": "CombinedFT, balanced",
    "combined_ft_overcrowd": "CombinedFT, overcrowded",
    "combined_ft_cellvit": "CombinedFT, CellViT",
}
COMMON = {
    "augmentation": "study",
    "foreground_crops": 0.0,  # crops are drawn anywhere
    "clip_norm": None,
    "select": "dice",
    "min_delta": 0.005,
    "postprocess": "study_scaled",  # disk 3, holes 50, objects 200 at 40 px a cell
}
SLIDES = {
    "optimizer": "adam",
    "schedule": "cyclical",
    "threshold": None,  # tuned on validation
}
SLIDES_RATE = {"small": 2e-3, "full": 6e-4}
PROGRAM = {
    "optimizer": "adamw",
    "optimizer_options": {"b1": (0.95, 0.85), "b2": 0.99, "eps": 1e-5},
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "learning_rate": 1e-3,
    "threshold": 0.875,
    "pool_batch": True,
    "squash_twice": True,
}
SCALES = {
    "small": {
        "model": "cresunet_nano",
        "crop": 128,
        "batch_size": 8,
        "num_steps": 400,
        "eval_every": 200,
        "save_every": 400,
    },
    "full": {
        "data": "tfds:fnc_v2/yellow",
        "model": "cresunet",
        "crop": 512,
        "batch_size": 32,
        "num_steps": 1000,
        "eval_every": 50,
        "save_every": 200,
    },
}


def loss_name(stem: str, variant: str) -> str:
    """The registered preset of a configuration in one of the two variants."""
    if variant == "program":
        return f"{stem}_fluocells"
    return "focal_tversky_slides" if stem == "focal_tversky" else stem


def study(options: Options) -> Study:
    variant = options.variant or "slides"
    slides = SLIDES | {"learning_rate": SLIDES_RATE[options.scale]}
    settings = COMMON | (slides if variant == "slides" else PROGRAM)
    members, published = {}, published_tables.loss_study(variant)
    for stem in LABELS:
        loss = (Term(loss_name(stem, variant)),)
        members[stem] = Experiment(**SCALES[options.scale], **settings, loss=loss)
    return Study(
        title=f"Loss study, as its {variant} have it, {options.scale} scale",
        members=members,
        labels=LABELS,
        published={k: published[loss_name(k, variant)] for k in LABELS},
        **published_tables.told("loss_study", options),
        figures=signal_share.draw,
    )
