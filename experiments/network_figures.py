"""Figures of the tables that compare networks: learning rates, scores, cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import measures
import numpy as np

import fluojax
from fluojax import runs
from fluojax.data.record import Record
from fluojax.files import write_atomic
from fluojax.inference.files import display_rgb
from fluojax.report.figures import coloured, png_bytes, subplots
from fluojax.sweep.members import Member, by_configuration
from fluojax.train.journal import read_journal

CURVES = (
    ("train", "lr", "learning rate"),
    ("val", "loss", "validation loss"),
    ("val", "precision", "precision, validation"),
    ("val", "recall", "recall, validation"),
    ("val", "accuracy", "accuracy, validation"),
)


def draw(
    root: Path, members: Sequence[Member], labels: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Curves and cells of the first member of each configuration that worked."""
    worked = by_configuration([m for m in members if m.state == "done"])
    first = {name: group[0] for name, group in worked.items()}
    if not first:
        return []
    figures = root / "figures"
    write_atomic(figures / "schedules.png", _curves(first, labels))
    write_atomic(figures / "cells.png", _cells(first, labels))
    seeds = ", ".join(f"{name} {m.seed}" for name, m in first.items())
    return [
        (f"Learning rate and validation over steps, one seed each ({seeds})",
         "figures/schedules.png"),
        ("Two dense and two sparse test images: truth, then each network "
         "(one seed each), every cell in a colour of its own", "figures/cells.png"),
    ]  # fmt: skip


def _curves(first: Mapping[str, Member], labels: Mapping[str, str]) -> bytes:
    figure, (axes,) = subplots(1, len(CURVES), figsize=(4 * len(CURVES), 3.5))
    for name, member in first.items():
        journal = read_journal(member.folder / "metrics.jsonl")
        for axis, (split, key, text) in zip(axes, CURVES, strict=True):
            lines = [
                x for x in journal if x["split"] == split and x.get(key) is not None
            ]
            steps, values = ([x[k] for x in lines] for k in ("step", key))
            axis.plot(steps, values, linewidth=1, label=labels.get(name, name))
            axis.set(xlabel="step", ylabel=text)
    axes[0].legend(fontsize=6)
    return png_bytes(figure)


def _cells(first: Mapping[str, Member], labels: Mapping[str, str]) -> bytes:
    records = _dense_and_sparse(runs.read_config(next(iter(first.values())).folder))
    columns = len(first) + 2
    figure, axes = subplots(
        len(records), columns, figsize=(2 * columns, 2 * len(records))
    )
    for row, record in zip(axes, records, strict=True):
        row[0].imshow(display_rgb(record.image))
        row[1].imshow(coloured(record.instances), interpolation="nearest")
    for column, (name, member) in enumerate(first.items(), start=2):
        model = fluojax.load(member.folder)
        axes[0][column].set_title(labels.get(name, name), fontsize=6)
        for row, record in zip(axes, records, strict=True):
            found = model(record.image).instances
            row[column].imshow(coloured(found), interpolation="nearest")
    axes[0][0].set_title("image", fontsize=6)
    axes[0][1].set_title("truth", fontsize=6)
    for axis in axes.flat:
        axis.set_axis_off()
    return png_bytes(figure)


def _dense_and_sparse(config) -> list[Record]:
    """The two test images with most cells per pixel and the two with fewest."""
    records = [r for r in measures.test_records(config) if r.instances.any()]
    order = np.argsort([-r.instances.max() / r.instances.size for r in records])
    chosen = dict.fromkeys([*order[:2], *order[-2:]])
    return [records[k] for k in chosen]
