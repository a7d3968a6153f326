import jax
import numpy as np
import pytest
from jax import lax

from fluojax.models.convolution import convolution


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "dilation"),
    [
        ((2, 6, 5, 3), (1, 1, 3, 4), (1, 1), (1, 1)),
        ((1, 7, 6, 3), (1, 1, 3, 2), (2, 2), (1, 1)),
        ((2, 9, 7, 3), (3, 3, 1, 3), (1, 1), (1, 1)),
        ((1, 9, 8, 5), (3, 5, 1, 5), (2, 2), (1, 1)),
        ((1, 12, 9, 2), (3, 3, 1, 2), (1, 1), (3, 3)),
        ((1, 5, 6, 7, 2), (3, 3, 3, 1, 2), (2, 1, 2), (1, 1, 1)),
        ((2, 6, 5, 130), (3, 3, 130, 129), (1, 1), (2, 2)),
        ((1, 4, 3, 3, 128), (1, 3, 3, 128, 128), (1, 1, 1), (1, 1, 1)),
        ((2, 6, 5, 4), (3, 3, 2, 6), (1, 1), (1, 1)),
    ],
    ids=str,
)
def test_every_form_is_the_convolution(shape, kernel, strides, dilation):
    rng = np.random.default_rng(0)
    given = [rng.normal(size=n).astype(np.float32) for n in (shape, kernel)]
    sizes = kernel[:-2]
    padding = [(d * (k // 2),) * 2 for d, k in zip(dilation, sizes, strict=True)]
    axes = "DHW"[-len(sizes) :]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    options = {
        "rhs_dilation": dilation,
        "dimension_numbers": lax.conv_dimension_numbers(shape, kernel, layout),
        "feature_group_count": shape[-1] // kernel[-2],
    }

    @jax.jit
    def both(*given):
        results = []
        for function in (convolution, lax.conv_general_dilated):

            def squares(image, kernel, function=function):
                found = function(image, kernel, strides, padding, **options)
                return (found**2).sum(), found

            results.append(jax.value_and_grad(squares, (0, 1), has_aux=True)(*given))
        return results

    found, expected = both(*given)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            x, y, rtol=1e-4, atol=1e-4 * abs(y).max()
        ),
        found,
        expected,
    )
