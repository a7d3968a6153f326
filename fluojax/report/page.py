"""What a run did, from the files in its folder: blocks of a page.

The page needs results.json (or scores.json), per_image.csv, config.json and the
figures; not the data, nor the checkpoints, so it can be made again anywhere.
Of folders it shows the last name only.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluojax import config as configs
from fluojax.config import Experiment
from fluojax.data.sources import is_named
from fluojax.report.blocks import Block, Code, Figure, Heading, Note, Paragraph, Table

SHOWN = 200  # images in the table of a page; per_image.csv holds all
FIGURES = {
    "curves": "Loss, learning rate and validation scores over the training steps.",
    "best": "The best image by object F1.",
    "median": "The image in the middle by object F1.",
    "worst": "The worst images by object F1.",
    "counts": "Cells per image, predicted over true; on the line both are equal.",
    "f1_curve": "Object F1 over the IoU from which a pair of objects counts.",
}
_PLACES = ("data", "manual_dir", "workdir")
# Score -> text and format.
_SCORES = {
    "dice": ("Dice, pixels pooled", "{:.3f}"),
    "iou": ("IoU, pixels pooled", "{:.3f}"),
    "f1_iou": ("F1, IoU > {iou_threshold:g} (many-to-one)", "{:.3f}"),
    "f1_distance": ("F1, centres within {distance_px:g} px", "{:.3f}"),
    "f1_50": ("F1, IoU >= 0.5 (one-to-one)", "{:.3f}"),
    "ap": ("AP over IoU 0.5 ... 0.95", "{:.3f}"),
    "pq": ("panoptic quality", "{:.3f}"),
    "aji": ("aggregated Jaccard, mean of images", "{:.3f}"),
    "mae": ("count, mean absolute error", "{:.2f}"),
    "medae": ("count, median absolute error", "{:.2f}"),
    "mpe": ("count, mean percentage error (positive: too few)", "{:.1f} %"),
}


def run_page(
    folder: Path,
    results: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, str]],
    *,
    experiment: Experiment | None = None,
) -> list[Block]:
    """Blocks of the page of a run, or of an evaluation of one.

    Args:
      folder: with the subfolder `figures`; those that are there are shown.
      results: of results.json; None where the run has not finished.
      rows: of per_image.csv.
      experiment: of the run, None where masks of folders were compared.
    """
    page: list[Block] = []
    if experiment is not None:
        page += _what_was_run(experiment, results)
    if results is None:
        page += [Note("The run has not finished: there are no scores yet.")]
    else:
        page += _scores(results["scores"], results["split"])
    page += _figures(folder, "curves", heading="Training")
    page += _figures(folder, "best", "median", "worst", heading="Images")
    if results is not None:
        page += _f1_curve(folder, results["scores"])
        page += _figures(folder, "counts", heading="Counts")
        page += _failures(results["scores"], rows)
        page += _per_image(rows)
        page += _cost(results)
    if experiment is not None:
        page += _repeat(experiment, results)
    return page


def score_table(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of every score, in the order of the pages."""
    return [(name, value) for name, value, _ in score_intervals(scores)]


