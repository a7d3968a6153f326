"""The IMSAHLO ladder at widths of four and two levels, on images of 6 to 32 pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import blocks, create_model, imsahlo
from tests.models import promises

SMALL = {"base_features": 4, "stages": 2}
LADDER = ("residual_unet", "neurosegnet", "neurosegnet_msdb", "imsahlo")
ends = pytest.mark.parametrize("name", ["residual_unet", "imsahlo"])


@pytest.mark.parametrize(
    "name, options, rank, channels, expected",
    [
        ("residual_unet", {}, 2, 1, 2_030_817),
        ("residual_unet", {}, 2, 3, 2_031_137),
        ("residual_unet", {}, 3, 1, 5_734_913),
        ("neurosegnet", {}, 2, 1, 2_059_041),
        ("neurosegnet", {"base_features": 8}, 2, 1, 516_377),
        ("neurosegnet", {}, 3, 1, 5_763_137),
        ("neurosegnet_msdb", {}, 2, 1, 2_680_289),
        ("neurosegnet_msdb", {"base_features": 32}, 2, 1, 10_705_145),
        ("neurosegnet_msdb", {}, 3, 1, 6_903_073),
        ("imsahlo", {}, 2, 1, 2_702_667),
        ("imsahlo", {}, 2, 3, 2_702_731),
        ("imsahlo", {}, 3, 1, 6_928_391),
        ("imsahlo_large", {}, 2, 1, 10_792_931),
    ],
)
def test_parameter_counts(name, options, rank, channels, expected):
    model = create_model(name, **options)
    assert promises.count(model, channels, rank) == expected
    assert (model.divisor, model.min_size, model.ranks) == (16, 16, (2, 3))


@pytest.mark.parametrize("name", LADDER)
def test_batch_norm_bounds_the_reach_only_where_no_global_mean_gates(name):
    assert create_model(name).halo is None
    # Radii 4 at four levels and 2 at the last: 4·15 + 2·16 + 15 = 107.
    expected = 112 if name == "residual_unet" else None
    assert create_model(name, norm="batch").halo == expected


@ends
def test_odd_sizes_batches_and_three_dimensions(name):
    promises.check_odd_sizes(create_model(name, 3, **SMALL), (7, 10), channels=5)
    promises.check_odd_sizes(create_model(name, **SMALL), (2, 3, 4), channels=1)


@ends
def test_refusals_and_bfloat16(name):
    model = create_model(name, **SMALL)
    promises.check_refusals(model, type(model).__name__)
    promises.check_bfloat16(model, (8, 8))


@ends
def test_training_reaches_every_parameter(name):
    model = create_model(name, dropout=0.0, **SMALL)
    # At this width a group is one channel: its norm takes the offset back.
    offset = "up1/bias" if name == "imsahlo" else None
    promises.check_gradients(model, (8, 8), lambda path: path == offset)


def test_recomputing_draws_the_same_dropout():
    model = create_model("residual_unet", dropout=0.4, norm="batch", **SMALL)
    rngs = {"dropout": promises.KEY}
    trees = [
        promises.check_gradients(variant, (8, 8), lambda path: False, rngs=rngs)
        for variant in (model, model.clone(remat=True))
    ]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1.0, float(abs(a).max())))


def test_dropout_takes_whole_channels():
    class Drop(nn.Module):
        @nn.compact
        def __call__(self, x):
            return imsahlo.spatial_dropout(x, 0.4, True)

    kept = Drop().apply({}, jnp.ones((8, 3, 4, 50)), rngs={"dropout": promises.KEY})
    assert np.all(kept == kept[:, :1, :1])
    assert 0.5 < np.mean(kept[:, 0, 0] > 0) < 0.7


def test_dropout_is_twice_as_strong_at_the_bottleneck():
    rates = {}

    def note(function, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            rates[context.module.path[0]] = context.module.rate
        return function(*args, **kwargs)

    with nn.intercept_methods(note):
        promises.shapes(create_model("imsahlo", **SMALL), 1)
    assert rates == {"enc1": 0.1, "enc2": 0.2, "dec1": 0.1}


def test_a_block_starts_as_its_shortcut():
    layers = blocks.Layers(norm="group", act="silu", bias=False)
    x = promises.images(1, 4, 4, 8)
    for block in (
        imsahlo.Residual(8, layers, 0.0, 8),
        imsahlo.MultiScaleDense(8, layers, 0.0, 8, (1, 2), 1, 4),
    ):
        y, _ = block.init_with_output({"params": promises.KEY}, x, False)
        np.testing.assert_allclose(y, nn.silu(x), atol=1e-6)


def test_a_dense_block_sees_several_scales_and_all_layers_before():
    layers = blocks.Layers(norm=None, act="silu", bias=False)
    block = imsahlo.MultiScaleDense(8, layers, 0.0, None, (1, 2, 4), 2, 3)
    x = promises.images(1, 1, 41, 2)
    params = block.init({"params": promises.KEY}, x, False)["params"]
    for branch in (1, 2, 3):
        assert params[f"dense1_{branch}"]["kernel"].shape == (3, 3, 8, 3)
        assert params[f"dense2_{branch}"]["kernel"].shape == (3, 3, 8 + 9, 3)
    assert params["merge"]["kernel"].shape == (1, 1, 8 + 2 * 9, 8)

    def pixel(x):
        return block.apply({"params": params}, x, False)[0, 0, 20].sum()

    touched = np.flatnonzero(jnp.abs(jax.grad(pixel)(x)).sum((0, 1, 3))) - 20
    steps = np.array([-4, -2, -1, 0, 1, 2, 4])
    np.testing.assert_array_equal(touched, np.unique(steps[:, None] + steps))


def test_squeeze_and_excitation_against_float64():
    x = promises.images(2, 3, 4, 10) - 0.3
    module = blocks.SqueezeExcite(2)
    params = jax.jit(module.init)({"params": promises.KEY}, x)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    found = module.apply({"params": params}, x)

    def dense(x, name):
        return x @ np.asarray(params[name]["kernel"], np.float64) + params[name]["bias"]

    assert params["squeeze"]["kernel"].shape == (10, 5)
    hidden = np.maximum(dense(np.asarray(x, np.float64).mean((1, 2)), "squeeze"), 0)
    factors = 1 / (1 + np.exp(-dense(hidden, "excite")))
    np.testing.assert_allclose(found, x * factors[:, None, None], atol=1e-6)


def test_the_attention_against_float64():
    attention = imsahlo.HierarchicalAttention(8, 3, blocks.Layers())
    x = promises.images(2, 3, 4, 6) - 0.3
    draw = promises.images(500, seed=2) - 0.5
    params = {
        "fc1": {"kernel": draw[:24].reshape(6, 4)},
        "fc2": {"kernel": draw[24:48].reshape(4, 6)},
        "spatial": {"kernel": draw[48:66].reshape(3, 3, 2, 1)},
    }
    found = attention.apply({"params": params}, x)

    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    first, second, kernel = (
        np.asarray(jax.tree.leaves(params[part])[0], np.float64)
        for part in ("fc1", "fc2", "spatial")
    )
    for image, expected in zip(np.asarray(x, np.float64), found, strict=True):
        pooled = image.mean((0, 1)), image.max((0, 1))
        y = image * sigmoid(sum(np.maximum(p @ first, 0) @ second for p in pooled))
        maps = np.pad(np.stack([y.mean(-1), y.max(-1)], -1), [(1, 1), (1, 1), (0, 0)])
        gate = [
            [np.sum(maps[i : i + 3, j : j + 3] * kernel[..., 0]) for j in range(4)]
            for i in range(3)
        ]
        y = y * sigmoid(np.array(gate))[..., None]
        np.testing.assert_allclose(expected, y, atol=1e-6)


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("imsahlo", {"norm": "spectral"}, "IMSAHLO: norm must be one of"),
        ("neurosegnet", {"act": "tanh"}, "ResidualUNet: act must be one of"),
        ("neurosegnet", {"stages": 1}, "stages must be at least 2, got 1"),
        ("imsahlo", {"dropout": 0.5}, r"dropout must be in \[0, 0.5\), got 0.5"),
        ("imsahlo", {"dilations": (1, 0)}, "dilations must be one or more"),
        ("imsahlo", {"dense_layers": 0}, "dense_layers must be at least 1"),
        ("imsahlo", {"attention_kernel": 4}, "attention_kernel must be odd, got 4"),
    ],
)
def test_values_out_of_range_are_refused_at_once(name, options, text):
    with pytest.raises(ValueError, match=text):
        create_model(name, **options)
