"""Answers of imported weights to the outputs of the study's own program.

An archive holds `input` in [0, 1] and `output` [1 - p, p]; the weights lie beside
it as .safetensors, or as the .pth of the program where PyTorch is installed.
"""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fluojax import models
from fluojax.jobs.import_weights import read_arrays
from fluojax.models.published import cresunet_size, cresunet_weights

TOLERANCE = 1e-5  # of the probability


def answers(
    path: Path, archive: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, Callable[[], None] | str]]:
    """A check, or the reason why there is none, for the one record."""
    files = [path.with_suffix(".safetensors")]
    if importlib.util.find_spec("torch"):
        files.append(path.with_suffix(".pth"))
    found = [file for file in files if file.is_file()]
    if not found:
        yield "output", "weights in a .pth, PyTorch is not installed"
        return

    def check() -> None:
        for file in found:
            probs = probabilities(file, archive["input"])
            error = np.max(np.abs(probs - archive["output"][..., 1]))
            assert error <= TOLERANCE, f"{file.name}: differs by {error:.2g}"

    yield "output", check


def probabilities(file: Path, image: np.ndarray) -> np.ndarray:
    """Foreground probability `[B, H, W]` of the network in a file of weights."""
    weights = cresunet_weights(read_arrays(file))
    base, _ = cresunet_size(weights)
    model = models.create_model("cresunet", base_features=base)
    x = jnp.asarray(image, jnp.float32)
    shapes = models.abstract_variables(model, x.shape[-1])
    variables = models.load_flat(shapes, weights)
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
    return np.asarray(jax.nn.sigmoid(logits))[..., 0]
