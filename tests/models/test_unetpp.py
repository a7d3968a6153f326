"""U-Net++ at widths of four to eight, on images of 4 to 32 pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import blocks, create_model
from tests.models import promises

SMALL = {"features": (4, 6, 8)}
KERAS = {"upsample": "deconv", "norm": None}


def cancelled(path):
    """Biases that batch norm subtracts right after they were added."""
    *_, layer, leaf = path.split("/")
    return leaf == "bias" and layer.startswith("conv")


@pytest.mark.parametrize(
    "name, options, rank, channels, classes, expected",
    [
        ("unetpp", {}, 2, 1, 1, 9_162_753),
        ("unetpp", {}, 2, 3, 1, 9_163_329),
        ("unetpp", {}, 2, 1, 2, 9_162_786),
        ("unetpp", {}, 3, 1, 1, 27_466_305),
        ("unetpp", {"deep_supervision": True}, 2, 1, 1, 9_162_852),
        ("unetpp", KERAS, 2, 1, 1, 9_041_601),
        ("unetpp", KERAS, 2, 3, 1, 9_042_177),
        ("unetpp", {**KERAS, "deep_supervision": True}, 2, 1, 1, 9_041_700),
        ("unetpp_small", {}, 2, 3, 1, 2_293_793),
        ("unetpp_small", {}, 3, 1, 1, 6_869_537),
        ("unetpp_nano", {}, 2, 1, 1, 574_785),
        ("unetpp_nano", {"deep_supervision": True}, 2, 3, 1, 574_956),
    ],
)
def test_parameter_counts(name, options, rank, channels, classes, expected):
    model = create_model(name, classes, **options)
    assert promises.count(model, channels, rank) == expected
    assert (model.divisor, model.min_size, model.ranks) == (16, 16, (2, 3))
    assert model.halo == (112 if "upsample" in options else None)


def test_odd_sizes_batches_and_three_dimensions():
    promises.check_odd_sizes(create_model("unetpp", 3, **SMALL), (7, 10), channels=5)
    promises.check_odd_sizes(create_model("unetpp", **SMALL), (4, 5, 8), channels=1)


def test_refusals_and_bfloat16():
    model = create_model("unetpp", **SMALL)
    promises.check_refusals(model, "UNetPlusPlus")
    promises.check_bfloat16(model, (8, 8))


def test_training_reaches_every_parameter_and_every_head():
    model = create_model("unetpp", deep_supervision=True, **SMALL)
    trees = [
        promises.check_gradients(variant, (8, 8), cancelled)
        for variant in (model, model.clone(remat=True))
    ]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1.0, float(abs(a).max())))


def test_the_first_form_trains_with_dropout():
    model = create_model("unetpp", features=(6, 6), dropout=0.3, **KERAS)
    rngs = {"dropout": promises.KEY}
    promises.check_gradients(model, (8, 8), lambda path: False, rngs=rngs)


def test_a_node_sees_its_row_and_the_node_below():
    params = promises.shapes(create_model("unetpp", **SMALL), 3)["params"]
    nodes = {"x0_0", "x1_0", "x2_0", "x0_1", "x1_1", "x0_2"}
    assert set(params) == nodes | {"head"}
    inputs = {node: params[node]["conv1"]["kernel"].shape[2] for node in nodes}
    assert inputs == {
        "x0_0": 3,
        "x1_0": 4,
        "x2_0": 6,
        "x0_1": 4 + 6,
        "x1_1": 6 + 8,
        "x0_2": 2 * 4 + 6,
    }


def test_the_triangle_written_out():
    model = create_model("unetpp", **SMALL)
    variables, x = promises.start(model), promises.images(1, 8, 12, 2)
    params, stats = variables["params"], variables["batch_stats"]

    def node(name, *inputs):
        y = jnp.concatenate(inputs, axis=-1)
        for i in "12":
            conv, norm = params[name][f"conv{i}"], params[name][f"norm{i}"]
            y = jax.lax.conv_general_dilated(
                y,
                conv["kernel"],
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            mean, var = (stats[name][f"norm{i}"][key] for key in ("mean", "var"))
            y = (y + conv["bias"] - mean) / jnp.sqrt(var + 1e-5)
            y = jax.nn.relu(y * norm["scale"] + norm["bias"])
        return y

    def up(y):
        _, rows, columns, _ = y.shape
        return blocks.resize_linear(y, (2 * rows, 2 * columns), align_corners=True)

    x00 = node("x0_0", x)
    x10 = node("x1_0", blocks.max_pool(x00))
    x20 = node("x2_0", blocks.max_pool(x10))
    x01 = node("x0_1", x00, up(x10))
    x11 = node("x1_1", x10, up(x20))
    x02 = node("x0_2", x00, x01, up(x11))
    expected = x02 @ params["head"]["kernel"][0, 0] + params["head"]["bias"]
    found = promises.predict(model)(variables, x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.std(expected))


def test_heads_come_best_first_and_pruning_keeps_the_others():
    model = create_model("unetpp", 2, deep_supervision=True, **SMALL)
    variables, x = promises.start(model), promises.images(1, 7, 10, 2)
    whole = promises.predict(model)(variables, x)
    assert isinstance(whole, list)
    assert [logits.shape for logits in whole] == 2 * [(1, 7, 10, 2)]
    trained = jax.eval_shape(
        lambda: model.apply(variables, x, train=True, mutable=["batch_stats"])[0]
    )
    assert jax.tree.structure(trained) == jax.tree.structure(whole)

    pruned = model.clone(prune=1)
    assert set(promises.shapes(pruned, 2)["params"]) == {
        "x0_0",
        "x1_0",
        "x0_1",
        "head1",
    }
    [logits] = promises.predict(pruned)(variables, x)
    np.testing.assert_allclose(logits, whole[1], atol=1e-5)

    single = dict(variables["params"])
    single["head"] = single.pop("head2")
    del single["head1"]
    alone = model.clone(deep_supervision=False).apply(
        {**variables, "params": single}, x
    )
    np.testing.assert_allclose(alone, whole[0], atol=1e-5)


def test_corners_matter():
    model = create_model("unetpp", **SMALL)
    variables, x = promises.start(model), promises.images(1, 8, 12, 2)
    other = promises.predict(model.clone(align_corners=False))(variables, x)
    assert jnp.max(jnp.abs(other - promises.predict(model)(variables, x))) > 0.1


@pytest.mark.parametrize(
    "options, text",
    [
        ({"norm": "spectral"}, "UNetPlusPlus: norm must be one of"),
        ({"act": "tanh"}, "UNetPlusPlus: act must be one of"),
        ({"upsample": "nearest"}, "upsample must be one of 'bilinear', 'deconv'"),
        ({"features": (8,)}, r"two rows or more, got \(8,\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"prune": 2}, "add deep_supervision=True"),
        ({"prune": 5, "deep_supervision": True}, "prune must be one of None, 1, 2, 3"),
    ],
)
def test_values_out_of_range_are_refused_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        create_model("unetpp", **options)
