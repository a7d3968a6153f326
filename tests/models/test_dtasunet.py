"""The reconstructed DTASUNet at widths of eight, on images of 8 to 24 pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import blocks, create_model, dtasunet
from tests.models import promises

SMALL = {
    "stem_features": 16,
    "dims": (8,),
    "heads": (2,),
    "units": (1,),
    "pool_ratios": (4,),
    "window": 4,
}
TWO = {
    **SMALL,
    "dims": (8, 8),
    "heads": (2, 1),
    "units": (1, 1),
    "pool_ratios": (4, 2),
    "deep_supervision": True,
}
make = functools.partial(create_model, "dtasunet")


@pytest.mark.parametrize(
    "name, rank, channels, expected",
    [
        ("dtasunet", 2, 1, 9_712_119),
        ("dtasunet", 2, 3, 9_712_551),
        ("dtasunet", 3, 1, 14_528_079),
        ("dtasunet_small", 2, 1, 4_325_299),
        ("dtasunet_small", 2, 3, 4_325_587),
        ("dtasunet_small", 3, 1, 6_466_215),
    ],
)
def test_parameter_counts(name, rank, channels, expected):
    model = create_model(name)
    assert promises.count(model, channels, rank) == expected
    assert (model.divisor, model.min_size, model.ranks) == (16, 16, (2, 3))
    assert model.halo is None


def test_odd_sizes_batches_and_three_dimensions():
    promises.check_odd_sizes(make(num_classes=3, **SMALL), (17, 22), channels=5)
    promises.check_odd_sizes(make(**SMALL), (3, 4, 8), channels=1)


def test_refusals_and_bfloat16():
    promises.check_refusals(make(**SMALL), "DTASUNet")
    promises.check_bfloat16(make(**SMALL), (16, 16))


@pytest.mark.parametrize("remat", [False, True])
def test_training_reaches_every_parameter(remat):
    model = make(remat=remat, **(TWO if remat else SMALL))
    promises.check_gradients(model, (12, 16), lambda path: False)


def test_the_outputs_of_deep_supervision():
    model = make(num_classes=2, **TWO)
    for train in (False, True):
        outputs = jax.eval_shape(
            lambda v, x, train=train: model.apply(v, x, train=train),
            promises.shapes(model, 1),
            promises.images(3, 9, 14, 1),
        )
        assert isinstance(outputs, list)
        expected = [(3, 9, 14, 2), (3, 9, 14, 2), (3, 5, 7, 2)]
        assert [output.shape for output in outputs] == expected
        assert {output.dtype for output in outputs} == {jnp.dtype("float32")}
    single = model.clone(deep_supervision=False)
    trees = [promises.shapes(m, 1)["params"] for m in (model, single)]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])


def variables_of(module, x):
    """Arrays of order one in the module's own tree, float64."""
    init = functools.partial(module.init, {"params": promises.KEY})
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape), jax.eval_shape(init, x)["params"]
    )


def naive(query, keys, values, bias):
    """Attention of one pixel and one head to a list of others."""
    scores = keys @ query / np.sqrt(len(query)) + bias
    shares = np.exp(scores - scores.max())
    return shares @ values / shares.sum()


@pytest.mark.parametrize("shift", [0, 2])
def test_local_attention_pixel_by_pixel(shift):
    rows, columns, window, heads = 6, 7, 4, 2
    module = dtasunet.LocalAttention(window, shift, heads, blocks.Layers())
    x = promises.images(1, rows, columns, 6) - 0.5
    params = variables_of(module, x)
    small = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    found = module.apply({"params": small}, x)[0]

    qkv = np.asarray(x[0], np.float64) @ params["qkv"]["kernel"]
    qkv = (qkv + params["qkv"]["bias"]).reshape(rows, columns, 3, heads, 3)
    pixels = [(i, j) for i in range(rows) for j in range(columns)]
    # The grid of windows begins `shift` pixels late; in front of it is a window
    # of its own, and so in the second axis.
    window_of = {
        (i, j): ((i - shift) // window, (j - shift) // window) for i, j in pixels
    }
    expected = np.zeros((rows, columns, 6))
    for i, j in pixels:
        near = [p for p in pixels if window_of[p] == window_of[i, j]]
        at = tuple(np.array(near).T)
        offsets = [(i - k + window - 1) * 7 + j - m + window - 1 for k, m in near]
        expected[i, j] = np.concatenate(
            [
                naive(
                    qkv[i, j, 0, head],
                    qkv[:, :, 1, head][at],
                    qkv[:, :, 2, head][at],
                    params["position_bias"][offsets, head],
                )
                for head in range(heads)
            ]
        )
    expected = expected @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_global_attention_sees_means_of_blocks():
    x = promises.images(2, 5, 3, 4)
    means = dtasunet.block_means(x, (4, 3))
    np.testing.assert_allclose(means[:, 0, 0], x[:, :4].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(means[:, 1, 0], x[:, 4:].mean((1, 2)), rtol=1e-5)

    # One block: the softmax has one key, the output is the value everywhere.
    module = dtasunet.GlobalAttention(8, 2, blocks.Layers())
    params = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), variables_of(module, x)
    )
    found = module.apply({"params": params}, x)
    assert found.shape == x.shape
    np.testing.assert_allclose(found, found[:, :1, :1] * np.ones_like(found), atol=1e-5)
    assert np.any(abs(found[0] - found[1]) > 0.1)


@pytest.mark.parametrize("sizes", [(8, 12), (4, 8, 4)])
def test_windows_come_back(sizes):
    x = promises.images(2, *sizes, 3)
    windows = dtasunet.to_windows(x, 4)
    assert windows.shape == (2, np.prod(sizes) // 4 ** len(sizes), 4 ** len(sizes), 3)
    first = x[:, :4, :4].reshape(2, 16, 3) if len(sizes) == 2 else None
    if first is not None:
        np.testing.assert_array_equal(windows[:, 0], first)
    np.testing.assert_array_equal(dtasunet.from_windows(windows, sizes, 4), x)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"norm": "spectral"}, "DTASUNet: norm must be one of"),
        ({"act": "tanh"}, "DTASUNet: act must be one of"),
        ({"heads": (2, 4)}, r"heads must be one number .* the 4 dims, got \(2, 4\)"),
        ({"units": (1, 1, 1, 0)}, "units must be one number from 1 on"),
        ({"heads": (5, 4, 8, 16)}, "heads must divide dims"),
        ({"window": 6}, "window must be a multiple of 4, got 6"),
    ],
)
def test_values_out_of_range_are_refused_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)
