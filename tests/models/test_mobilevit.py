"""MobileViT at widths of four and eight, on images of 32 and 64 pixels."""

import jax
import numpy as np
import pytest

from fluojax.models import create_model, mobilevit
from tests.models import promises


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A variant that compiles in seconds."""
    variant = mobilevit.Variant(4, (4, 8, 8, 8, 8), ((8, 12, 1),) * 3, 2)
    monkeypatch.setitem(mobilevit.VARIANTS, "tiny", variant)


def make(**options):
    options = {"aspp_channels": 8, "aspp_rates": (1, 2), "dropout": 0.0, **options}
    return create_model("mobilevit", **{"variant": "tiny", **options})


FINE = {"output_stride": 8, "aspp_channels": 512, "aspp_rates": (12, 24, 36)}


@pytest.mark.parametrize(
    "name, options, channels, expected",
    [
        ("mobilevit", {}, 1, 6_352_513),
        ("mobilevit", {}, 3, 6_352_801),
        ("mobilevit", FINE, 3, 8_527_009),
        ("mobilevit_xs", {}, 1, 2_938_641),
        ("mobilevit_xs", {}, 3, 2_938_929),
        ("mobilevit_xxs", {}, 1, 1_849_425),
        ("mobilevit_xxs", {}, 3, 1_849_713),
    ],
)
def test_parameter_counts(name, options, channels, expected):
    model = create_model(name, **options)
    assert promises.count(model, channels) == expected
    assert (model.ranks, model.divisor, model.min_size) == ((2,), 32, 32)
    assert model.halo is None


def test_odd_sizes_and_batches():
    promises.check_odd_sizes(make(num_classes=3), (33, 50))


def test_refusals_and_bfloat16():
    promises.check_refusals(make(), "MobileViT")
    promises.check_bfloat16(make(), (64, 64), bound=1.0)


def test_training_reaches_every_parameter():
    def cancelled(path):
        # Only 1x1 convolutions with batch norm, which subtracts them, read these.
        coarse = path.startswith(("layer1/", "layer2/"))
        projected = coarse and path.endswith("project/norm/bias")
        return projected or path.endswith("vit/norm/bias")

    promises.check_gradients(make(), (64, 64), cancelled)


@pytest.mark.slow
def test_dropout_needs_its_rng_and_acts_in_training_only():
    model = make(dropout=0.5)
    variables, x = promises.start(model), promises.images(2, 32, 32, 2)
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


def test_sequences_are_places_within_a_patch():
    x = np.arange(24.0).reshape(1, 4, 6, 1)
    tokens = mobilevit.unfold(x)
    assert tokens.shape == (4, 6, 1)
    np.testing.assert_array_equal(tokens[0, :, 0], x[0, ::2, ::2, 0].ravel())
    np.testing.assert_array_equal(tokens[1, :, 0], x[0, ::2, 1::2, 0].ravel())
    np.testing.assert_array_equal(mobilevit.fold(tokens, (4, 6)), x)


def test_the_finer_stride_dilates_the_last_residual():
    model = make(output_stride=8, num_classes=2)
    stages = {}

    def remember(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if isinstance(context.module, mobilevit.InvertedResidual):
            stages[context.module.path] = context.module.dilation, y.shape[1:3]
        return y

    variables, x = promises.shapes(model, 1), promises.images(1, 64, 96, 1)
    with mobilevit.nn.intercept_methods(remember):
        logits = jax.eval_shape(model.apply, variables, x)
    assert logits.shape == (1, 64, 96, 2)
    assert stages["layer3", "mv0"] == (1, (8, 12))
    assert stages["layer4", "mv0"] == (1, (8, 12))
    assert stages["layer5", "mv0"] == (2, (8, 12))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"variant": "m"}, "MobileViT: variant must be one of 's', 'xs', 'xxs'"),
        ({"output_stride": 32}, "output_stride must be one of 8, 16; got 32"),
        ({"norm": "instance"}, "norm must be one of 'batch', 'group', 'layer', None"),
        ({"act": "tanh"}, "MobileViT: act must be one of"),
    ],
)
def test_values_out_of_range_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)
