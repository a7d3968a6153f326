"""Every architecture learns four pictures of synthetic cells, in both precisions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fluojax import losses, models
from fluojax.data import blobs

LEVELS = {"features": (8, 16, 32, 64, 128)}
# One of each architecture, narrow enough for a CPU.
NARROW = {
    "attention_unet": LEVELS,
    "cresunet": {"base_features": 4},
    "deeplabv3plus": {"encoder_width": 8},
    "dtasunet": {"stem_features": 8, "dims": (8, 16, 32, 64), "heads": (1, 2, 2, 4)},
    "imsahlo": {"base_features": 4},
    "mobilevit": {"variant": "xxs"},
    "neurosegnet": {"base_features": 4},
    "neurosegnet_msdb": {"base_features": 4},
    "nnunet": {"features": (8, 16, 32, 32)},
    "resenc_unet": {"features": (8, 16, 32, 32), "blocks": (1, 2, 2, 2)},
    "residual_unet": {"base_features": 4},
    "transunet": {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_heads": 4,
        "num_layers": 2,
        "resnet_units": (1, 1, 1),
        "resnet_width": 32,
        "decoder_channels": (32, 16, 8, 8),
    },
    "unet": LEVELS,
    "unetpp": LEVELS,
    "unext": {"features": (8, 16, 32, 64, 128)},
}
STEP_SIZES = (1e-3, 3e-3)
STEPS = 40


def test_every_architecture_is_here():
    classes = {type(models.create_model(name)) for name in models.list_models()}
    assert {type(models.create_model(name)) for name in NARROW} == classes


@functools.cache
def cells():
    """Four windows with cells, `[4, 64, 64, C]`."""
    found = []
    seed = 0
    while len(found) < 4:
        drawn = blobs.sample(seed, size=(64, 64), density=8.0)
        if np.mean(drawn.instances > 0) > 0.02:
            found.append(drawn)
        seed += 1
    images = np.stack([np.arcsinh(s.image / 20) / np.arcsinh(255 / 20) for s in found])
    masks = np.stack([s.instances > 0 for s in found])
    return jnp.asarray(images, jnp.float32), jnp.asarray(masks[..., None], jnp.float32)


@functools.cache
def train_step(name, dtype):
    model = models.create_model(name, dtype=dtype, **NARROW[name])
    optimizer = optax.scale_by_adam()
    image, labels = cells()

    def start():
        variables = model.init({"params": jax.random.key(0)}, image, train=False)
        stats = variables.get("batch_stats", {})
        return variables["params"], stats, optimizer.init(variables["params"])

    def step(state, size, key):
        params, stats, moments = state

        def objective(params):
            logits, changed = model.apply(
                {"params": params, "batch_stats": stats},
                image,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            value = losses.cross_entropy_loss(logits, labels)
            value = value + losses.dice_loss(logits, labels)
            return jnp.mean(value), changed.get("batch_stats", {})

        (value, stats), slopes = jax.value_and_grad(objective, has_aux=True)(params)
        updates, moments = optimizer.update(slopes, moments, params)
        params = jax.tree.map(lambda p, u: p - size * u, params, updates)
        return (params, stats, moments), value

    return jax.jit(start), jax.jit(step)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", STEP_SIZES)
@pytest.mark.parametrize("name", NARROW)
def test_the_loss_falls(name, size, dtype):
    start, step = train_step(name, jnp.dtype(dtype))
    state, values = start(), []
    for number in range(STEPS):
        state, value = step(state, jnp.float32(size), jax.random.key(number))
        values.append(float(value))
    assert np.all(np.isfinite(values))
    print(f"{name} {dtype} {size:g}: {values[0]:.3f} -> {np.mean(values[-5:]):.3f}")
    assert np.mean(values[-5:]) < 0.9 * values[0]
