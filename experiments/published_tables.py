"""Published values of `published/*.json` by configuration, as a `Study` takes them."""

import json
from pathlib import Path
from typing import Any

from fluojax.sweep import Options, Published

FOLDER = Path(__file__).resolve().parent / "published"
Values = dict[str, dict[str, Published]]


def read(name: str) -> dict[str, Any]:
    """The contents of one file: `source`, `rows`, `notes` and more."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def loss_study(variant: str) -> Values:
    """Slides or program (the values that the authors' own notebook stores)."""
    values: Values = {}
    for row in read("loss_study")["rows"]:
        notebook = row["notebook"]
        theirs = row["slides"] if variant == "slides" else notebook
        runs = {"f1_iou": notebook["n_f1"], "f1_distance": notebook["n_f1"]}
        values[row["preset"][variant]] = {
            score: Published(
                theirs[score]["mean"],
                theirs[score]["sd"],
                runs.get(score, notebook["n_planned"]),
            )
            for score in ("f1_iou", "f1_distance", "mae", "medae", "mpe")
        }
    return values


def imsahlo_models(table: str) -> Values:
    """Validation scores of Table II or III by model; single runs without sd."""
    columns = {"f1": "dice", "macro_f1": "macro_f1", "accuracy": "accuracy"}
    columns |= {"precision": "precision", "recall": "recall"}
    return {
        row["model"]: {
            ours: Published(row["validation"][theirs], None, 1)
            for theirs, ours in columns.items()
        }
        for row in read(table)["rows"]
    }


def imsahlo_terms() -> Values:
    """Table IV by the terms of the hybrid joined with +."""
    columns = {"dsc": "dice", "macro_f1": "macro_f1", "iou": "iou"}
    return {
        "+".join(row["terms"]): {
            ours: Published(row[theirs], None, 1) for theirs, ours in columns.items()
        }
        for row in read("imsahlo_table4")["rows"]
    }


def told(name: str, options: Options) -> dict[str, Any]:
    """What a `Study` tells of the values of a file: source, comparable, notes.

    The notes begin with a warning where our protocol is not the source's.
    """
    file = read(name)
    comparable = options.scale == "full" and options.data is None and not options.smoke
    notes = tuple(file["notes"])
    if not comparable:
        warning = (
            f"Not the published protocol: the published values are of {file['data']}; a "
            "difference to them says nothing about whether they can be reproduced."
        )
        notes = (warning, *notes)
    return {"source": file["source"], "comparable": comparable, "notes": notes}
