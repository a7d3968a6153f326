"""nnU-Net's networks at widths of four, on images of 8 to 33 pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import create_model
from tests.models import promises

PLAIN = {"features": (4, 8, 8)}
RESIDUAL = {"features": (4, 8, 8), "blocks": (1, 2, 1)}
SMALL = {"nnunet": PLAIN, "resenc_unet": RESIDUAL}
each = pytest.mark.parametrize("name", SMALL)
WIDE = (32, 64, 128, 256, 512, 512, 512, 512)


def make(name, **options):
    return create_model(name, **{**SMALL[name], **options})


@pytest.mark.parametrize(
    "name, options, rank, channels, classes, expected",
    [
        ("nnunet", {}, 2, 1, 1, 20_618_085),
        ("nnunet", {}, 2, 3, 1, 20_618_661),
        ("nnunet", {"features": WIDE}, 2, 1, 1, 46_322_535),
        ("nnunet", {}, 3, 1, 1, 31_194_789),
        ("resenc_unet", {}, 2, 1, 1, 71_815_589),
        ("resenc_unet", {"features": WIDE}, 2, 1, 2, 140_017_038),
        ("resenc_unet", {}, 3, 1, 1, 102_348_965),
        ("resenc_unet_small", {}, 2, 1, 1, 3_363_860),
        ("resenc_unet_small", {}, 2, 3, 1, 3_364_148),
        ("resenc_unet_small", {}, 2, 1, 2, 3_364_104),
    ],
)
def test_parameter_counts(name, options, rank, channels, classes, expected):
    model = create_model(name, classes, **options)
    assert promises.count(model, channels, rank) == expected
    supervised = create_model(name, classes, deep_supervision=True, **options)
    assert promises.count(supervised, channels, rank) == expected


def test_the_facts_of_the_table():
    facts = {"nnunet": (32, 64), "resenc_unet": (32, 64), "resenc_unet_small": (16, 32)}
    for name, expected in facts.items():
        model = create_model(name)
        assert (model.divisor, model.min_size) == expected
        assert model.ranks == (2, 3) and model.halo is None
    assert create_model("nnunet", norm="batch").min_size == 32


@each
def test_odd_sizes_batches_and_three_dimensions(name):
    promises.check_odd_sizes(make(name, num_classes=3), (11, 21))
    promises.check_odd_sizes(make(name), (9, 8, 8), channels=1)


@each
def test_refusals_and_bfloat16(name):
    model = make(name)
    promises.check_refusals(model, type(model).__name__)
    promises.check_bfloat16(model, (16, 16), bound=1.0)


@pytest.mark.parametrize("name, remat", [("nnunet", True), ("resenc_unet", False)])
def test_training_reaches_every_parameter_and_every_head(name, remat):
    model = make(name, deep_supervision=True, remat=remat)

    def cancelled(path):  # a norm subtracts these biases again
        *_, layer, leaf = path.split("/")
        return leaf == "bias" and layer.startswith("conv")

    promises.check_gradients(model, (16, 16), cancelled)


def test_recomputing_in_the_backward_pass_changes_nothing():
    model = make("resenc_unet", features=(4, 8), blocks=(1, 1))
    variables, x = promises.start(model, 1), promises.images(1, 8, 8, 1)

    def gradients(model):
        def objective(params):
            return jnp.sum(x * model.apply({"params": params}, x, train=True))

        return jax.jit(jax.grad(objective))(variables["params"])

    grads, again = gradients(model), gradients(model.clone(remat=True))
    assert jax.tree.structure(grads) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3 * max(1.0, float(abs(a).max())))


def test_the_outputs_of_deep_supervision():
    model = make("nnunet", features=(4, 4, 8, 8), deep_supervision=True)
    for train in (False, True):
        outputs = jax.eval_shape(
            lambda v, x, train=train: model.apply(v, x, train=train),
            promises.shapes(model, 1),
            promises.images(2, 19, 33, 1),
        )
        assert isinstance(outputs, list)
        expected = [(2, 19, 33, 1), (2, 10, 17, 1), (2, 5, 9, 1)]
        assert [output.shape for output in outputs] == expected
    x = promises.images(1, 19, 33, 1)
    main, *_ = promises.predict(model)(promises.start(model, 1), x)
    single = model.clone(deep_supervision=False)
    logits = promises.predict(single)(promises.start(model, 1), x)
    np.testing.assert_allclose(main, logits, atol=1e-5)


@each
def test_thick_slices(name):
    model = make(
        name,
        strides=[1, [1, 2, 2], 2],
        kernels=[[1, 3, 3], [1, 3, 3], 3],
        deep_supervision=True,
    )
    assert (model.ranks, model.divisor, model.min_size) == ((3,), 4, 8)
    variables = promises.start(model, 1, rank=3)
    params = variables["params"]
    # The decoder goes up by the stride of the stage it leaves.
    assert params["dec0"]["up"]["kernel"].shape == (2, 2, 2, 8, 8)
    assert params["dec1"]["up"]["kernel"].shape == (1, 2, 2, 8, 4)
    assert params["dec0"]["conv0"]["kernel"].shape == (1, 3, 3, 16, 8)
    x = promises.images(1, 5, 13, 16, 1)
    outputs = promises.predict(model)(variables, x)
    assert [y.shape for y in outputs] == [(1, 5, 13, 16, 1), (1, 5, 7, 8, 1)]
    with pytest.raises(ValueError, match=r"at least \(4, 8, 8\) pixels"):
        model.apply(variables, x[:, :3])
    with pytest.raises(ValueError, match=r"spatial rank 3\)"):
        model.apply(variables, x[0])


def test_a_residual_block_starts_from_its_shortcut():
    model = make("resenc_unet")
    x = promises.images(1, 8, 8, 1)
    params = jax.jit(model.init)({"params": promises.KEY}, x)["params"]
    for block in (params["enc0"]["block0"], params["enc1"]["block1"]):
        assert not np.any(block["norm2"]["scale"]) and np.all(block["norm1"]["scale"])


@each
def test_the_halo_is_the_reach_of_the_gradient(name):
    model = make(name, norm="batch", act="silu")  # no flat half: no path can die
    variables, centre = promises.start(model, 1), 32
    assert model.halo < centre
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
    assert model.halo - 2 * model.divisor <= reach <= model.halo


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("nnunet", {"features": (8,)}, "NNUNet: features must name two stages or more"),
        ("nnunet", {"norm": "spectral"}, "NNUNet: norm must be one of"),
        ("resenc_unet", {"act": "tanh"}, "ResEncUNet: act must be one of"),
        ("nnunet", {"strides": (1, 2)}, "strides must have one entry for each of"),
        ("nnunet", {"kernels": (3, 2, 3)}, r"kernels must be odd, got \(3, 2, 3\)"),
        ("nnunet", {"strides": (2, 2, 2)}, r"begin with 1, got \(2, 2, 2\)"),
        ("nnunet", {"strides": (1, (1, 2), (1, 2, 2))}, "all two or all three axes"),
        ("resenc_unet", {"blocks": (1, 2)}, r"each of the 3 stages, got \(1, 2\)"),
    ],
)
def test_what_is_no_topology_is_refused(name, options, text):
    with pytest.raises(ValueError, match=text):
        make(name, **options)
