"""TransUNet at its narrowest, on images of 32 to 64 pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import create_model, transunet
from tests.models import promises

NARROW = {
    "grid": [3, 2],
    "hidden_size": 8,
    "mlp_dim": 12,
    "num_heads": 2,
    "num_layers": 1,
    "resnet_units": [1, 1, 1],
    "resnet_width": 32,
    "decoder_channels": [8, 6, 4, 4],
    "head_channels": 8,
    "dropout": 0.0,
}


def make(**options):
    return create_model("transunet", **{**NARROW, **options})


@pytest.mark.parametrize(
    "name, options, channels, expected",
    [
        ("transunet", {}, 1, 105_269_649),
        ("transunet", {}, 3, 105_275_921),
        ("transunet", {"grid": [32, 32]}, 3, 105_911_825),
        ("transunet", {"grid": [16, 16]}, 3, 105_322_001),
        ("transunet_small", {}, 1, 6_927_025),
        ("transunet_small", {}, 3, 6_930_161),
    ],
)
def test_parameter_counts(name, options, channels, expected):
    model = create_model(name, **options)
    assert promises.count(model, channels) == expected
    assert (model.ranks, model.divisor, model.min_size) == ((2,), 16, 32)
    assert model.halo is None


def test_odd_sizes_and_batches():
    promises.check_odd_sizes(make(num_classes=3), (33, 50))


def test_refusals_and_bfloat16():
    promises.check_refusals(make(), "TransUNet")
    promises.check_bfloat16(make(), (48, 32), bound=1.0)


def test_training_reaches_every_parameter():
    def cancelled(path):  # softmax ignores what all keys of a query share
        return path.endswith("key/bias")

    promises.check_gradients(make(remat=True), (48, 32), cancelled)


def test_dropout_needs_its_rng_and_acts_in_training_only():
    model = make(dropout=0.5)
    variables, x = promises.start(model), promises.images(1, 48, 32, 2)
    expected = promises.predict(make())(variables, x)
    np.testing.assert_array_equal(promises.predict(model)(variables, x), expected)

    @jax.jit
    def train(rngs):
        mutable = ["batch_stats"]
        return model.apply(variables, x, train=True, mutable=mutable, rngs=rngs)[0]

    a, b = (train({"dropout": jax.random.key(i)}) for i in (0, 1))
    assert np.any(np.abs(a - b) > 1e-3)
    with pytest.raises(Exception, match="dropout"):
        train({})


def test_the_table_of_positions_is_interpolated_to_the_image():
    layers = transunet.Layers(bias=False)
    table = np.arange(6.0, dtype=np.float32).reshape(1, 6, 1)

    def tokens(grid, sizes):
        embed = transunet.Embed(1, grid, 0.0, layers)
        params = {
            "position_embeddings": table,
            "conv": {"kernel": np.ones((1, 1, 5, 1)), "bias": np.zeros(1)},
        }
        x = np.zeros((1, *sizes, 5), np.float32)
        return embed.apply({"params": params}, x, False)

    np.testing.assert_array_equal(tokens((3, 2), (3, 2)), table)
    doubled = tokens((3, 2), (6, 2)).reshape(6, 2)
    np.testing.assert_allclose(doubled[:, 0], [0, 0.5, 1.5, 2.5, 3.5, 4], atol=1e-6)


def test_kernels_are_standardised_where_they_are_used():
    conv = transunet.StdConv(3, 1, transunet.Layers())
    kernel = 2 + 3 * promises.images(1, 1, 16, 3)
    found = conv.apply({"params": {"kernel": kernel}}, jnp.eye(16)[None, None])[0, 0]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-5)  # biased: over 16


def test_fewer_skips_leave_out_the_finest():
    params = promises.shapes(make(skips=2), 1)["params"]
    widths = [params[f"decoder{i}"]["conv1"]["kernel"].shape[2] for i in (1, 2, 3, 4)]
    assert widths == [8 + 256, 8 + 128, 6, 4]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"grid": (14,)}, r"grid must have 2 positive entries, got \(14,\)"),
        ({"resnet_units": (3, 0, 9)}, "resnet_units must have 3 positive entries"),
        ({"num_heads": 3}, "TransUNet: hidden_size must be a multiple of 3, got 8"),
        ({"resnet_width": 48}, "resnet_width must be a multiple of 32, got 48"),
        ({"skips": 4}, "skips must be one of 0, 1, 2, 3; got 4"),
        ({"norm": "spectral"}, "TransUNet: norm must be one of"),
        ({"act": "tanh"}, "TransUNet: act must be one of"),
    ],
)
def test_values_out_of_range_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)
