r"""Nine networks under one protocol, and two more.

Source: IMSAHLO, arXiv 2601.11645, Table II; protocol as in ladder.py.
Data:   FNC v1 (283 images) at 512 x 768, grey (tfds:fnc_v1/imsahlo_512x768).
Full:   fluojax sweep experiments/architectures.py --scale full --workdir \
            runs/architectures
        published sizes (1.5 M to 105 M parameters), batch 16, 50 epochs (650 steps)
Small:  the same without --scale [--data DATA]: generated cells, the small variant of
        each network, crop 96, batch 8, 400 steps; 2 to 8 minutes a member
Quick:  add --smoke

The paper does not say with which loss the baselines were trained. Ours: its hybrid
for every network; --variant dice_bce trains all with Dice + cross-entropy. Networks of
105 M and of 1.5 M parameters stand in one table there; here parameters, operations and
speed have columns.
"""

import functools

import ladder
import measures
import network_figures
import published_tables

from fluojax.config import Experiment, Term
from fluojax.sweep import Options, Study

VARIANTS = ("hybrid", "dice_bce")
LOSSES = {
    "hybrid": (Term("imsahlo"),),
    "dice_bce": (Term("dice_loss"), Term("cross_entropy_loss")),
}
# Label, network at full scale, its small variant; the last two are ours besides.
NETWORKS = {
    "unet": ("U-Net", "unet", "unet_nano"),
    "unetpp": ("U-Net++", "unetpp", "unetpp_nano"),
    "attention_unet": ("Attention U-Net", "attention_unet", "attention_unet_nano"),
    "deeplabv3plus": ("DeepLabV3+", "deeplabv3plus", "deeplabv3plus_r34"),
    "mobilevit": ("MobileViT", "mobilevit", "mobilevit_xxs"),
    "transunet": ("TransUNet", "transunet", "transunet_small"),
    "unext": ("UNeXt", "unext", "unext_s"),
    "dtasunet": ("DTASUNet (our reconstruction)", "dtasunet", "dtasunet_small"),
    "imsahlo": ("IMSAHLO", "imsahlo", "imsahlo"),
    "cresunet": ("c-ResUnet (ours besides)", "cresunet", "cresunet_nano"),
    "resenc_unet": ("ResEnc U-Net (ours besides)", "resenc_unet", "resenc_unet_small"),
}


def study(options: Options) -> Study:
    loss = LOSSES[options.variant or "hybrid"]
    full = options.scale == "full"
    labels = {name: label for name, (label, _, _) in NETWORKS.items()}
    members = {
        name: Experiment(
            **ladder.settings(options), model=large if full else small, loss=loss
        )
        for name, (_, large, small) in NETWORKS.items()
    }
    return Study(
        title=f"Nine networks and two more (Table II), {options.scale} scale",
        members=members,
        seeds=(0, 1, 2),
        columns=(*ladder.COLUMNS, "gflops", "images_per_s"),
        labels=labels,
        published=published_tables.imsahlo_models("imsahlo_table2"),
        **published_tables.told("imsahlo_table2", options),
        measure=measures.cost,
        figures=functools.partial(network_figures.draw, labels=labels),
    )
