r"""From residual U-Net to IMSAHLO: what does each part of the network add?

Source: IMSAHLO, arXiv 2601.11645, Table III; protocol of its section 4.
Data:   FNC v1 (283 images) at 512 x 768, grey (tfds:fnc_v1/imsahlo_512x768).
Full:   fluojax sweep experiments/ladder.py --scale full --workdir runs/ladder
        16 features at the first stage, batch 16, 50 epochs (650 steps)
Small:  the same without --scale [--data DATA]: generated cells, 8 features, crop 96,
        batch 8, 400 steps; 2 to 6 minutes a member and core
Quick:  add --smoke

Of the paper: CLAHE before and after augmentation, its augmentation, AdamW with weight
decay 1e-4 and a clip of 1, learning rate halved after five evaluations without
improvement, best by validation loss, threshold 0.5, closing, objects from 15 px.
Ours: 1e-3 in place of 3e-4 at the small scale, whose 400 steps are few; scores of
single predictions (the paper averages five views).
"""

import functools

import network_figures
import published_tables

from fluojax.config import Experiment, Term
from fluojax.sweep import Options, Study

LABELS = {
    "residual_unet": "residual U-Net (baseline)",
    "neurosegnet": "NeuroSegNet (+ squeeze and excitation)",
    "neurosegnet_msdb": "+ multi-scale dense blocks",
    "imsahlo": "+ hierarchical attention = IMSAHLO",
}
PROTOCOL = {
    "contrast": "clahe",
    "augmentation": "imsahlo",
    "optimizer": "adamw",
    "weight_decay": 1e-4,
    "clip_norm": 1.0,
    "schedule": "plateau",
    "plateau_factor": 0.5,
    "plateau_patience": 5,
    "patience": 15,
    "select": "loss",
    "threshold": 0.5,
    "postprocess": "imsahlo",
}
SCALES = {
    "small": {
        "learning_rate": 1e-3,
        "crop": 96,
        "batch_size": 8,
        "num_steps": 400,
        "eval_every": 100,
        "save_every": 400,
    },
    "full": {
        "data": "tfds:fnc_v1/imsahlo_512x768",
        "learning_rate": 3e-4,
        "crop": 512,
        "batch_size": 16,
        "num_steps": 650,
        "eval_every": 13,  # an epoch
        "save_every": 130,
    },
}
WIDTH = {"small": 8, "full": 16}
COLUMNS = ("dice", "macro_f1", "accuracy", "precision", "recall", "iou")
COLUMNS += ("f1_iou", "f1_50", "mae")


def settings(options: Options) -> dict:
    """What all experiments of the paper share."""
    return PROTOCOL | SCALES[options.scale]


def study(options: Options) -> Study:
    members = {
        model: Experiment(
            **settings(options),
            model=model,
            model_options={"base_features": WIDTH[options.scale]},
            loss=(Term("imsahlo"),),
        )
        for model in LABELS
    }
    return Study(
        title=f"From residual U-Net to IMSAHLO (Table III), {options.scale} scale",
        members=members,
        seeds=(0, 1, 2),
        columns=COLUMNS,
        labels=LABELS,
        published=published_tables.imsahlo_models("imsahlo_table3"),
        **published_tables.told("imsahlo_table3", options),
        figures=functools.partial(network_figures.draw, labels=LABELS),
    )
