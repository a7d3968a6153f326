r"""Does a spatial-moment term make local errors vanish sooner?

Source: the claim of "spatially aware, spatial-moment loss" for dense cells; no formula
was published, all moment losses here are our design (see their docstrings).
Data:   DSB2018 fluorescence (instances given; half of the images are dense), or any
        folder; --variant touching: generated cells of which half touch another one
Full:   fluojax sweep experiments/spatial_moments.py --scale full --data DATA \
            --workdir runs/spatial_moments
        c-ResUnet (1.7 M), crop 192, batch 16, 2,000 steps
Small:  the same without --scale: c-ResUnet of half the width, crop 128, batch 8, 400
        steps; about 4 minutes a member and core; generated cells without --data
Quick:  add --smoke

All rows have Dice + cross-entropy; beside the moment terms stand the competitors that
a fair comparison needs: a distance-based boundary loss and contour weights. Scales of
the local moments: d/16, d/8, d/4 of a median cell of 20 px, and 1 px for gaps; weights
of the other terms bring them near the value of Dice at the end. Equal steps for every
row; the hours of the members are in the report.
"""

import functools

import gradient_maps
import measures

from fluojax.config import Experiment, Term
from fluojax.sweep import Options, Study

REGION = (Term("cross_entropy_loss"), Term("dice_loss"))
VARIANTS = ("nuclei", "touching")
SCALES_PX = {"scales": (1.0, 2.0, 4.0)}
ROWS = {
    "region": REGION,
    "local_moments_1": (*REGION, Term("local_moment_loss", 1.0, SCALES_PX)),
    "local_moments_5": (*REGION, Term("local_moment_loss", 5.0, SCALES_PX)),
    "instance_moments": (*REGION, Term("instance_moment_loss", 0.1)),
    "global_moments": (*REGION, Term("global_moment_loss", 1.0)),
    "boundary": (*REGION, Term("boundary_loss", 0.01)),
    "contour": (*REGION, Term("contour_weighted_loss", 1.0)),
}
LABELS = {
    "region": "Dice + cross-entropy",
    "local_moments_1": "+ local moments, weight 1",
    "local_moments_5": "+ local moments, weight 5",
    "instance_moments": "+ moments of instances",
    "global_moments": "+ moments of the image",
    "boundary": "+ boundary loss (distances)",
    "contour": "+ contour-weighted loss",
}
# What the figure of gradients shows: each term by itself.
PULLS = {
    "cross-entropy": REGION[0],
    "Dice": REGION[1],
    **{LABELS[n].lstrip("+ "): ROWS[n][-1] for n in LABELS if n != "region"},
}
del PULLS[LABELS["local_moments_5"].lstrip("+ ")]  # the same but for its size
COMMON = {
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "threshold": 0.5,
    "touching_gap": 1,  # cells that touch are learned apart
    "postprocess_options": {"apart": True},
}
SCALES = {
    "small": {
        "model": "cresunet_nano",
        "crop": 128,
        "batch_size": 8,
        "num_steps": 400,
        "eval_every": 50,  # validation curves tell how soon errors vanish
        "save_every": 400,
    },
    "full": {
        "model": "cresunet",
        "crop": 192,
        "batch_size": 16,
        "num_steps": 2000,
        "eval_every": 100,
        "save_every": 500,
    },
}


def study(options: Options) -> Study:
    settings = COMMON | SCALES[options.scale]
    if options.variant == "touching":
        settings |= {"data": "fnc_synth/crowded"}
    return Study(
        title=f"Spatial-moment terms, {options.scale} scale",
        members={name: Experiment(**settings, loss=loss) for name, loss in ROWS.items()},
        columns=("f1_50", "f1_75", "f1_90", "boundary_f1", "f1_dense", "f1_sparse",
                 "splits_per_image", "merges_per_image", "misses_per_image", "dice",
                 "mae", "steps_to_95"),
        labels=LABELS,
        notes=(
            "f1 dense and f1 sparse: images in which at least half of the cells touch "
            "another one, and the others (one-to-one, IoU at least 0.5). steps to 95: "
            "first evaluation with 95 % of the best validation score.",
        ),
        measure=measures.borders_and_pace,
        figures=functools.partial(
            gradient_maps.draw, configuration="region", terms=PULLS
        ),
    )  # fmt: skip
