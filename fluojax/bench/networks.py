"""Rows of `fluojax bench` for whole networks: a training step, a forward pass.

A training step is cross-entropy + Dice, gradient and Adam's update in float32;
`train/<model>` on 4 x 256 x 256 x 3 (size A) or 16 x 512 x 768 x 3 (B),
`infer/<model>` on one image of 1200 x 1600 x 3.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fluojax import losses, models
from fluojax.bench import inputs
from fluojax.bench.rows import Row

# Names of rows that are older than those of the models.
_NAMES = {"unet": "unet_31m", "unet_tiny": "unet_2m", "cresunet": "c_resunet"}
_SMALL = ("cresunet_nano", "unext_s")
_TRAIN = {"A": (4, 256, 256), "B": (16, 512, 768), "small": (2, 64, 64)}
_INFER = {"A": (1, 1200, 1600), "B": (1, 1200, 1600), "small": (1, 64, 96)}
_CHANNELS = 3

Arrays = Mapping[str, Any]


def train_rows(size: str) -> tuple[Row, ...]:
    return tuple(_row("train", name, size, _TRAIN[size]) for name in _models(size))


def infer_rows(size: str) -> tuple[Row, ...]:
    return tuple(_row("infer", name, size, _INFER[size]) for name in _models(size))


def _models(size: str) -> tuple[str, ...]:
    return _SMALL if size == "small" else models.list_models()


def _row(what: str, name: str, size: str, shape: tuple[int, ...]) -> Row:
    ending = "" if size == "A" else f"/{size}"
    train = what == "train"
    kind = f"{what}/{_NAMES.get(name, name)}"
    return Row(
        name=kind + ending,
        kind=kind,
        arrays=functools.partial(_arrays, name, shape, train),
        function=functools.partial(_step if train else _forward, name),
        grad=False,
        passes=None,
        pixels=int(np.prod(shape)),
        agree=lambda ours, theirs: True,
    )


def _start(name: str, image: jax.Array, train: bool) -> tuple:
    """Variables, and the state of the optimiser if there is training."""
    variables = models.create_model(name).init({"params": jax.random.key(0)}, image)
    stats = variables.get("batch_stats", {})
    rest = (optax.adam(1e-3).init(variables["params"]),) if train else ()
    return variables["params"], stats, *rest


def _arrays(name: str, shape: tuple[int, ...], train: bool) -> inputs.Arrays:
    rng = np.random.default_rng(inputs.SEED)
    batch, *sizes = shape
    cells = np.stack([inputs.scene(rng, sizes, 20) for _ in range(batch)])
    labels = (cells > 0)[..., None].astype(np.float32)
    image = 0.7 * labels + 0.1 * rng.random((*shape, _CHANNELS))
    image = image.astype(np.float32)
    leaves = jax.tree.leaves(jax.jit(lambda x: _start(name, x, train))(image[:1]))
    state = {f"state/{i:05d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    return {**state, "image": image, "labels": labels}


def _state(name: str, arrays: Arrays, train: bool) -> tuple:
    like = jax.eval_shape(lambda x: _start(name, x, train), arrays["image"][:1])
    leaves = [arrays[key] for key in sorted(arrays) if key.startswith("state/")]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _forward(name: str, arrays: Arrays) -> jax.Array:
    params, stats = _state(name, arrays, train=False)
    variables = {"params": params, "batch_stats": stats}
    return models.create_model(name).apply(variables, arrays["image"], train=False)


def _step(name: str, arrays: Arrays) -> tuple:
    params, stats, moments = _state(name, arrays, train=True)
    model, labels = models.create_model(name), arrays["labels"]

    def objective(params):
        logits, changed = model.apply(
            {"params": params, "batch_stats": stats},
            arrays["image"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        value = losses.cross_entropy_loss(logits, labels)
        return jnp.mean(value + losses.dice_loss(logits, labels)), changed

    (value, changed), slopes = jax.value_and_grad(objective, has_aux=True)(params)
    updates, moments = optax.adam(1e-3).update(slopes, moments, params)
    return optax.apply_updates(params, updates), changed, moments, value
