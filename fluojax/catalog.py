"""One line and the paper of everything that has a name.

Standard library only: `fluojax list` and the refusal of a misspelt name answer
without importing jax. A test holds these names equal to the registries.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """A line on what it is, and its source."""

    line: str
    paper: str = ""


LOSSES = {
    'bce_w100': Entry('', ''),
    'bce_w100_fluocells': Entry('', ''),
    'bce_w200': Entry('', ''),
    'bce_w200_fluocells': Entry('', ''),
    'bce_w50': Entry('', ''),
    'bce_w50_fluocells': Entry('', ''),
    'combined_balanced': Entry('', ''),
    'combined_balanced_fluocells': Entry('', ''),
    'combined_cellvit': Entry('', ''),
    'combined_cellvit_fluocells': Entry('', ''),
    'combined_focal_tversky_loss': Entry('', ''),
    'combined_ft_balanced': Entry('', ''),
    'combined_ft_balanced_fluocells': Entry('', ''),
    'combined_ft_cellvit': Entry('', ''),
    'combined_ft_cellvit_fluocells': Entry('', ''),
    'combined_ft_overcrowd': Entry('', ''),
    'combined_ft_overcrowd_fluocells': Entry('', ''),
    'combined_loss': Entry('', ''),
    'combined_overcrowd': Entry('', ''),
    'combined_overcrowd_fluocells': Entry('', ''),
    'cross_entropy_loss': Entry('', ''),
    'dice': Entry('', ''),
    'dice_fluocells': Entry('', ''),
    'dice_loss': Entry('', ''),
    'focal': Entry('', ''),
    'focal_fluocells': Entry('', ''),
    'focal_imsahlo': Entry('', ''),
    'focal_loss': Entry('', ''),
    'focal_retinanet': Entry('', ''),
    'focal_tversky': Entry('', ''),
    'focal_tversky_fluocells': Entry('', ''),
    'focal_tversky_loss': Entry('', ''),
    'focal_tversky_slides': Entry('', ''),
    'jaccard_loss': Entry('', ''),
    'power_mae_loss': Entry('', ''),
    'tversky_imsahlo': Entry('', ''),
    'tversky_loss': Entry('', ''),
    'weighted_sum': Entry('', ''),
}

MODELS = {
    'cresunet': Entry('c-ResUnet: residual U-Net with a colour projection and a 5x5 bottleneck', 'Morelli et al., Scientific Reports 2021'),
    'cresunet_nano': Entry('c-ResUnet at half the width, 0.4 M parameters', 'Morelli et al., Scientific Reports 2021'),
    'unet': Entry('U-Net with padding and batch norm, 31 M parameters', 'Ronneberger et al., MICCAI 2015'),
    'unet_nano': Entry('U-Net at an eighth of the width, 0.5 M parameters', 'Ronneberger et al., MICCAI 2015'),
    'unet_small': Entry('U-Net at half the width, 7.8 M parameters', 'Ronneberger et al., MICCAI 2015'),
    'unet_tiny': Entry('U-Net at a quarter of the width, 1.9 M parameters', 'Ronneberger et al., MICCAI 2015'),
}

METRICS = {
}

DATA = {
    'fnc_synth': Entry('generated fluorescence images, 200/40/60; also fnc_synth/demo, fnc_synth/smoke', 'after Morelli et al. 2021'),
    'tfds:fnc_synth': Entry('the same, built once by tfds', ''),
    'FOLDER': Entry('a folder of images with masks: images/ + masks/, Cellpose, DSB2018', ''),
}

CATALOG = {"losses": LOSSES, "models": MODELS, "metrics": METRICS, "data": DATA}
