"""`fluojax export`: a run as files for others.

OUT/model.safetensors   weights and what using them needs, or
OUT/model.jaxexport     the program for CPU, CUDA and TPU, and OUT/model.json
OUT/config.json         the experiment
OUT/README.md           the model card
"""

from pathlib import Path

import jax

from fluojax import catalog, exported_program, runs
from fluojax import config as configs
from fluojax.console import Console
from fluojax.errors import UserError, nearest
from fluojax.exported import read_weights, without_places, write_weights
from fluojax.files import to_json, write_atomic
from fluojax.report import escape, score_intervals
from fluojax.runs import Run

FORMATS = {"safetensors": ".safetensors", "jax": exported_program.SUFFIX}


def export(
    folder: str | Path, kind: str, out: str | Path | None, console: Console,
    *, license_name: str | None = None,
) -> Path:  # fmt: skip
    """Writes the files and returns their folder.

    Args:
      folder: of the run.
      kind: one of `FORMATS`.
      out: folder, by default `RUN/export`.
      console: where the result is told.
      license_name: under which the weights are shared, for the card.

    Raises:
      UserError: no run, an unknown format, or files that cannot be read back.
    """
    if kind not in FORMATS:
        raise UserError(
            f"--to: must be one of {', '.join(FORMATS)}, got {kind!r}"
            f"{nearest(kind, FORMATS)}"
        )
    run = runs.open_run(folder)
    out = Path(out) if out else run.folder / "export"
    path = out / f"model{FORMATS[kind]}"
    if kind == "jax":
        exported_program.write_program(run, path)
        exported_program.read_program(path)
    else:
        write_weights(run, path)
        read_weights(path)
    config = without_places(run.config)
    write_atomic(out / "config.json", to_json(configs.to_dict(config)))
    results = runs.read_results(run.folder)
    write_atomic(out / "README.md", card(run, results, path.name, license_name))
    console.line(
        f"{path}: {run.config.model}, step {run.step}; fluojax.load({str(path)!r})"
    )
    return out


def card(run: Run, results: dict | None, file: str, license_name: str | None) -> str:
    """The model card in Markdown."""
    config = without_places(run.config)
    count = sum(x.size for x in jax.tree.leaves(run.variables["params"]))
    kind = "images" if run.rank == 2 else "volumes"
    intensity = "not recorded"
    if run.intensity is not None:
        intensity = "{:g} to {:g} (1st to 99.8th percentile)".format(*run.intensity)
    options = f", options {dict(config.model_options)}" if config.model_options else ""
    post = ", ".join(
        f"{k} {v}" for k, v in configs.postprocess_settings(config).items()
    )
    return f"""# {config.model}, trained with fluojax

Segments cells in microscopy {kind}: one probability per pixel, then labels.

- Architecture: `{config.model}`, {count:,} parameters, {run.channels} channel(s), \
rank {run.rank}{options}
- Loss: {" + ".join(f"{term.weight:g} {term.name}" for term in config.loss)}
- Training: {run.step} steps of batch {config.batch_size}, crops of {config.crop} px, \
seed {config.seed}
- Intensities: scaling `{config.scaling}`; threshold {run.threshold:g}
- Post-processing: {post}

## Data

{escape(config.data)}{_paper(catalog.DATA.get(config.data))}. Median cell diameter \
{run.diameter:g} px; intensities {intensity}. Scores count against {run.reference}.

## Scores

{_scores(results)}

## Use

```python
import fluojax

model = fluojax.load("{file}")
found = model(image)  # found.instances, found.probs, found.table
```

## Limits

Trained on the data named above and on nothing else; other markers,
magnifications, exposures or cameras need a check against labelled images.
Not for diagnosis.

## Licence

{_licence(license_name)}

## Citation

{_citation(config)}
"""


def _scores(results: dict | None) -> str:
    if results is None or not results.get("scores"):
        return "None recorded."
    lines = [f"On the split `{results['split']}` of the training data set:", ""]
    lines += ["| score | value | 95 % interval |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in score_intervals(results["scores"])]
    return "\n".join(lines)


def _licence(name: str | None) -> str:
    weights = f"Weights: {name}." if name else (
        "Weights: none stated; whoever shares them names one here (`fluojax export "
        "--license NAME`)."
    )  # fmt: skip
    return f"{weights} The data keep their own licence. fluojax is Apache-2.0."


def _citation(config: configs.Experiment) -> str:
    """Papers of the network, the losses and the data, as the catalogue has them."""
    entries = {
        f"`{config.model}`": catalog.MODELS.get(config.model),
        **{f"`{term.name}`": catalog.LOSSES.get(term.name) for term in config.loss},
        f"`{config.data}`": catalog.DATA.get(config.data),
    }
    lines = ["- fluojax: see CITATION.cff of the project"]
    for name, entry in entries.items():
        if _paper(entry):
            lines.append(f"- {name}: {entry.paper}")
    return "\n".join(lines)


def _paper(entry: catalog.Entry | None) -> str:
    known = entry is not None and entry.paper not in ("", "-", "definition")
    return f" ({entry.paper})" if known else ""
