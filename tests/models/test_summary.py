import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from fluojax import models
from fluojax.catalog import COSTS
from fluojax.models import create_model, summary
from tests.models import promises


@pytest.mark.parametrize(
    "name, size, expected",
    [
        ("transunet", 224, 58.34),
        ("transunet", 512, 336.19),
        ("transunet_small", 512, 41.87),
    ],
)
def test_operations_of_transunet(name, size, expected):
    found = summary.flops(create_model(name), (size, size), 3)
    assert found / 1e9 == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("name", ["unet_nano", "nnunet", "unext_s", "cresunet"])
def test_the_stages_add_up(name):
    *stages, total = summary.layer_table(create_model(name), (64, 96), 2)
    assert total.path == () and total.shape == (64, 96, 1)
    assert sum(row.parameters for row in stages) == total.parameters
    assert sum(row.flops for row in stages) == total.flops
    assert all(row.flops and len(row.path) == 1 for row in stages)


def test_recomputed_stages_are_counted_once():
    table = [
        summary.layer_table(create_model("unet_nano", remat=remat), (64, 64))
        for remat in (False, True)
    ]
    assert table[0] == table[1]


def test_the_table_by_hand():
    model = create_model("unet", features=(2, 3), norm=None)
    rows = summary.layer_table(model, (4, 6), depth=2)
    table = {"/".join(path): (shape, n, ops) for path, shape, n, ops in rows}
    assert table["enc1/conv1"] == ((4, 6, 2), 9 * 2 + 2, 2 * 24 * 9 * 2)
    # Four products for each pixel below, from 3 channels to 2.
    assert table["dec1/up"] == ((4, 6, 2), 4 * 6 + 2, 2 * 6 * 4 * 6)
    assert table["head"] == ((4, 6, 1), 3, 2 * 24 * 2)
    text = summary.summarize(model, (4, 6), depth=2).splitlines()
    assert text[0].split() == ["layer", "output", "parameters", "GFLOPs"]
    assert text[-1].split()[:-2] == ["total", "4", "x", "6", "x", "1"]
    assert len({len(line) for line in text}) == 1


class Loops(nn.Module):
    """A scan of five products, a branch of one and two, a transposed convolution."""

    @nn.compact
    def __call__(self, x, train=False):
        y = x[0, :, :, 0]
        y, _ = jax.lax.scan(lambda y, _: (y @ y, None), y, length=5)
        y = jax.lax.cond(y[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, y)
        layout = ("NHWC", "HWIO", "NHWC")
        up = jax.lax.conv_transpose(
            x, jnp.ones((2, 2, 1, 3)), (2, 2), "VALID", dimension_numbers=layout
        )
        return up + y[0, 0]


def test_loops_branches_and_transposed_convolutions():
    product, up = 2 * 4**3, 2 * 16 * 4 * 3
    assert summary.flops(Loops(), (4, 4)) == 7 * product + up


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 16 pixels"):
        summary.flops(create_model("unet"), (8, 32))


@pytest.mark.parametrize("name", models.list_models())
def test_the_printed_costs_are_those_of_the_models(name):
    cost = COSTS[name]
    model = models.create_model(name)
    *sizes, channels = map(int, cost.image.split("x"))
    found = models.flops(model, sizes, channels) / 1e9
    assert found == pytest.approx(cost.gflops, rel=0.01)
    assert promises.count(model, 1) == cost.parameters
    assert (model.divisor, model.ranks) == (cost.divisor, cost.ranks)


def test_every_model_has_its_costs():
    assert tuple(COSTS) == models.list_models()
