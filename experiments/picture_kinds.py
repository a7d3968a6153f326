"""Four kinds of pictures that fail in different ways, told apart from the truth.

The slides of the loss study name them after looking: medium, sharp objects; small
objects; uneven texture and filling; overcrowding. The limits here are ours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fluojax.data.fingerprint import cell_areas, equivalent_diameter, touching_cells
from fluojax.data.record import Record
from fluojax.files import write_atomic
from fluojax.inference.evaluation import f1
from fluojax.report.figures import Panel, draw_panels, png_bytes, subplots
from fluojax.sweep.members import Member, by_configuration

KINDS = (
    "overcrowding",
    "small objects",
    "uneven texture and filling",
    "medium, sharp objects",
)
CROWDED = 0.5  # share of cells that touch another one
SMALL = 0.7  # of the median diameter of the whole data set
UNEVEN = 0.35  # sd of the intensity inside a cell, relative to its mean


def kind_of(record: Record, typical_diameter: float) -> str:
    """The first of the kinds that fits a picture with cells."""
    areas = cell_areas(record.instances)
    if touching_cells(record.instances) >= CROWDED * len(areas):
        return KINDS[0]
    diameter = equivalent_diameter(float(np.median(areas)), record.instances.ndim)
    if diameter < SMALL * typical_diameter:
        return KINDS[1]
    return KINDS[2] if unevenness(record) > UNEVEN else KINDS[3]


def unevenness(record: Record) -> float:
    """Median over the cells of the spread of intensity within a cell, over its mean."""
    grey = record.image.astype(float).mean(-1).ravel()
    labels = record.instances.ravel()
    count = np.maximum(np.bincount(labels)[1:], 1)
    mean = np.bincount(labels, grey)[1:] / count
    square = np.bincount(labels, grey**2)[1:] / count
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return float(np.median(spread / np.maximum(mean, 1e-6)))


def draw_scores(
    path: Path,
    kinds: Mapping[str, str],
    members: Sequence[Member],
    labels: Mapping[str, str],
) -> str:
    """Object F1 (IoU at least 0.5) by kind of picture, a group of bars for each kind.

    Args:
      kinds: of an image's name.

    Returns:
      A caption with the number of pictures of each kind.
    """
    present = [kind for kind in KINDS if kind in kinds.values()]
    groups = by_configuration(members)
    figure, ((axis,),) = subplots(1, 1, figsize=(9, 4))
    width = 0.8 / max(len(groups), 1)
    for k, (name, group) in enumerate(groups.items()):
        means = [np.mean([_f1(m, kinds, kind) for m in group]) for kind in present]
        places = np.arange(len(present)) + k * width
        axis.bar(places, means, width, label=labels.get(name, name))
    axis.set_xticks(np.arange(len(present)) + 0.4 - width / 2, present, fontsize=8)
    axis.set(ylabel="F1 (IoU at least 0.5), mean over seeds", ylim=(0, 1))
    axis.legend(fontsize=6, ncols=3)
    write_atomic(path, png_bytes(figure))
    told = ", ".join(f"{list(kinds.values()).count(k)} {k}" for k in present)
    return f"Scores by kind of picture ({told})"


def _f1(member: Member, kinds: Mapping[str, str], kind: str) -> float:
    inside = np.array([kinds.get(name) == kind for name in member.images])
    tp, fp, fn = (
        int(member.counts[f"{n}_50"][inside].sum()) for n in ("tp", "fp", "fn")
    )
    return float(np.nan_to_num(f1(tp, fp, fn)))


def draw_examples(path: Path, kinds: Mapping[str, str], member: Member, predict) -> str:
    """A row for each kind: its picture of middle F1 with one member's cells.

    Args:
      kinds: of an image's name.
      predict: `f(name) -> (record, labels)`.

    Returns:
      A caption.
    """
    tp, fp, fn = (member.counts[f"{n}_50"] for n in ("tp", "fp", "fn"))
    by_name = dict(zip(member.images, np.nan_to_num(f1(tp, fp, fn)), strict=True))
    panels = []
    for kind in KINDS:
        names = sorted(
            (n for n in member.images if kinds.get(n) == kind), key=by_name.get
        )
        if names:
            record, found = predict(names[len(names) // 2])
            panels.append(Panel(kind, record.image, record.instances, found))
    draw_panels(path, panels)
    return f"The picture of middle F1 of each kind ({member.configuration}, seed {member.seed})"
