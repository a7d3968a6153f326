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
NOT_BUILT = {
    "losses": (
        "blob",
        "boundary",
        "cbdice",
        "cc_dice",
        "cldice",
        "contour_maps",
        "contour_weighted",
        "dici",
        "hausdorff_dt",
        "ici",
        "imsahlo_hybrid",
        "soft_skeleton",
        "spatial_moments",
        "topological_skeleton",
        "weight_maps",
    ),
    "ops": (
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
    ),
}


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
        "unknown",
        "fluocells_*",
        "output*",
        "weights in a .pth beside it; compared where networks load them",
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
