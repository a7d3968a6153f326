"""`fluojax export`: a run as files for others.

OUT/model.safetensors   weights and what using them needs
OUT/config.json         the experiment
OUT/README.md           the model card
"""

from pathlib import Path

import jax

from fluojax import config as configs
from fluojax import runs
from fluojax.console import Console
from fluojax.errors import UserError
from fluojax.exported import read_weights, write_weights
from fluojax.files import to_json, write_atomic
from fluojax.runs import Run

FORMATS = ("safetensors",)
_SCORES = (
    ("dice", "Dice"),
    ("f1_iou", "object F1"),
    ("f1_50", "object F1 at IoU 0.5, one-to-one"),
    ("mae", "counting error (MAE)"),
)


def export(
    folder: str | Path, kind: str, out: str | Path | None, console: Console
) -> Path:
    """Writes the files and returns their folder.

    Raises:
      UserError: no run, an unknown format, or files that cannot be read back.
    """
    if kind not in FORMATS:
        raise UserError(f"--to: must be one of {', '.join(FORMATS)}, got {kind!r}")
    run = runs.open_run(folder)
    out = Path(out) if out else run.folder / "export"
    path = out / "model.safetensors"
    write_weights(run, path)
    read = read_weights(path)
    write_atomic(out / "config.json", to_json(configs.to_dict(read.config)))
    write_atomic(out / "README.md", card(read, runs.read_results(run.folder)))
    console.line(
        f"{path}: {run.config.model}, step {run.step}; fluojax.load({str(path)!r})"
    )
    return out


def card(run: Run, results: dict | None) -> str:
    """The model card in Markdown."""
    config = run.config
    count = sum(x.size for x in jax.tree.leaves(run.variables["params"]))
    lines = [
        f"# {config.model}, trained with fluojax",
        "",
        "Segments cells in microscopy images: one probability per pixel.",
        "",
        f"- Architecture: `{config.model}`, {count:,} parameters, "
        f"{run.channels} channel(s), options {dict(config.model_options)}",
        f"- Loss: {' + '.join(term.name for term in config.loss)}",
        f"- Training data: `{config.data}`, {run.step} steps of batch "
        f"{config.batch_size}, seed {config.seed}",
        f"- Intensities: scaling `{config.scaling}`; threshold {run.threshold:g}; "
        f"post-processing `{config.postprocess}`",
        f"- Median cell diameter in training: {run.diameter:g} px",
        "",
        "## Scores",
        "",
    ]
    scores = (results or {}).get("scores", {})
    known = [
        (text, scores[key]) for key, text in _SCORES if scores.get(key) is not None
    ]
    if known:
        lines.append(f"On the split `{results['split']}` of the training data set:")
        lines += ["", *(f"- {text}: {value:.3f}" for text, value in known)]
    else:
        lines.append("None recorded.")
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "import fluojax",
        "",
        'model = fluojax.load("model.safetensors")',
        "found = model(image)  # found.instances, found.probs, found.table",
        "```",
        "",
        "## Limits",
        "",
        "Trained on the data named above and on nothing else; other markers,",
        "magnifications, exposures or cameras need a check against labelled images.",
        "Not for diagnosis. Licence of these weights, and of the data they were",
        "trained on: to be stated by whoever shares them.",
        "",
    ]
    return "\n".join(lines)
