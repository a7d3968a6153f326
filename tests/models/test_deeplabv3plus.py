"""DeepLabV3+ at widths of two to eight, on images of 32 to 48 pixels."""

import functools

import jax
import numpy as np
import pytest

from fluojax.models import create_model, deeplabv3plus
from tests.models import promises

SMALL = {
    "encoder_width": 2,
    "encoder_blocks": (1, 1, 1, 1),
    "decoder_channels": 8,
    "low_level_channels": 4,
    "aspp_rates": (1, 2),
}
make = functools.partial(create_model, "deeplabv3plus", **SMALL)


@pytest.mark.parametrize(
    "name, channels, expected",
    [
        ("deeplabv3plus", 1, 26_671_313),
        ("deeplabv3plus", 3, 26_677_585),
        ("deeplabv3plus_r34", 1, 22_431_185),
        ("deeplabv3plus_r34", 3, 22_437_457),
    ],
)
def test_parameter_counts(name, channels, expected):
    model = create_model(name)
    assert promises.count(model, channels) == expected
    assert (model.divisor, model.min_size, model.ranks) == (16, 32, (2,))
    assert model.halo is None


def test_odd_sizes_and_batches():
    promises.check_odd_sizes(make(3), (37, 48), channels=5)


def test_refusals_and_bfloat16():
    promises.check_refusals(make(), "DeepLabV3Plus")
    promises.check_bfloat16(make(), (32, 48))


@pytest.mark.parametrize("encoder, remat", [("resnet34", False), ("resnet50", True)])
def test_training_reaches_every_parameter(encoder, remat):
    model = make(encoder=encoder, dropout=0.0, remat=remat)
    promises.check_gradients(model, (32, 48), lambda path: False)


@pytest.mark.parametrize(
    "output_stride, strides, dilations",
    [(16, [1, 2, 2, 1], [1, 1, 1, 2]), (8, [1, 2, 1, 1], [1, 1, 2, 4])],
)
def test_strides_become_dilations(output_stride, strides, dilations):
    found = []

    def note(function, args, kwargs, context):
        if isinstance(context.module, deeplabv3plus.Bottleneck):
            found.append(context.module)
        return function(*args, **kwargs)

    model = make(output_stride=output_stride, encoder_blocks=(2, 2, 2, 2))
    assert model.divisor == output_stride
    with deeplabv3plus.nn.intercept_methods(note):
        promises.shapes(model, 1)
    assert [block.stride for block in found[::2]] == strides
    assert {block.stride for block in found[1::2]} == {1}
    assert [block.dilation for block in found[::2]] == dilations
    assert [block.dilation for block in found[1::2]] == dilations


@pytest.mark.slow
def test_one_image_alone_trains_with_its_pooled_branch():
    model, x = make(), promises.images(1, 32, 32, 2)
    variables = promises.start(model)
    apply = functools.partial(
        model.apply, train=True, mutable=["batch_stats"], rngs={"dropout": promises.KEY}
    )

    def objective(params, x):
        logits, updated = apply({**variables, "params": params}, x)
        return logits.std(), updated["batch_stats"]["aspp"]

    gradient = jax.jit(jax.grad(objective, has_aux=True))
    grads, updated = gradient(variables["params"], x)
    assert np.any(grads["aspp"]["pool"]["conv"]["kernel"])
    before = variables["batch_stats"]["aspp"]
    np.testing.assert_array_equal(
        updated["pool"]["norm"]["mean"], before["pool"]["norm"]["mean"]
    )
    assert np.any(updated["post"]["norm"]["mean"] != before["post"]["norm"]["mean"])


@pytest.mark.parametrize(
    "options, text",
    [
        ({"norm": "spectral"}, "DeepLabV3Plus: norm must be one of"),
        ({"act": "tanh"}, "DeepLabV3Plus: act must be one of"),
        ({"encoder": "xception"}, "encoder must be one of 'resnet34', 'resnet50'"),
        ({"output_stride": 32}, "output_stride must be one of 8, 16; got 32"),
        ({"encoder_blocks": (1, 1, 1)}, r"four numbers from 1 on, got \(1, 1, 1\)"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_values_out_of_range_are_refused_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        create_model("deeplabv3plus", **options)
