"""Figures and pages of a run; matplotlib is imported when the first is drawn."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluojax.files import write_atomic
from fluojax.inference.files import display_rgb


@dataclass(frozen=True)
class Panel:
    """One image with its truth and prediction."""

    title: str
    image: np.ndarray  # [H, W, C] as in the file
    true: np.ndarray  # [H, W] int32
    pred: np.ndarray  # [H, W] int32


def draw_panels(path: Path, panels: Sequence[Panel]) -> None:
    """Rows of image, truth, prediction and errors, as PNG.

    Errors: hit pixels white, missed ones blue, false ones orange, so that the
    three are told apart without telling red from green.
    """
    plt = _pyplot()
    tallest = max(panel.true.shape[0] / panel.true.shape[1] for panel in panels)
    size = (12, (3 * min(tallest, 1.5) + 0.3) * len(panels))
    figure, axes = plt.subplots(len(panels), 4, figsize=size, squeeze=False)
    for row, panel in zip(axes, panels, strict=True):
        count = f"{panel.true.max(initial=0)} cells"
        found = f"{panel.pred.max(initial=0)} cells"
        pictures = (
            (panel.title, display_rgb(panel.image)),
            (f"truth: {count}", _coloured(panel.true)),
            (f"prediction: {found}", _coloured(panel.pred)),
            ("missed blue, false orange", _errors(panel.true > 0, panel.pred > 0)),
        )
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    _save(figure, path)


def draw_curves(path: Path, journal: Sequence[Mapping[str, Any]]) -> None:
    """Loss, learning rate and validation scores over steps, as PNG."""
    plt = _pyplot()
    train = [line for line in journal if line["split"] == "train"]
    val = [line for line in journal if line["split"] == "val"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6))
    _plot(left, train, "loss", "train")
    _plot(left, val, "loss", "validation")
    left.set(xlabel="step", ylabel="loss", yscale="log")
    _plot(middle, train, "lr", "learning rate")
    middle.set(xlabel="step", ylabel="learning rate")
    for name in ("dice", "f1_iou", "f1_50"):
        _plot(right, val, name, name)
    right.set(xlabel="step", ylabel="validation score", ylim=(0, 1))
    for axis in (left, right):
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    _save(figure, path)


def draw_counts(path: Path, true: Sequence[int], pred: Sequence[int]) -> None:
    """Predicted over true counts per image with the line of equality, as PNG."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(4, 4))
    top = max([1, *true, *pred]) * 1.05
    axis.plot([0, top], [0, top], color="0.7", linewidth=1)
    axis.scatter(true, pred, s=12, alpha=0.7)
    axis.set(xlabel="cells, truth", ylabel="cells, predicted")
    axis.set(xlim=(0, top), ylim=(0, top))
    _save(figure, path)


def _coloured(instances: np.ndarray) -> np.ndarray:
    """Labels in colours that differ between neighbours, background black."""
    hues = np.arange(instances.max(initial=0) + 1) * 0.61803398875 % 1.0
    colours = _pyplot().get_cmap("hsv")(hues)[:, :3] * 0.6 + 0.4
    colours[0] = 0
    return colours[instances]


def _errors(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    picture = np.zeros((*true.shape, 3), np.float32)
    picture[true & pred] = 1.0
    picture[true & ~pred] = (0.25, 0.55, 1.0)
    picture[pred & ~true] = (1.0, 0.55, 0.1)
    return picture


def _plot(axis, lines, name: str, label: str) -> None:
    points = [(x["step"], x[name]) for x in lines if x.get(name) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), label=label, linewidth=1)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure, path: Path) -> None:
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    _pyplot().close(figure)
    write_atomic(path, buffer.getvalue())


# --- pages ------------------------------------------------------------------------

_ROWS = (
    ("dice", "Dice, pixels pooled", "{:.3f}"),
    ("iou", "IoU, pixels pooled", "{:.3f}"),
    ("f1_iou", "F1, IoU > {iou_threshold:g} (many-to-one)", "{:.3f}"),
    ("f1_distance", "F1, centres within {distance_px:g} px", "{:.3f}"),
    ("f1_50", "F1, IoU >= 0.5 (one-to-one)", "{:.3f}"),
    ("ap", "AP over IoU 0.5 ... 0.95", "{:.3f}"),
    ("pq", "panoptic quality", "{:.3f}"),
    ("aji", "aggregated Jaccard, mean of images", "{:.3f}"),
    ("mae", "count, mean absolute error", "{:.2f}"),
    ("medae", "count, median absolute error", "{:.2f}"),
    ("mpe", "count, mean percentage error (positive: too few)", "{:.1f} %"),
)


def score_table(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of every score, in the order of the pages."""
    rows = []
    for key, name, form in _ROWS:
        value = scores.get(key)
        text = "undefined" if value is None or value != value else form.format(value)
        rows.append((name.format(**scores), text))
    return rows


def markdown_report(title: str, facts: Mapping[str, str], scores: Mapping[str, Any],
                    worst: Sequence[str], figures: Sequence[str]) -> str:  # fmt: skip
    """A page that reads without our tools: facts, scores, worst images, figures."""
    lines = [f"# {escape(title)}", ""]
    lines += [f"- {name}: {escape(value)}" for name, value in facts.items()]
    lines += ["", "| score | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in score_table(scores)]
    counted = scores["n_images"] - scores["n_skipped"]
    lines += [
        "",
        f"{scores['n_images']} images; objects count against {scores['reference']}; "
        f"per-image means use {counted} images ({scores['n_skipped']} without cells in "
        "truth and prediction).",
    ]
    if scores["collapsed"]:
        lines += ["", "**The network predicts no cell on any image (collapsed).**"]
    if worst:
        lines += ["", "Worst images by object F1: " + ", ".join(map(escape, worst))]
    for name in figures:
        lines += ["", f"![{Path(name).stem}]({name})"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Names from disk as plain text in Markdown and HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
