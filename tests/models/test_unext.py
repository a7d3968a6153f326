"""UNeXt at widths of four to seven, on images of 32 and 64 pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import create_model, unext
from tests.models import promises

WIDTHS = (4, 4, 6, 7, 8)


def make(**options):
    return create_model("unext", **{"features": WIDTHS, **options})


@pytest.mark.parametrize(
    "name, channels, classes, expected",
    [
        ("unext", 1, 1, 1_471_633),
        ("unext", 3, 1, 1_471_921),
        ("unext_s", 1, 1, 253_417),
        ("unext_s", 3, 1, 253_561),
        ("unext_s", 3, 3, 253_579),
    ],
)
def test_parameter_counts(name, channels, classes, expected):
    model = create_model(name, classes)
    assert promises.count(model, channels) == expected
    assert (model.ranks, model.divisor, model.min_size) == ((2,), 32, 32)


def test_odd_sizes_and_batches():
    promises.check_odd_sizes(make(num_classes=3), (33, 50))


def test_refusals_and_bfloat16():
    promises.check_refusals(make(), "UNeXt")
    promises.check_bfloat16(make(), (64, 64), bound=1.0)


def test_training_reaches_every_parameter():
    def cancelled(path):  # batch norm subtracts these biases again
        return path.endswith("/conv/bias") and not path.startswith("dec0")

    promises.check_gradients(make(), (64, 64), cancelled)


@pytest.mark.slow
def test_dropout_needs_its_rng_and_acts_in_training_only():
    model = make(dropout=0.5)
    variables, x = promises.start(model), promises.images(1, 32, 32, 2)
    expected = promises.predict(make())(variables, x)
    np.testing.assert_array_equal(promises.predict(model)(variables, x), expected)
    train = jax.jit(
        lambda rngs: model.apply(
            variables, x, train=True, mutable=["batch_stats"], rngs=rngs
        )[0]
    )
    a, b = (train({"dropout": jax.random.key(i)}) for i in (0, 1))
    assert np.any(np.abs(a - b) > 1e-3)
    with pytest.raises(Exception, match="dropout"):
        train({})


def test_the_shift_by_hand():
    # Seven channels in groups of ceil(7 / 5) = 2: 2, 2, 2, 1 and none.
    x = jnp.broadcast_to(jnp.array([1.0, 2.0, 3.0])[None, :, None, None], (1, 3, 1, 7))
    found = unext.shift(x, 1, 5)[0, :, 0].T
    left2, left1, none, right1 = [3, 0, 0], [2, 3, 0], [1, 2, 3], [0, 1, 2]
    expected = [left2, left2, left1, left1, none, none, right1]
    np.testing.assert_array_equal(found, expected)
    across = unext.shift(x, 2, 5)[0, :, 0].T
    np.testing.assert_array_equal(across[:4], np.zeros((4, 3)))
    np.testing.assert_array_equal(across[4:6], expected[4:6])


@pytest.mark.slow
def test_tiles_with_a_halo_give_the_logits_of_the_whole_image():
    model = make(act="silu")  # no flat half: no path can die
    variables, halo = promises.start(model, 1), model.halo
    assert halo == 416
    x = promises.images(1, 32, 2 * halo + 96, 1)
    whole = promises.predict(model)(variables, x)[0, :, halo + 32 : halo + 64]
    tile = promises.predict(model)(variables, x[:, :, 32 : 2 * halo + 64])
    found = tile[0, :, halo : halo + 32]
    np.testing.assert_allclose(found, whole, atol=1e-4 * np.std(whole))
    gradient = jax.jit(
        jax.grad(lambda x: model.apply(variables, x)[0, :, halo + 32 : halo + 64].sum())
    )(x)
    touched = np.flatnonzero(np.abs(gradient).sum((0, 1, 3)))
    reach = max(halo + 32 - touched[0], touched[-1] - halo - 63)
    assert 0.8 * halo <= reach <= halo  # interpolation rarely rounds both ways


@pytest.mark.parametrize(
    "options, text",
    [
        ({"features": (8, 8, 8)}, "UNeXt: features must be five"),
        ({"shift_size": 4}, "shift_size must be odd and positive, got 4"),
        ({"norm": "spectral"}, "UNeXt: norm must be one of"),
        ({"act": "tanh"}, "UNeXt: act must be one of"),
    ],
)
def test_values_out_of_range_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


def test_instance_norm_needs_two_pixels_at_the_coarsest_level():
    assert make(norm="instance").min_size == 64
