import jax
import jax.numpy as jnp
import pytest

from fluojax import models

KEY = jax.random.key(0, impl="rbg")


def sizes(model, channels, rank):
    """Parameters and running statistics, counted without computing them."""
    x = jnp.zeros((1, *(model.min_size,) * rank, channels))
    variables = jax.eval_shape(lambda: model.init({"params": KEY}, x, train=False))
    return {
        collection: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for collection, tree in variables.items()
    }


HALF = (32, 64, 128, 256, 512)


@pytest.mark.parametrize(
    "name, options, rank, channels, classes, expected",
    [
        ("unet", {}, 2, 1, 1, 31_036_481),
        ("unet", {}, 2, 3, 1, 31_037_633),
        ("unet", {}, 2, 1, 2, 31_036_546),
        ("unet", {"norm": None}, 2, 1, 1, 31_030_593),
        ("unet", {"norm": None}, 2, 1, 2, 31_030_658),
        ("unet", {"norm": None, "conv_bias": True}, 2, 1, 1, 31_030_593),
        ("unet", {"norm": None, "features": HALF}, 2, 1, 1, 7_759_521),
        ("unet", {"upsample": "bilinear"}, 2, 1, 1, 17_261_825),
        ("unet", {}, 3, 1, 1, 90_298_561),
        ("unet_small", {}, 2, 1, 1, 7_762_465),
        ("unet_small", {}, 2, 3, 1, 7_763_041),
        ("unet_small", {}, 3, 1, 1, 22_578_273),
        ("unet_tiny", {}, 2, 1, 1, 1_942_289),
        ("unet_tiny", {}, 2, 3, 1, 1_942_577),
        ("unet_tiny", {}, 3, 1, 1, 5_646_385),
        ("unet_nano", {}, 2, 1, 1, 486_409),
        ("unet_nano", {}, 2, 3, 1, 486_553),
        ("unet_nano", {}, 3, 1, 1, 1_412_505),
        ("cresunet", {}, 2, 1, 1, 1_707_285),
        ("cresunet", {}, 2, 3, 1, 1_707_287),
        ("cresunet", {"base_features": 32}, 2, 3, 1, 6_822_439),
        ("cresunet", {}, 3, 1, 1, 7_918_133),
        ("cresunet", {}, 3, 3, 1, 7_918_135),
        ("cresunet_nano", {}, 2, 1, 1, 427_661),
        ("cresunet_nano", {}, 2, 3, 1, 427_663),
    ],
)
def test_parameter_counts(name, options, rank, channels, classes, expected):
    model = models.create_model(name, classes, **options)
    assert sizes(model, channels, rank)["params"] == expected


def test_running_statistics_of_cresunet():
    assert sizes(models.create_model("cresunet"), 3, 2)["batch_stats"] == 1890


def test_names_are_sorted_and_all_can_be_made():
    names = models.list_models()
    assert list(names) == sorted(names) and len(set(names)) == len(names)
    for name in names:
        model = models.create_model(name)
        assert model.num_classes == 1
        assert model.min_size % model.divisor == 0
        assert model.halo is None or model.halo % model.divisor == 0


def test_the_facts_of_the_table():
    for name in ("unet", "unet_small", "unet_tiny", "unet_nano"):
        model = models.create_model(name)
        assert (model.divisor, model.min_size, model.ranks) == (16, 16, (2, 3))
    for name in ("cresunet", "cresunet_nano"):
        model = models.create_model(name)
        assert (model.divisor, model.min_size, model.ranks) == (8, 8, (2, 3))


def test_a_list_of_widths_is_as_good_as_a_tuple():
    listed = models.create_model("unet", features=[4, 8, 8])
    assert listed == models.create_model("unet", features=(4, 8, 8))
    assert hash(listed) is not None


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="did you mean cresunet") as caught:
        models.create_model("c_resunet")
    assert all(name in str(caught.value) for name in models.list_models())


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="no option 'base_featurs'.*base_features"):
        models.create_model("cresunet", base_featurs=8)
    for fact in ("parent", "momentum"):
        with pytest.raises(TypeError, match=f"no option '{fact}'"):
            models.create_model("unet", **{fact: None})


@pytest.mark.parametrize(
    "name, options, text",
    [
        ("unet", {"norm": "spectral"}, "UNet: norm must be one of 'batch'"),
        ("unet", {"act": "tanh"}, "UNet: act must be one of 'elu'"),
        ("unet", {"upsample": "cubic"}, "UNet: upsample must be one of 'deconv'"),
        ("unet", {"features": (8,)}, "two stages or more"),
        ("unet", {"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ("cresunet", {"norm": "spectral"}, "CResUNet: norm must be one of"),
        ("cresunet", {"act": "tanh"}, "CResUNet: act must be one of"),
    ],
)
def test_values_out_of_range_are_refused_at_once(name, options, text):
    with pytest.raises(ValueError, match=text):
        models.create_model(name, **options)
