"""Every stored record that fluojax does not reproduce, and why.

A record that is neither answered nor excused here fails the run. Conditions
look at the inputs of a record rather than at its case, so that they also hold
for other vectors of the same format.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from typing import NamedTuple

import numpy as np

Archive = Mapping[str, np.ndarray]

# What `meta` of an archive of operators names as its `op`.
OPERATORS = (
    "ccl",
    "clahe",
    "edt",
    "filters",
    "fluocells_postprocess",
    "geometric",
    "holes_and_small_objects",
    "menten_skeleton",
    "moments",
    "morphology",
    "peaks",
    "resize_area",
    "skeletonize",
    "soft_morphology",
    "soft_skeleton",
    "watershed",
    "weight_maps",
)

# Families without a function yet; an entry goes when its family is built.
NOT_BUILT: dict[str, tuple[str, ...]] = {}


def always(archive: Archive, record: str) -> bool:
    return True


def _labels(archive: Archive, record: str) -> np.ndarray:
    return archive[f"inputs/{record.split('/')[0]}/labels"]


def class_absent(archive: Archive, record: str) -> bool:
    """Some class has no pixel in some image."""
    labels = _labels(archive, record)
    pixels = tuple(range(1, labels.ndim - 1))
    return bool(np.any(labels.sum(axis=pixels) == 0))


def soft_labels(archive: Archive, record: str) -> bool:
    """Labels strictly between 0 and 1 occur."""
    labels = _labels(archive, record)
    return bool(np.any((labels > 0) & (labels < 1)))


def clipped(archive: Archive, record: str) -> bool:
    """Logits lie beyond a probability of 1e-7 from 0 or 1."""
    logits = archive[f"inputs/{record.split('/')[0]}/logits"]
    return bool(np.any(np.abs(logits) > 16.0))


def volume(archive: Archive, record: str) -> bool:
    """The image of a case of an operator is three-dimensional."""
    return archive[f"{record.split('.')[0]}.in_x"].ndim == 3


def no_background(archive: Archive, record: str) -> bool:
    """Every pixel of the label map of a case belongs to an object."""
    return bool(np.all(archive[f"{record.split('.')[0]}.in_labels"]))


def distance_to_nowhere(archive: Archive, record: str) -> bool:
    """A distance, or what follows from it before the objects, without background."""
    case, output = record.split(".out_")
    stages = ("distance", "maxfilt", "peaks", "markers")
    return output in stages and bool(np.all(archive[f"{case}.out_processed"]))


class Rule(NamedTuple):
    family: str
    stem: str  # patterns as in a shell
    record: str
    reason: str
    when: Callable[[Archive, str], bool] = always


RULES = (
    Rule(
        "losses",
        "dice",
        "*/smp_*/*",
        "SMP sets an absent class to 0",
        class_absent,
    ),
    Rule(
        "losses",
        "focal_tversky",
        "*/smp_*/*",
        "SMP sets an absent class to 0",
        class_absent,
    ),
    Rule(
        "losses",
        "focal_tversky",
        "*/ufl_repo_*/*",
        "the unified focal program clips probabilities at 1e-7",
        clipped,
    ),
    Rule(
        "losses",
        "focal",
        "*/sigmoid_alpha*/*",
        "SMP extends p_t to soft labels in another way",
        soft_labels,
    ),
    Rule(
        "losses",
        "tversky",
        "*/imsahlo_eq4_as_printed/*",
        "degenerate as printed: 1/2 whatever the prediction",
    ),
    Rule(
        "losses",
        "generalized_dice",
        "*/kervadec_two_class/*",
        "an absent class has weight 1e20 there: another loss",
    ),
    Rule("losses", "generalized_dice", "*/optax/*", "a mean of Dice: another loss"),
    Rule(
        "losses",
        "unified_focal",
        "*",
        "the unified focal program clips probabilities at 1e-7",
        clipped,
    ),
    Rule(
        "losses",
        "hausdorff_dt",
        "*/kervadec_one_sided/*",
        "distances on the inside only: errors far outside are free",
    ),
    Rule(
        "losses",
        "cldice",
        "*/monai_*/*",
        "MONAI adds 1e-4 to the harmonic mean and pools the classes",
    ),
    Rule(
        "losses",
        "cbdice",
        "*/cl_m_dice_*/*",
        "clDice weighted by masks is no part of cbDice",
    ),
    Rule(
        "losses",
        "cbdice",
        "*/hard_skeleton_cldice_*/*",
        "clDice of hard skeletons is no part of cbDice",
    ),
    Rule(
        "losses",
        "soft_skeleton",
        "*/keras_folder_*/*",
        "the Keras program erodes with planes, the PyTorch one with lines",
    ),
    Rule(
        "ops",
        "soft_skeleton",
        "keras_*",
        "the Keras program erodes with planes, the PyTorch one with lines",
    ),
    Rule(
        "ops",
        "menten_skeleton",
        "stoch_*_EulerCharacteristic.out_grad",
        "in 3-D the program's float32 Euler numbers are off by 1e-6, "
        "which lets slopes through that are 0",
        volume,
    ),
    Rule(
        "losses",
        "blob",
        "*/blob_term_*_logit/*",
        "the program removes pixels by logit 0, which makes p = 1/2",
    ),
    Rule(
        "losses",
        "blob",
        "*/unmasked_*",
        "an ablation: other instances stay in the domain",
    ),
    Rule(
        "losses",
        "blob",
        "*/total_main0_*",
        "in the program a weight of 0 switches the other off",
    ),
    Rule(
        "losses",
        "blob",
        "*/total_*_blob0/*",
        "in the program a weight of 0 switches the other off",
    ),
    Rule(
        "losses",
        "*ici",
        "*/sigmoid_activation_*",
        "thresholded probabilities: no term but the global one has a gradient",
    ),
    Rule(
        "losses",
        "*ici",
        "*/max_cc_out2_*",
        "the program drops components beyond a bound in another order",
    ),
    Rule(
        "ops",
        "peaks",
        "*.out_coords_nolabel",
        "found with a least distance and a threshold that the archive does not name",
    ),
    Rule(
        "ops",
        "fluocells_postprocess",
        "*",
        "without background the arbiter measures to a point outside the image",
        distance_to_nowhere,
    ),
    Rule(
        "ops",
        "weight_maps",
        "*.out_wc",
        "an image without background has weight 0 there, one without cells 1; ours 1",
        no_background,
    ),
)


def reason(family: str, stem: str, record: str, archive: Archive) -> str | None:
    """Why `record` is not reproduced, or None."""
    if stem in NOT_BUILT.get(family, ()):
        return f"not built yet: {stem}"
    for rule in RULES:
        fits = family == rule.family and fnmatch(stem, rule.stem)
        if fits and fnmatch(record, rule.record) and rule.when(archive, record):
            return rule.reason
    return None