def score_intervals(scores: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, 95 % interval) of every score, in the order of the pages."""
    rows = []
    for key, (name, form) in _SCORES.items():
        span = scores.get("intervals", {}).get(key)
        interval = " to ".join(form.format(x) for x in span) if span else "undefined"
        value = _formatted(scores.get(key), form)
        rows.append((name.format(**scores), value, interval))
    return rows


def run_title(folder: Path, config: Experiment) -> str:
    """Data, network, loss and the name of the run folder."""
    loss = "+".join(term.name.removesuffix("_loss") for term in config.loss)
    return f"{data_name(config.data)}, {config.model}, {loss} ({folder.name})"


def read_rows(text: str) -> list[dict[str, str]]:
    """Rows of per_image.csv."""
    return list(csv.DictReader(io.StringIO(text)))


def differences(config: Experiment) -> list[tuple[str, str]]:
    """Fields of an experiment that are not at their defaults, places left out."""
    default, given = (_flat(configs.to_dict(c)) for c in (Experiment(), config))
    return [
        (name, _plain(value))
        for name, value in given.items()
        if name.split(".")[0] not in _PLACES and value != default.get(name)
    ]


def loss_text(config: Experiment) -> str:
    """`1 cross_entropy_loss + 0.5 dice_loss`."""
    return " + ".join(f"{term.weight:g} {term.name}" for term in config.loss)


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def data_name(data: str) -> str:
    """A data set by its name, a folder by the last part of its path."""
    return data if is_named(data) else Path(data).name


def _what_was_run(config: Experiment, results) -> list[Block]:
    facts = [
        ("data", data_name(config.data)),
        ("model", config.model),
        ("loss", loss_text(config)),
        ("seed", str(config.seed)),
    ]
    if results is not None:
        facts += _known(results, "steps", "best_step", "threshold")
    shown = {"model", "loss", "seed"}
    changed = [row for row in differences(config) if row[0] not in shown]
    page: list[Block] = [Heading("What was run"), Table(("field", "value"), facts)]
    if changed:
        page += [
            Paragraph("Fields of the experiment that differ from the defaults:"),
            Table(("field", "value"), changed),
        ]
    return page


def _known(results: Mapping[str, Any], *names: str) -> list[tuple[str, str]]:
    texts = {name: _plain(results[name]) for name in names if name in results}
    return [(name.replace("_", " "), text) for name, text in texts.items()]


def _scores(scores: Mapping[str, Any], split: str) -> list[Block]:
    rows = score_intervals(scores)
    page: list[Block] = [
        Heading(f"Scores on {split}"),
        Table(("score", "value", "95 % interval"), rows),
        Paragraph(
            f"{scores['n_images']} images; objects count against "
            f"{scores['reference']}; {scores['n_skipped']} without cells in truth and "
            "prediction. Intervals: the images drawn again 2,000 times (bootstrap)."
        ),
    ]
    if scores["collapsed"]:
        page += [Note("The network predicts no cell on any image (collapsed).")]
    return page


def _formatted(value: float | None, form: str) -> str:
    undefined = value is None or math.isnan(value)
    return "undefined" if undefined else form.format(value)


def _figures(folder: Path, *names: str, heading: str) -> list[Block]:
    found: list[Block] = []
    for name in names:
        path = folder / "figures" / f"{name}.png"
        if path.is_file():
            found.append(
                Figure(f"figures/{path.name}", path.read_bytes(), FIGURES[name])
            )
    return [Heading(heading), *found] if found else []


def _f1_curve(folder: Path, scores: Mapping[str, Any]) -> list[Block]:
    curve = scores.get("f1_curve")
    if not curve:
        return []
    header = [f"IoU {iou:.2f}" for iou in curve["iou"]]
    values = [_formatted(value, "{:.3f}") for value in curve["f1"]]
    page = _figures(folder, "f1_curve", heading="F1 over IoU")
    return [*page, Table(header, [values])]


def _failures(scores: Mapping[str, Any], rows) -> list[Block]:
    none_hit = [
        r["image"] for r in rows if int(r["n_true"]) and r["f1_50"] in ("", "0")
    ]
    invented = [r["image"] for r in rows if not int(r["n_true"]) and int(r["n_pred"])]
    page: list[Block] = [Heading("Failures")]
    for names, what in (
        (none_hit, "with cells of which none was found (IoU >= 0.5)"),
        (invented, "without cells in which some were predicted"),
    ):
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            listed = ", ".join(names[:10]) + more
            page.append(Paragraph(f"{len(names)} images {what}: {listed}"))
    if len(page) == 1:
        page.append(
            Paragraph("No image without any hit, and none with cells invented.")
        )
    return page


def _per_image(rows: Sequence[Mapping[str, str]]) -> list[Block]:
    if not rows:
        return []
    names = ("image", "n_true", "n_pred", "dice", "f1_iou", "f1_50", "aji")
    ordered = sorted(rows, key=lambda row: float(row["f1_50"] or math.inf))
    table = [[_short(row[name]) for name in names] for row in ordered[:SHOWN]]
    text = f"{len(rows)} images, worst first"
    if len(rows) > SHOWN:
        text += f"; the first {SHOWN}, all are in per_image.csv"
    header = [name.replace("_", " ") for name in names]
    return [Heading("Every image"), Table(header, table, folded=text)]


def _short(cell: str) -> str:
    """A number of the file to three places; names stay as they are."""
    try:
        return f"{float(cell):.3f}" if "." in cell else cell
    except ValueError:
        return cell


def _cost(results: Mapping[str, Any]) -> list[Block]:
    devices = results.get("devices", [])
    facts = _known(results, "hours")
    if devices:
        kinds = sorted({f"{devices.count(kind)} x {kind}" for kind in devices})
        facts.append(("devices", ", ".join(kinds)))
    facts += _known(results, "precision", "fluojax", "commit", "jax", "python")
    return [Heading("Cost"), Table(("", ""), facts)] if facts else []


def _repeat(config: Experiment, results) -> list[Block]:
    data = data_name(config.data)
    lines = [f"fluojax train config.json --data {data} --workdir runs/again"]
    if results is not None and results["split"] != "all":
        lines.append(f"fluojax evaluate runs/again --split {results['split']}")
    return [
        Heading("How to repeat"),
        Paragraph("With config.json of the run folder, and the data at hand:"),
        Code("\n".join(lines)),
    ]
