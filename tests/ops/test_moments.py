"""Moments of images and regions, and local moments in windows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from fluojax import ops
from fluojax.ops.local_moments import local_moment_energy

pytestmark = pytest.mark.usefixtures("strict_promotion")

# A far-off blob, an image with a negative mass, a volume, a single row.
IMAGES = ((7, 9), (1, 6), (4, 5, 6))


def run(function, *arrays, **options):
    """`function` compiled once, with all arrays among the options as arguments."""
    maps = {k: jnp.asarray(v) for k, v in options.items() if hasattr(v, "shape")}
    static = {k: v for k, v in options.items() if k not in maps}
    call = jax.jit(lambda arrays, maps: function(*arrays, **maps, **static))
    return call(arrays, maps)


def picture(shape, seed=0):
    return np.random.default_rng(seed).uniform(0.0, 1.0, shape)


def up_to(order, array):
    """What scikit-image computes too: total orders up to `order`."""
    return np.asarray(array)[np.indices(array.shape).sum(axis=0) <= order]


def test_moments_by_hand():
    # One pixel of mass 2 at row 1, column 3.
    image = jnp.zeros((3, 5)).at[1, 3].set(2.0)
    found = run(ops.moments, image, order=2)
    np.testing.assert_allclose(found, 2.0 * np.outer([1, 1, 1], [1, 3, 9]))
    np.testing.assert_allclose(run(ops.centroids, image), [1.0, 3.0])
    expected = np.zeros((3, 3))
    expected[0, 0] = 2.0
    np.testing.assert_allclose(run(ops.central_moments, image, order=2), expected)


@pytest.mark.parametrize("shape", IMAGES)
def test_moments_agree_with_scikit_image(shape):
    image = picture(shape)
    pairs = (
        (ops.moments, measure.moments(image)),
        (ops.central_moments, measure.moments_central(image)),
        (
            ops.normalized_moments,
            measure.moments_normalized(measure.moments_central(image)),
        ),
    )
    for function, expected in pairs:
        found = np.asarray(run(function, jnp.asarray(image, jnp.float32)))
        largest = np.nanmax(np.abs(expected))
        np.testing.assert_allclose(
            up_to(3, found), up_to(3, expected), rtol=1e-4, atol=1e-6 * largest
        )


def test_hu_moments_agree_with_scikit_image_rows_first():
    image = picture((9, 7)) ** 4
    expected = measure.moments_hu(
        measure.moments_normalized(measure.moments_central(image))
    )
    found = run(ops.hu_moments, jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)
    mirrored = run(ops.hu_moments, jnp.asarray(image.T, jnp.float32))
    np.testing.assert_allclose(mirrored[:6], found[:6], rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(mirrored[6], -found[6], rtol=1e-2, atol=1e-9)


def test_a_small_cell_far_from_the_origin_keeps_its_digits_in_float32():
    cell = picture((9, 9)) + 0.5
    image = np.zeros((1200, 1600))
    image[1150:1159, 1580:1589] = cell
    expected = measure.moments_central(cell)
    found = run(ops.central_moments, jnp.asarray(image, jnp.float32))
    tolerance = np.array(
        [[cell.sum() * 4.0 ** (i + j) for j in range(4)] for i in range(4)]
    )
    apart = np.abs(np.asarray(found) - expected) / tolerance
    assert np.max(up_to(3, apart)) < 2e-4


def test_an_empty_image_has_no_centre_and_no_slope():
    empty = jnp.zeros((4, 5))
    np.testing.assert_array_equal(run(ops.moments, empty), np.zeros((4, 4)))
    for function in (ops.centroids, ops.central_moments, ops.normalized_moments):
        assert np.all(np.isnan(run(function, empty)))
        slope = run(jax.grad(lambda x, f=function: jnp.nansum(f(x))), empty)
        assert np.all(np.isfinite(slope))
    assert np.all(np.isnan(run(ops.hu_moments, empty)))


def regions_map():
    labels = np.zeros((8, 9), np.int32)
    labels[1:4, 1:3], labels[5:8, 4:9], labels[0, 8] = 7, -2, 70000
    labels[7, 0] = 7  # in two places
    return labels


def test_region_moments_agree_with_scikit_image():
    labels, image = regions_map(), picture((8, 9))
    found = run(
        ops.region_moments, labels, jnp.asarray(image, jnp.float32), max_instances=5
    )
    np.testing.assert_array_equal(found.ids, [-2, 7, 70000, 0, 0])
    assert found.count == 3
    for row, label in enumerate((-2, 7, 70000)):
        (region,) = measure.regionprops((labels == label).astype(int), image)
        np.testing.assert_allclose(found.areas[row], region.area)
        central = measure.moments_central(
            np.where(labels == label, image, 0.0), order=2
        )
        np.testing.assert_allclose(found.masses[row], central[0, 0], rtol=1e-6)
        np.testing.assert_allclose(
            found.centroids[row], region.centroid_weighted, rtol=1e-5
        )
        second = [[central[2, 0], central[1, 1]], [central[1, 1], central[0, 2]]]
        np.testing.assert_allclose(found.second[row], second, rtol=1e-4, atol=1e-5)
    assert np.all(np.isnan(found.centroids[3:]))


def test_regions_beyond_the_bound_are_counted_but_have_no_row():
    labels = regions_map()
    every = run(ops.region_moments, labels, max_instances=3)
    few = run(ops.region_moments, labels, max_instances=2)
    assert few.count == 3
    chex.assert_trees_all_equal(few[:5], tuple(part[:2] for part in every[:5]))


def test_region_moments_of_a_volume_and_a_batch():
    volume = np.zeros((2, 4, 5, 6), np.int32)
    volume[0, 1:3, 1:4, 2:5], volume[1, 3, 0:2, 0:2] = 2, 1
    batch = jax.jit(jax.vmap(lambda v: ops.region_moments(v, max_instances=2)))(volume)
    np.testing.assert_array_equal(batch.areas, [[18, 0], [4, 0]])
    np.testing.assert_allclose(batch.centroids[:, 0], [[1.5, 2, 3], [3, 0.5, 0.5]])


def slow_field(x, kernels):
    """Correlation with one kernel per axis, 0 outside."""
    for axis, kernel in enumerate(kernels):
        x = ndimage.correlate1d(x, kernel, axis=axis, mode="constant")
    return x


@pytest.mark.parametrize("shape", [(70, 33), (6, 5, 9)])
@pytest.mark.parametrize("basis", ["hermite", "raw"])
def test_local_moments_are_separable_correlations(shape, basis):
    image = picture(shape)
    taps = ops.moment_taps(1.5, 2, basis=basis)
    fields = run(
        ops.local_moments, jnp.asarray(image, jnp.float32), scale=1.5, basis=basis
    )
    indices = ops.moment_indices(len(shape), 2)
    assert fields.shape == (len(indices), *shape)
    for field, index in zip(fields, indices, strict=True):
        kernels = [taps.weights * taps.polynomials[a] for a in index]
        expected = slow_field(image, kernels)
        np.testing.assert_allclose(field, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_fields():
    order = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    assert ops.moment_indices(2, 2) == order
    assert len(ops.moment_indices(3, 2)) == 10


@pytest.mark.parametrize("scale", [0.01, 0.5, 2.0, 7.3])
def test_polynomials_are_orthonormal_under_the_window(scale):
    taps = ops.moment_taps(scale)
    gram = (taps.polynomials * taps.weights) @ taps.polynomials.T
    # The window of a single pixel leaves nothing for higher orders.
    expected = np.eye(3) if scale > 0.1 else np.diag([1.0, 0.0, 0.0])
    np.testing.assert_allclose(gram, expected, atol=1e-12)
    assert len(taps.positions) == 2 * max(1, np.ceil(3 * scale)) + 1


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((30, 14), (1.0, 0.5)), ((20, 5), (1.0,)), ((14, 15, 6), (1.0,))],
)
@pytest.mark.parametrize("weights", [(1.0, 0.5, 0.25), (0.0, 1.0)])
def test_the_energy_is_the_sum_of_squared_fields_up_to_the_border(
    shape, scales, weights
):
    # Axes longer than 12 pixels go through Fourier transforms, others do not.
    with jax.enable_x64(True):
        image = jnp.asarray(picture(shape))

        def direct(x):
            total = 0.0
            for scale in scales:
                fields = ops.local_moments(x, scale, order=len(weights) - 1)
                for index, field in zip(
                    ops.moment_indices(x.ndim, len(weights) - 1), fields, strict=True
                ):
                    total = total + weights[sum(index)] * jnp.sum(field**2)
            return total / len(scales)

        def energy(x):
            return local_moment_energy(x, scales, order_weights=weights)

        expected, found = (
            jax.jit(jax.value_and_grad(f))(image) for f in (direct, energy)
        )
    chex.assert_trees_all_close(found, expected, rtol=1e-11, atol=1e-12)


def test_the_energy_of_a_batch_in_float32_is_that_of_its_images():
    images = jnp.asarray(picture((3, 40, 30)) - 0.5, jnp.float32)
    energy = jax.value_and_grad(lambda x: local_moment_energy(x, (1.0, 2.0)))
    batch = jax.jit(jax.vmap(energy))(images)
    alone = [jax.jit(energy)(image) for image in images]
    chex.assert_trees_all_close(
        batch, jax.tree.map(lambda *x: jnp.stack(x), *alone), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ops.moments(x[0]), r"moments: image must be \[rows"),
        (lambda x: ops.moments(x, order=-1), "order must be >= 0, got -1"),
        (lambda x: ops.normalized_moments(x, order=1), "order must be >= 2, got 1"),
        (
            lambda x: ops.hu_moments(x[None]),
            r"hu_moments: image must be \[rows, columns\]",
        ),
        (
            lambda x: ops.region_moments(x > 0, x[1:]),
            "image must have the shape of labels",
        ),
        (
            lambda x: ops.region_moments(x > 0, max_instances=0),
            "max_instances must be >= 1",
        ),
        (lambda x: ops.local_moments(x, 0.0), "scale and truncate must be positive"),
        (lambda x: ops.local_moments(x, 0.2, order=3), "order must be in 0..2"),
        (
            lambda x: ops.local_moments(x, 1.0, basis="sine"),
            'must be "hermite" or "raw"',
        ),
        (lambda x: local_moment_energy(x, ()), "must not be empty"),
    ],
)
def test_what_is_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call(jnp.ones((3, 4)))


def test_labels_that_are_not_integers_are_refused():
    with pytest.raises(TypeError, match="region_moments: labels must be integers"):
        ops.region_moments(jnp.ones((3, 4)))
