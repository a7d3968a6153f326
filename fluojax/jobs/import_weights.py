"""`fluojax import`: published weights as a run folder.

The folder is one that `predict` and `evaluate` take: configuration, facts and
one checkpoint. Threshold and post-processing are those of the study's program.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from fluojax import runs
from fluojax.config import Experiment, validate
from fluojax.console import Console
from fluojax.errors import UserError, nearest
from fluojax.exported import read_safetensors
from fluojax.models import abstract_variables, create_model, load_flat
from fluojax.models.published import cresunet_size, cresunet_weights
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.program import abstract_state
from fluojax.train.state import TrainState, stored_statistics

MODELS = ("cresunet",)
STEPS = 1000  # of the study: 200 epochs of 5 batches
# The study's binarisation, and the size of the cells that its areas are made for.
THRESHOLD, DIAMETER = 0.875, 40.0


def import_weights(
    file: str | Path, model: str, out: str | Path | None, console: Console
) -> Path:
    """Writes the run folder and returns it.

    Args:
      file: `.pth` of the study (needs PyTorch), or the same arrays under the same
        names as `.safetensors`.
      model: a name in `MODELS`.
      out: new folder; None names it after the file.
      console: where the lines go.

    Raises:
      UserError: the model is none of these, the file is not readable or holds
        another network, PyTorch is missing, or the folder is in use.
    """
    file = Path(file)
    if model not in MODELS:
        raise UserError(
            f"--model: published weights are known for {', '.join(MODELS)}, got "
            f"{model!r}{nearest(model, MODELS)}"
        )
    out = Path(out) if out else Path("runs") / f"{file.parent.name}_{file.stem}"
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: exists and is not empty; choose another --out")
    state = read_arrays(file)
    try:
        weights = cresunet_weights(state)
        base, channels = cresunet_size(weights)
        config = _experiment(base, out)
        network = create_model(config.model, **config.model_options)
        variables = load_flat(abstract_variables(network, channels), weights)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    facts = {
        "channels": channels,
        "diameter": DIAMETER,
        "intensity": None,
        "reference": "components",
        "imported": {"file": file.name, "sha256": _digest(file)},
    }
    runs.start_run(config, out, facts)
    _save(out, config, channels, variables)
    count = sum(x.size for x in flatten_dict(variables["params"]).values())
    console.line(
        f"{out}: {model} of {count:,} parameters, {channels} channels, threshold "
        f"{THRESHOLD:g}, post-processing of the study"
    )
    return out


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Arrays by name of a `.pth` or `.safetensors` file.

    Raises:
      UserError: see `import_weights`.
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)[1]
    return _read_pytorch(file)


def _read_pytorch(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{file}: reading it needs PyTorch, which is not installed; "
            "pip install torch (the build for CPU is enough)"
        ) from None
    try:
        # Tensors and plain containers only; nothing in the file is executed.
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or holds more than that
        raise UserError(f"{file}: not readable: {_first_line(error)}") from error
    state = stored.get("model", stored) if isinstance(stored, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise UserError(f"{file}: holds no tensors by name")
    return {str(name): value.numpy() for name, value in state.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]


def _experiment(base: int, out: Path) -> Experiment:
    return validate(
        Experiment(
            data="tfds:fnc_v2/yellow",
            scaling="fixed",
            crop=512,
            batch_size=32,
            augmentation="study",
            model="cresunet",
            model_options={"base_features": base},
            optimizer="adamw",
            schedule="one_cycle",
            num_steps=STEPS,
            threshold=THRESHOLD,
            postprocess="study",
            workdir=str(out),
        )
    )


def _save(out: Path, config: Experiment, channels: int, variables) -> None:
    """One checkpoint as if it were the last of a training run."""
    like = abstract_state(config, channels)
    momentum = create_model(config.model).momentum
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    state: TrainState = empty.replace(
        step=np.int32(STEPS),
        params=jax.tree.map(np.asarray, variables["params"]),
        batch_stats=stored_statistics(variables["batch_stats"], STEPS, momentum),
        lr_scale=np.float32(1),
        bad_step=np.int32(-1),
    )
    notes: list[str] = []
    checkpoints = Checkpoints(out / "checkpoints", say=notes.append)
    checkpoints.save(STEPS, state, {"best": 0.0}, best=True)
    checkpoints.close()
    if notes:
        raise UserError(f"{out}: {notes[0]}")


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
