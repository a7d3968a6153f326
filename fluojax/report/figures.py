"""Figures of a run as PNG; matplotlib is imported when the first is drawn."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluojax.files import write_atomic
from fluojax.inference.files import display_rgb

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One image with its truth and prediction."""

    title: str
    image: np.ndarray  # [H, W, C] or [D, H, W, C] as in the file
    true: np.ndarray  # [H, W] or [D, H, W] int32
    pred: np.ndarray  # as `true`


def draw_panels(path: Path, panels: Sequence[Panel]) -> None:
    """Writes `panels_png`."""
    write_atomic(path, panels_png(panels))


def draw_curves(path: Path, journal: Sequence[Mapping[str, Any]]) -> None:
    """Writes `curves_png`."""
    write_atomic(path, curves_png(journal))


def panels_png(panels: Sequence[Panel]) -> bytes:
    """`panels_figure` as PNG."""
    return png_bytes(panels_figure(panels))


def curves_png(journal: Sequence[Mapping[str, Any]]) -> bytes:
    """`curves_figure` as PNG."""
    return png_bytes(curves_figure(journal))


def panels_figure(panels: Sequence[Panel]) -> "Figure":
    """Rows of image, truth, prediction and errors.

    Errors: hit pixels white, missed ones blue, false ones orange, so that the
    three are told apart without telling red from green.
    """
    panels = [_flat(panel) for panel in panels]
    tallest = max(panel.true.shape[0] / panel.true.shape[1] for panel in panels)
    size = (12, (3 * min(tallest, 1.5) + 0.3) * len(panels))
    figure, axes = subplots(len(panels), 4, figsize=size)
    for row, panel in zip(axes, panels, strict=True):
        count, found = (_count(labels) for labels in (panel.true, panel.pred))
        pictures = (
            (panel.title, display_rgb(panel.image)),
            (f"truth: {count}", coloured(panel.true)),
            (f"prediction: {found}", coloured(panel.pred)),
            ("missed blue, false orange", _errors(panel.true > 0, panel.pred > 0)),
        )
        for axis, (title, picture) in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title.replace("$", r"\$"), fontsize=11)
            axis.set_axis_off()
    return figure


def curves_figure(journal: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss, learning rate and validation scores over steps."""
    train = [line for line in journal if line["split"] == "train"]
    val = [line for line in journal if line["split"] == "val"]
    figure, ((left, middle, right),) = subplots(1, 3, figsize=(13, 3.6))
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
    return figure


def counts_png(true: Sequence[int], pred: Sequence[int]) -> bytes:
    """Predicted over true counts per image with the line of equality."""
    figure, ((axis,),) = subplots(1, 1, figsize=(4, 4))
    top = max([1, *true, *pred]) * 1.05
    axis.plot([0, top], [0, top], color="0.7", linewidth=1)
    axis.scatter(true, pred, s=12, alpha=0.7)
    axis.set(xlabel="cells, truth", ylabel="cells, predicted")
    axis.set(xlim=(0, top), ylim=(0, top))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    return png_bytes(figure)


def f1_curve_png(thresholds: Sequence[float], f1: Sequence[float]) -> bytes:
    """Object F1 over the IoU from which a pair counts."""
    figure, ((axis,),) = subplots(1, 1, figsize=(5, 3.5))
    axis.plot(thresholds, f1, marker="o", markersize=4)
    axis.set(xlabel="IoU of a match", ylabel="F1, one-to-one", ylim=(0, 1))
    axis.grid(alpha=0.3)
    return png_bytes(figure)


def _count(labels: np.ndarray) -> str:
    cells = len(np.unique(labels[labels > 0]))
    return "1 cell" if cells == 1 else f"{cells} cells"


def _flat(panel: Panel) -> Panel:
    """Of a volume the slice with the most true foreground."""
    if panel.true.ndim == 2:
        return panel
    best = int(np.argmax((panel.true > 0).sum((1, 2))))
    parts = (panel.image, panel.true, panel.pred)
    return Panel(panel.title, *(part[best] for part in parts))


def coloured(instances: np.ndarray) -> np.ndarray:
    """Labels in colours that differ between neighbours, background black."""
    hues = np.arange(instances.max(initial=0) + 1) * 0.61803398875 % 1.0
    import matplotlib

    colours = matplotlib.colormaps["hsv"](hues)[:, :3] * 0.6 + 0.4
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


def subplots(rows: int, columns: int, *, figsize: tuple[float, float]):
    """A figure of its own and its axes `[rows, columns]`.

    Without pyplot, whose list of figures and choice of screen belong to the user.
    Twenty colours, since a study may have twelve rows: the usual ten, then lighter.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize)
    axes = figure.subplots(rows, columns, squeeze=False)
    pairs = colormaps["tab20"].colors
    for axis in axes.flat:
        axis.set_prop_cycle(color=pairs[::2] + pairs[1::2])
    return figure, axes


def png_bytes(figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
