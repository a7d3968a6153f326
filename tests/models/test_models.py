"""What every network promises, on widths of four and images of 8 to 32 pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.models import blocks, create_model

KEY = jax.random.key(0, impl="rbg")
SMALL = {
    "unet": ("unet", {"features": (4, 8, 8)}),
    "unet_bilinear": ("unet", {"features": (4, 8, 8), "upsample": "bilinear"}),
    "cresunet": ("cresunet", {"base_features": 4}),
}
each = pytest.mark.parametrize("case", SMALL)


def make(case, **overrides):
    name, options = SMALL[case]
    return create_model(name, **{**options, **overrides})


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


@functools.cache
def start(model, channels=2, rank=2):
    """Variables away from their simple start, so that no term can hide."""
    x = jnp.zeros((1, *(model.min_size,) * rank, channels))
    shapes = jax.eval_shape(lambda: model.init({"params": KEY}, x, train=False))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        value = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)
        if path[-1].key in ("scale", "var"):
            value = 1 + 0.3 * np.abs(value)
        elif path[-1].key in ("bias", "mean"):
            value = 0.2 * value
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def predict(model):
    return jax.jit(functools.partial(model.apply, train=False))


@each
def test_odd_sizes_are_mirrored_and_cropped(case):
    model = make(case, num_classes=3)
    x = images(1, 11, 21, 2)
    logits = predict(model)(start(model), x)
    assert logits.shape == (1, 11, 21, 3) and logits.dtype == jnp.float32
    assert np.all(np.isfinite(logits))
    pads = [(0, -n % model.divisor) for n in (11, 21)]
    whole = np.pad(x, [(0, 0), *pads, (0, 0)], mode="reflect")
    expected = predict(model)(start(model), whole)[:, :11, :21]
    np.testing.assert_array_equal(logits, expected)


@each
def test_three_dimensions(case):
    model = make(case)
    size = model.min_size
    x = images(1, size, size + 3, size, 1)
    logits = predict(model)(start(model, 1, rank=3), x)
    assert logits.shape == x.shape
    assert np.all(np.isfinite(logits))


@each
def test_what_cannot_be_segmented_is_refused(case):
    model = make(case)
    call = functools.partial(model.apply, start(model))
    least = model.min_size
    text = rf"at least {least} pixels, got \({least - 1}, 16\)"
    with pytest.raises(ValueError, match=text):
        call(images(1, least - 1, 16, 2))
    with pytest.raises(
        ValueError, match=r"rank 2 or 3\), got \(16, 16, 2\).*x\[None\]"
    ):
        call(images(16, 16, 2))
    with pytest.raises(ValueError, match="spatial rank 2 or 3"):
        call(images(1, 16, 16, 16, 16, 2))
    with pytest.raises(TypeError, match="floating point, got uint8"):
        call(jnp.zeros((1, 16, 16, 2), jnp.uint8))


def test_instance_norm_needs_two_pixels_at_the_bottleneck():
    for case, least in (("unet", 8), ("cresunet", 16)):
        assert make(case, norm="instance").min_size == least


@each
def test_a_batch_is_its_images_one_by_one_with_and_without_jit(case):
    model = make(case)
    variables, x = start(model), images(3, 8, 16, 2)
    batch = predict(model)(variables, x)
    single = [predict(model)(variables, x[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(batch, jnp.stack(single), rtol=1e-5, atol=1e-5)
    stacked = jax.vmap(lambda x: predict(model)(variables, x[None])[0])(x)
    np.testing.assert_allclose(batch, stacked, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(batch, model.apply(variables, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "instance", "layer", None])
def test_other_norms_run_and_treat_images_alone(norm):
    for case in ("unet", "cresunet"):
        model = make(case, norm=norm)
        variables, x = start(model), images(2, 16, 16, 2)
        assert "batch_stats" not in variables
        logits = jax.jit(functools.partial(model.apply, train=True))(variables, x)
        alone = predict(model)(variables, x[1:])
        np.testing.assert_allclose(logits[1:], alone, atol=1e-5)
        assert (model.halo is None) == (norm is not None)


@each
def test_bfloat16_computes_roughly_the_same(case):
    model = make(case)
    half = make(case, dtype=jnp.bfloat16)
    variables, x = start(model), images(2, 16, 16, 2)
    key = {"params": KEY}
    fresh = jax.eval_shape(lambda: half.init(key, x.astype(jnp.bfloat16)))
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    logits, expected = predict(half)(variables, x), predict(model)(variables, x)
    assert logits.dtype == jnp.float32
    assert 0 < np.max(np.abs(logits - expected)) < 0.5 * np.std(expected)
    apply = functools.partial(half.apply, train=True, mutable=["batch_stats"])
    logits, updated = jax.jit(apply)(variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}
    assert np.all(np.isfinite(logits))


def forward_and_back(model, variables, x):
    """Logits, new statistics and gradients of a loss without symmetry."""
    weights = images(*x.shape[:-1], 1, seed=3) - 0.4

    def objective(params):
        logits, updated = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(weights * logits), (logits, updated.get("batch_stats"))

    return jax.jit(jax.grad(objective, has_aux=True))(variables["params"])


@each
def test_training_moves_statistics_and_reaches_every_parameter(case):
    model = make(case)
    variables, x = start(model), images(2, 16, 16, 2)
    grads, (_, updated) = forward_and_back(model, variables, x)
    moved = jax.tree.map(
        lambda new, old: bool(jnp.any(new != old)), updated, variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        size, name = float(jnp.abs(grad).max()), jax.tree_util.keystr(path)
        assert np.isfinite(size)
        if is_cancelled(path):
            assert size < 1e-4 * largest, name
        else:
            assert size > 1e-4 * largest, name


def is_cancelled(path):
    """Biases that batch norm subtracts right after they were added."""
    *_, layer, leaf = (entry.key for entry in path)
    return leaf == "bias" and layer in ("conv1", "colorspace")


@pytest.mark.parametrize(
    "case", ["unet", pytest.param("cresunet", marks=pytest.mark.slow)]
)
def test_recomputing_in_the_backward_pass_changes_nothing(case):
    model = make(case)
    variables, x = start(model), images(1, 16, 16, 2)
    grads, _ = forward_and_back(model, variables, x)
    again, _ = forward_and_back(make(case, remat=True), variables, x)
    assert jax.tree.structure(grads) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(1.0, float(jnp.abs(a).max())))


@pytest.mark.parametrize("case", ["unet", "cresunet"])
def test_synchronised_statistics_are_those_of_the_whole_batch(case):
    model = make(case, axis_name="batch")
    variables, x = start(make(case)), images(4, 8, 16, 2)
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    parallel = jax.pmap(apply, axis_name="batch", in_axes=(None, 0))
    logits, updated = parallel(variables, x.reshape(2, 2, 8, 16, 2))
    apply = functools.partial(make(case).apply, train=True, mutable=["batch_stats"])
    expected, whole = jax.jit(apply)(variables, x)
    np.testing.assert_allclose(logits.reshape(4, 8, 16, 1), expected, atol=1e-4)
    for a, b in zip(jax.tree.leaves(updated), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, jnp.stack([b, b]), atol=1e-5)


def test_colorspace_is_one_channel_and_can_be_left_out():
    shapes = start(make("cresunet"), 3)["params"]
    assert shapes["colorspace"]["kernel"].shape == (1, 1, 3, 1)
    shapes = start(make("cresunet", colorspace=False), 3)["params"]
    assert "colorspace" not in shapes
    assert shapes["enc1"]["conv1"]["kernel"].shape == (3, 3, 3, 4)


def test_bilinear_upsampling_has_no_bound_on_tiles():
    assert make("unet_bilinear").halo is None


@pytest.mark.parametrize(
    "name, options",
    [
        ("unet", {"features": (4, 4, 4)}),
        ("unet_nano", {}),
        ("cresunet", {"base_features": 2}),
    ],
)
def test_the_halo_is_the_reach_of_the_gradient(name, options):
    # SiLU has no flat half, so that a path cannot die.
    model = create_model(name, act="silu", **options)
    thin, length = model.min_size, 2 * model.halo + 4 * model.divisor
    x = images(1, thin, length, 1)
    variables = start(model, 1)

    @jax.jit
    def dependence(position):
        def pixel(x):
            logits = model.apply(variables, x, train=False)[0, :, :, 0]
            return jnp.sum(jax.lax.dynamic_index_in_dim(logits, position, 1))

        return jnp.abs(jax.grad(pixel)(x)).sum((0, 1, 3)) > 0

    reach = 0
    centre = length // 2 // model.divisor * model.divisor
    for position in range(centre, centre + model.divisor):
        touched = np.flatnonzero(dependence(position))
        reach = max(reach, position - touched[0], touched[-1] - position)
    assert model.halo - 2 * model.divisor <= reach <= model.halo


def test_tiles_with_a_halo_give_the_logits_of_the_whole_image():
    model = make("unet")
    variables, x = start(model), images(1, 16, 96, 2)
    whole = predict(model)(variables, x)
    first, margin = 32, model.halo
    tile = x[:, :, first - margin : first + 16 + margin]
    part = predict(model)(variables, tile)[:, :, margin : margin + 16]
    np.testing.assert_allclose(part, whole[:, :, first : first + 16], atol=1e-5)
    assert blocks.halo("batch", (4, 4, 2)) == margin == 24
