"""Attention U-Net at widths of four to eight, on images of 4 to 150 pixels."""

import jax
import numpy as np
import pytest

from fluojax.models import attention_unet, blocks, create_model
from tests.models import promises

SMALL = {"features": (4, 6, 8)}


def cancelled(path):
    """Biases that batch norm subtracts right after they were added."""
    *_, layer, leaf = path.split("/")
    return leaf == "bias" and "norm" not in layer and layer != "head"


@pytest.mark.parametrize(
    "name, rank, channels, classes, expected",
    [
        ("attention_unet", 2, 1, 1, 34_877_421),
        ("attention_unet", 2, 3, 1, 34_878_573),
        ("attention_unet", 2, 1, 2, 34_877_486),
        ("attention_unet", 3, 1, 1, 103_887_981),
        ("attention_unet_small", 2, 1, 1, 8_725_501),
        ("attention_unet_small", 3, 1, 1, 25_978_429),
        ("attention_unet_tiny", 2, 1, 1, 2_184_453),
        ("attention_unet_tiny", 3, 1, 1, 6_497_829),
        ("attention_unet_nano", 2, 1, 1, 547_657),
        ("attention_unet_nano", 2, 3, 1, 547_801),
    ],
)
def test_parameter_counts(name, rank, channels, classes, expected):
    model = create_model(name, classes)
    assert promises.count(model, channels, rank) == expected
    assert (model.divisor, model.min_size, model.ranks) == (16, 16, (2, 3))
    assert model.halo == 128  # 5·15 + 2·16 + 15 = 122


def test_odd_sizes_batches_and_three_dimensions():
    model = create_model("attention_unet", 3, **SMALL)
    promises.check_odd_sizes(model, (7, 10), channels=5)
    model = create_model("attention_unet", features=(4, 6))
    promises.check_odd_sizes(model, (2, 5, 4), channels=1)


def test_refusals_and_bfloat16():
    model = create_model("attention_unet", **SMALL)
    promises.check_refusals(model, "AttentionUNet")
    promises.check_bfloat16(model, (8, 8))
    assert model.clone(norm="instance").min_size == 8
    assert model.clone(norm="group").halo is None


def test_training_reaches_every_parameter():
    model = create_model("attention_unet", features=(6, 8))
    trees = [
        promises.check_gradients(variant, (8, 8), cancelled)
        for variant in (model, model.clone(remat=True))
    ]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1.0, float(abs(a).max())))


def test_the_gate_against_float64():
    gate = attention_unet.AttentionGate(2, blocks.Layers())
    gating, skip = (promises.images(2, 3, 4, 6, seed=s) - 0.5 for s in (0, 1))
    shapes = jax.eval_shape(
        lambda: gate.init({"params": promises.KEY}, gating, skip, False)
    )
    rng = np.random.default_rng(2)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape), shapes)
    found = gate.apply(
        jax.tree.map(lambda a: a.astype(np.float32), variables), gating, skip, False
    )

    def project(x, name):
        params, stats = (variables[part] for part in ("params", "batch_stats"))
        norm, stats = params[f"{name}_norm"], stats[f"{name}_norm"]
        x = np.asarray(x, np.float64) @ params[name]["kernel"][0, 0]
        x = (x + params[name]["bias"] - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        return x * norm["scale"] + norm["bias"]

    both = project(gating, "gating") + project(skip, "skip")
    psi = project(np.maximum(both, 0), "psi")
    assert psi.shape == (2, 3, 4, 1)
    np.testing.assert_allclose(found, skip / (1 + np.exp(-psi)), atol=1e-5)


def test_up_sampling_repeats_every_pixel():
    layers = blocks.Layers(norm=None, act="leaky_relu")
    x = promises.images(1, 3, 2, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    params = {"conv": {"kernel": kernel, "bias": np.zeros(1, np.float32)}}
    found = attention_unet.Up(1, layers).apply({"params": params}, x, False)
    np.testing.assert_array_equal(found, np.repeat(np.repeat(x, 2, 1), 2, 2))


def test_the_halo_is_the_reach_of_the_gradient():
    # SiLU has no flat half, so that a path cannot die.
    model = create_model("attention_unet", act="silu", **SMALL)
    variables, centre = promises.start(model, 1), 40
    assert model.halo == 28 < centre  # 5·3 + 2·4 + 3 = 26
    x = promises.images(1, 4, 2 * centre + 4, 1)

    @jax.jit
    def dependence(position):
        def pixel(x):
            return model.apply(variables, x)[0, :, position, 0].sum()

        return abs(jax.grad(pixel)(x)).sum((0, 1, 3)) > 0

    reach = 0
    for position in range(centre, centre + model.divisor):
        touched = np.flatnonzero(dependence(position))
        reach = max(reach, position - touched[0], touched[-1] - position)
    assert reach == 26


@pytest.mark.parametrize(
    "options, text",
    [
        ({"norm": "spectral"}, "AttentionUNet: norm must be one of"),
        ({"act": "tanh"}, "AttentionUNet: act must be one of"),
        ({"features": (8,)}, r"two stages or more, got \(8,\)"),
    ],
)
def test_values_out_of_range_are_refused_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        create_model("attention_unet", **options)
