"""The folder of a run: what is written into it, and how it is read back.

Everything in it is data; reading a run executes nothing.
"""

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fluojax import config as configs
from fluojax import environment
from fluojax.config import Experiment
from fluojax.errors import UserError, some
from fluojax.files import to_json, write_atomic
from fluojax.inference import prediction
from fluojax.models import create_model
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.program import abstract_state
from fluojax.train.state import variables_of


@dataclass(frozen=True)
class Run:
    """A trained network and all that is needed to use it again.

    Attributes:
      folder: the run folder.
      config: the resolved experiment.
      model: Flax module in evaluation form (no device axis).
      variables: `params` and `batch_stats` of the best checkpoint.
      step: the step they come from.
      threshold: probability above which a pixel belongs to a cell.
      channels: of the images it takes.
      diameter: median cell diameter of the training images in px.
      intensity: median 1st and 99.8th percentile of the training images, None
        where they are not known (imported weights).
      reference: what its data set counts against, "components" or "instances".
      rank: 2 for images, 3 for volumes.
    """

    folder: Path
    config: Experiment
    model: Any
    variables: Any
    step: int
    threshold: float
    channels: int
    diameter: float
    intensity: tuple[float, float] | None
    reference: str
    rank: int = 2


def start_run(config: Experiment, workdir: Path, facts: dict[str, Any]) -> None:
    """Writes config.json, command.txt and environment.json, or checks them.

    Args:
      config: resolved.
      workdir: new, or the folder of an interrupted run of the same experiment.
      facts: what the run must know about its data (`channels`, ...).

    Raises:
      UserError: the folder holds another experiment or is none of ours.
    """
    path, checkpoints = workdir / "config.json", workdir / "checkpoints"
    if path.exists():
        _refuse_other(config, read_config(workdir), workdir)
    # Another process of this run may be ahead and have made the folder.
    elif checkpoints.exists() and any(checkpoints.iterdir()):
        raise UserError(
            f"{path} is missing beside checkpoints; put it back, or choose another "
            "--workdir"
        )
    write_atomic(path, to_json(configs.to_dict(config)))
    write_atomic(workdir / "data.json", to_json(facts))
    write_atomic(workdir / "environment.json", to_json(environment.environment()))
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join(["fluojax", *sys.argv[1:]])
    with open(workdir / "command.txt", "a", encoding="utf-8") as file:
        file.write(f"{now}  {command}\n")


def _refuse_other(new: Experiment, old: Experiment, workdir: Path) -> None:
    differing = [
        f"{field.name}: {getattr(old, field.name)!r} -> {getattr(new, field.name)!r}"
        for field in dataclasses.fields(Experiment)
        if field.name not in configs.RESUMABLE
        and configs.to_dict(old)[field.name] != configs.to_dict(new)[field.name]
    ]
    if differing:
        raise UserError(
            f"{workdir} holds another experiment: {some(differing, 8)}; resume: drop "
            "the changes; new run: another --workdir"
        )


def read_config(workdir: Path) -> Experiment:
    """`config.json` of a run folder.

    Raises:
      UserError: the folder is no run, or the file is damaged.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir}: no run: config.json is missing")
    return configs.load_config(path)


def read_facts(workdir: Path) -> dict[str, Any]:
    """`data.json` of a run folder."""
    try:
        return json.loads((workdir / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir}/data.json: not readable: {error}") from error


def open_run(folder: str | Path, *, threshold: float | None = None) -> Run:
    """Reads the best checkpoint of a run, verified.

    Args:
      folder: run folder.
      threshold: in place of the one the run was configured with or tuned to.

    Raises:
      UserError: no run, no checkpoint, or a damaged one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    config = read_config(folder)
    facts = read_facts(folder)
    notes: list[str] = []
    checkpoints = Checkpoints(folder / "checkpoints", say=notes.append)
    rank = facts.get("rank", 2)  # runs of earlier versions saw images only
    like = abstract_state(config, facts["channels"], rank)
    step = checkpoints.best_step()
    if step is not None and checkpoints.damage(step) is None:
        state, _ = checkpoints.restore(step, like)
    else:
        restored = checkpoints.restore_latest(like)
        if restored is None:
            raise UserError(f"{folder}: no usable checkpoint. {' '.join(notes)}")
        step, state, _ = restored
    model = evaluation_model(config)
    return Run(
        folder=folder,
        config=config,
        model=model,
        variables=jax.tree.map(jnp.asarray, variables_of(state, model.momentum)),
        step=step,
        threshold=_threshold(config, folder) if threshold is None else threshold,
        channels=facts["channels"],
        diameter=facts["diameter"],
        intensity=facts["intensity"] and tuple(facts["intensity"]),
        reference=facts["reference"],
        rank=rank,
    )


def evaluation_model(config: Experiment) -> Any:
    """The Flax module of an experiment, without a device axis."""
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32
    return create_model(config.model, dtype=dtype, **config.model_options)


def _threshold(config: Experiment, folder: Path) -> float:
    """The configured threshold, or the one tuned when training ended."""
    if config.threshold is not None:
        return config.threshold
    results = read_results(folder)
    if results is None:
        raise UserError(
            f"{folder}: its threshold is tuned when training ends, which it has not; "
            "give --threshold"
        )
    return float(results["threshold"])


def read_results(folder: Path) -> dict[str, Any] | None:
    """`results.json`, None where the run has not finished."""
    path = folder / "results.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable: {error}") from error


def with_overrides(run: Run, overrides: Mapping[str, Any] | None) -> Run:
    """The run with other data options or post-processing; its network stays.

    Raises:
      UserError: a field that only training can change.
    """
    if not overrides:
        return run
    allowed = ("data_options", "manual_dir", "postprocess", "postprocess_options")
    for key in overrides:
        if key.split(".")[0] not in allowed:
            raise UserError(
                f"--set {key}: a trained run can change {', '.join(allowed)} only"
            )
    config = configs.apply_overrides(run.config, overrides)
    config = configs.with_scaled_study(config, run.diameter)
    return dataclasses.replace(run, config=config)


def network_of(run: Run) -> prediction.Network:
    """The run's network as a function of images."""
    config = run.config
    return prediction.create_network(
        run.model,
        run.variables,
        config.scaling,
        config.crop,
        config.contrast,
        run.rank,
    )
