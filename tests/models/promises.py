"""What every network promises, as checks that a test of one network calls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

KEY = jax.random.key(0, impl="rbg")


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def shapes(model, channels, rank=2):
    """The tree of variables, nothing computed."""
    x = jax.ShapeDtypeStruct((1, *(model.min_size,) * rank, channels), jnp.float32)
    key = {"params": KEY}
    return jax.eval_shape(lambda x: model.init(key, x, train=False), x)


def count(model, channels, rank=2):
    leaves = jax.tree.leaves(shapes(model, channels, rank)["params"])
    return sum(leaf.size for leaf in leaves)


@functools.cache
def start(model, channels=2, rank=2):
    """Variables away from their simple start, so that no term can hide."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        value = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)
        if path[-1].key in ("scale", "var"):
            value = 1 + 0.3 * np.abs(value)
        elif path[-1].key in ("bias", "mean"):
            value = 0.2 * value
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes(model, channels, rank))


@functools.cache
def predict(model):
    return jax.jit(functools.partial(model.apply, train=False))


def check_odd_sizes(model, sizes, channels=2):
    """Mirrored to the divisor and cropped; a batch is its images one by one."""
    variables, x = start(model, channels, len(sizes)), images(2, *sizes, channels)
    logits = predict(model)(variables, x)
    assert logits.shape == (2, *sizes, model.num_classes)
    assert logits.dtype == jnp.float32 and np.all(np.isfinite(logits))
    pads = [(0, -n % model.divisor) for n in sizes]
    whole = np.pad(x[1:], [(0, 0), *pads, (0, 0)], mode="reflect")
    alone = predict(model)(variables, whole)
    alone = alone[(0, *(slice(n) for n in sizes))]
    np.testing.assert_allclose(logits[1], alone, atol=1e-4 * np.std(alone))


def check_refusals(model, name):
    """Images too small, without batch, of another rank or of integers."""
    call = functools.partial(jax.eval_shape, model.apply, shapes(model, 2))
    least = model.min_size
    with pytest.raises(ValueError, match=rf"{name}: .* at least {least} pixels"):
        call(images(1, least - 1, 2 * least, 2))
    with pytest.raises(ValueError, match=r"got \(64, 64, 2\).*x\[None\]"):
        call(images(64, 64, 2))
    wrong = next(rank for rank in (3, 4) if rank not in model.ranks)
    with pytest.raises(ValueError, match=rf"{name}: .*spatial rank 2"):
        call(jax.ShapeDtypeStruct((1, *(64,) * wrong, 2), jnp.float32))
    with pytest.raises(TypeError, match="floating point, got uint8"):
        call(jnp.zeros((1, 64, 64, 2), jnp.uint8))


def check_bfloat16(model, size, channels=2, bound=0.5):
    """Parameters and logits stay float32; the logits are roughly the same."""
    half = model.clone(dtype=jnp.bfloat16)
    leaves = jax.tree.leaves(shapes(half, channels))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    variables, x = start(model, channels), images(1, *size, channels)
    logits, expected = predict(half)(variables, x), predict(model)(variables, x)
    assert logits.dtype == jnp.float32 and np.all(np.isfinite(logits))
    assert 0 < np.max(np.abs(logits - expected)) < bound * np.std(expected)


def check_gradients(model, size, cancelled, channels=2, rngs=None):
    """Finite and reaching all parameters but those whose path is `cancelled`.

    Running statistics, if there are any, move. Outputs of deep supervision all
    count.
    """
    variables, x = start(model, channels, len(size)), images(2, *size, channels)

    @functools.partial(jax.jit, static_argnames="model")
    @functools.partial(jax.grad, has_aux=True)
    def gradients(params, model):
        outputs, updated = model.apply(
            {**variables, "params": params},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs=rngs,
        )
        total = 0.0
        for i, logits in enumerate(jax.tree.leaves(outputs)):
            weights = images(*logits.shape, seed=3 + i) - 0.4
            total += jnp.sum(weights * logits)
        return total, updated

    grads, updated = gradients(variables["params"], model)
    if "batch_stats" in variables:
        moved = jax.tree.map(
            lambda new, old: bool(jnp.any(new != old)),
            updated["batch_stats"],
            variables["batch_stats"],
        )
        assert all(jax.tree.leaves(moved))
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = "/".join(entry.key for entry in path)
        size = float(jnp.abs(grad).max())
        assert np.isfinite(size), name
        if cancelled(name):
            assert size < 1e-4 * largest, name
        else:
            assert size > 1e-6 * largest, name
