"""A trained network as one file of weights, and back.

A `.safetensors` file holds the arrays under the paths of `models.load_flat`;
its header, as JSON texts, the experiment (`config`) and what else using the
network needs (`facts`). It is data: reading it executes nothing.
Programs (`.jaxexport`) are in `exported_program`; both share `header` and
`checked`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fluojax import __version__
from fluojax import config as configs
from fluojax.data.sources import is_named
from fluojax.errors import UserError
from fluojax.files import to_json, write_atomic
from fluojax.models import abstract_variables, load_flat
from fluojax.runs import Run, evaluation_model

FORMAT = "fluojax 1"
_FACTS = (
    "step",
    "threshold",
    "channels",
    "diameter",
    "intensity",
    "reference",
    "rank",
)
_FACTS += ("rank",)


def write_weights(run: Run, path: Path) -> None:
    """Writes the network of a run, atomically."""
    leaves = flatten_dict(dict(run.variables)).items()
    arrays = {"/".join(key[1:]): np.asarray(leaf) for key, leaf in leaves}
    write_atomic(path, save(arrays, header_of(run)))


def header_of(run: Run) -> dict[str, str]:
    """What using the network of a run needs beside its numbers."""
    return {
        "format": FORMAT,
        "fluojax": __version__,
        "config": to_json(configs.to_dict(without_places(run.config))),
        "facts": to_json({name: getattr(run, name) for name in _FACTS}),
    }


def read_weights(path: str | Path) -> Run:
    """The run that `write_weights` wrote; its folder is that of the file.

    Raises:
      UserError: no such file, not of this format, or arrays of another model.
    """
    path = Path(path)
    header, arrays = read_safetensors(path)
    config, facts = checked(path, header)
    model = evaluation_model(config)
    try:
        like = abstract_variables(model, facts["channels"], facts["rank"])
        variables = load_flat(like, arrays)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return Run(
        folder=path.parent, config=config, model=model, variables=variables, **facts
    )


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Header and arrays by name.

    Raises:
      UserError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            return header, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not readable: {error}") from error


def without_places(config: configs.Experiment) -> configs.Experiment:
    """Folders are of no use elsewhere, and tell about a machine."""
    data = config.data
    if not is_named(data):
        data = Path(data).name
    return dataclasses.replace(config, data=data, manual_dir=None, workdir=None)


def checked(path: Path, header: dict[str, str]) -> tuple[configs.Experiment, dict]:
    """The experiment and the facts in a header that `header_of` made.

    Raises:
      UserError: of another format, or damaged.
    """
    if header.get("format") != FORMAT:
        raise UserError(
            f"{path}: not written by `fluojax export` (format "
            f"{header.get('format', 'missing')!r}, needed {FORMAT!r})"
        )
    try:
        config = configs.from_dict(json.loads(header["config"]))
        facts: dict[str, Any] = json.loads(header["facts"])
        found = {
            "step": int(facts["step"]),
            "threshold": float(facts["threshold"]),
            "channels": int(facts["channels"]),
            "diameter": float(facts["diameter"]),
            "intensity": facts["intensity"] and tuple(map(float, facts["intensity"])),
            "reference": str(facts["reference"]),
            "rank": int(facts.get("rank", 2)),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its header is damaged: {error!r}") from error
    if not 0 <= found["threshold"] <= 1 or found["channels"] < 1:
        raise UserError(f"{path}: its header is damaged: {found}")
    return config, found
