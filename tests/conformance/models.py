"""Answers of the networks to stored parity vectors.

An archive holds `input`, one or several `output*`, `param/<path>/<leaf>` and
`meta`, a JSON text with the model's name and configuration. A record is one
`output*`: logits in evaluation mode, which must agree to 1e-4 of their standard
deviation in float32. Rounding alone reaches 3e-5; the smallest structural
mistake known to us, 1.9e-4.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluojax import models

TOLERANCE = 1e-4  # of the standard deviation of the stored output


def answers(
    stem: str, archive: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, Callable[[], None] | str]]:
    """A check, or the reason why there is none, for every record of `archive`.

    Checks raise AssertionError. They compute in float32 also where 64-bit types
    are enabled; the network runs once, with the first check.
    """
    name, config = _model(json.loads(str(archive["meta"])))
    records = sorted(key for key in archive if key.split("/")[0] == "output")
    if name not in models.list_models():
        yield from ((record, f"not built yet: {name}") for record in records)
        return
    outputs = functools.cache(lambda: _run(name, config, archive))
    for index, record in enumerate(records):
        yield (
            record,
            functools.partial(
                _compare, f"{stem}: {record}", outputs, index, archive[record]
            ),
        )


def _model(meta: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the options of `create_model` that `meta` describes."""
    name = meta["name"]
    config = {k: v for k, v in meta["config"].items() if k != "in_channels"}
    if name == "mobilevit":
        variant = config.pop("variant")
        name = name if variant == "s" else f"{name}_{variant}"
    if name == "deeplabv3plus":
        config["encoder"] = "resnet50"
        config["encoder_width"] = config.pop("width")
        config["encoder_blocks"] = config.pop("layers")
    if name in ("unetpp", "attention_unet") and "features" not in config:
        config.setdefault("stages", 5)
    if "stages" in config:
        base, stages = config.pop("base_features"), config.pop("stages")
        config["features"] = tuple(base * 2**level for level in range(stages))
    return name, config


def _run(
    name: str, config: Mapping[str, Any], archive: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """The outputs in the order of their records."""
    model = models.create_model(name, **config)
    x = jnp.asarray(archive["input"], jnp.float32)
    prefix = "param/"
    flat = {k.removeprefix(prefix): archive[k] for k in archive if k.startswith(prefix)}
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: model.init({"params": key}, x, train=False))
    variables = models.load_flat(shapes, flat)
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    logits = logits if isinstance(logits, list) else [logits]
    if name == "unetpp":  # stored from the first column of the triangle to the last
        logits = logits[::-1]
    return [np.asarray(output) for output in logits]


def _compare(
    record: str,
    outputs: Callable[[], list[np.ndarray]],
    index: int,
    expected: np.ndarray,
) -> None:
    found = outputs()[index]
    assert found.dtype == np.float32, f"{record}: got {found.dtype}, not float32"
    assert found.shape == expected.shape, f"{record}: {found.shape}, {expected.shape}"
    error = np.max(np.abs(found - expected)) / np.std(expected)
    assert error <= TOLERANCE, f"{record}: differs by {error:.2g} of its deviation"
