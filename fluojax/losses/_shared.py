"""What all losses share: masked inputs, probabilities, sums, safe powers.

Arrays here have passed `fluojax.checks.pair`: `[B, *S, K]` in float32 or
float64. A sum over pixels keeps batch and class axes, `[B, K]`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fluojax import checks


def inputs(
    function: str, logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Checked logits, labels and `where` `[B, *S, 1 or K]` for a loss to use.

    Pixels that no class keeps become 0 in logits and labels, so that padding
    with NaN or infinity reaches neither a value nor a gradient.

    Raises:
      TypeError: `where` is not bool; else as `checks.pair`.
      ValueError: as `checks.pair` and `checks.pixel_map`.
    """
    logits, labels = checks.pair(function, logits, labels)
    where = checks.pixel_map(function, "where", where, logits)
    if where is None:
        return logits, labels, None
    if where.dtype != bool:
        raise TypeError(
            f"{function}: where must be bool, got {where.dtype}; "
            "compare it first, as in where > 0"
        )
    where = jnp.broadcast_to(where, (*logits.shape[:-1], where.shape[-1]))
    kept = jnp.any(where, axis=-1, keepdims=True)
    return jnp.where(kept, logits, 0.0), jnp.where(kept, labels, 0.0), where


def foreground(
    logits: jax.Array, labels: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Cells of any class against background: logit, label, `where` `[B, *S, 1]`.

    For losses that know one kind of cell. Of several classes, class 0 is the
    background, sigmoid of the logit is the probability of all others together,
    and a pixel counts where all its classes do.
    """
    if logits.shape[-1] == 1:
        return logits, labels, where
    ahead = jax.nn.logsumexp(logits[..., 1:], axis=-1, keepdims=True)
    if where is not None:
        where = jnp.all(where, axis=-1, keepdims=True)
    return ahead - logits[..., :1], 1.0 - labels[..., :1], where


def instance_map(
    function: str, name: str, value: ArrayLike, like: jax.Array
) -> jax.Array:
    """`value` `[B, *S]` of integers as int32, checked against logits.

    Raises:
      TypeError: it is not an integer array.
      ValueError: its shape is not that of the logits without the classes.
    """
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(
            f"{function}: {name} must be integers, 0 for background, got {value.dtype}"
        )
    if value.shape != like.shape[:-1]:
        raise ValueError(
            f"{function}: {name} must be {like.shape[:-1]} for logits {like.shape}, "
            f"got {value.shape}; it has no class axis"
        )
    return value.astype(jnp.int32)


def pixel_weights(
    function: str, weights: ArrayLike | None, logits: jax.Array
) -> jax.Array | None:
    """`weights` `[B, *S, 1 or K]` in the dtype of the logits, or None."""
    weights = checks.pixel_map(function, "weights", weights, logits)
    return None if weights is None else weights.astype(logits.dtype)


def class_vector(
    function: str,
    name: str,
    values: Sequence[float] | ArrayLike | None,
    num_classes: int,
    like: jax.Array,
) -> jax.Array:
    """`values` as `[num_classes]` in the dtype of `like`; ones if None.

    Raises:
      ValueError: there is not exactly one value per class.
    """
    if values is None:
        return jnp.ones(num_classes, like.dtype)
    if np.shape(values) != (num_classes,):
        raise ValueError(
            f"{function}: {name} must hold one number for each of {num_classes} "
            f"classes, got shape {np.shape(values)}"
        )
    return jnp.asarray(values, like.dtype)


def along_classes(values: jax.Array, like: jax.Array) -> jax.Array:
    """`[K]` reshaped to the rank of `like`, to multiply `[..., K]`."""
    return values.reshape((1,) * (like.ndim - 1) + values.shape)


@jax.custom_jvp
def sigmoid(logits: jax.Array) -> jax.Array:
    """Logistic function whose slope is p · (1 - p) at any logit.

    The usual slope takes 1 - p from the rounded p, which is 0 in float32 from
    a logit of 17 on: confident errors would have no gradient.
    """
    return jax.nn.sigmoid(logits)


@sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    (logits,), (tangent,) = primals, tangents
    probs = sigmoid(logits)
    return probs, tangent * probs * sigmoid(-logits)


def magnitude(x: jax.Array) -> jax.Array:
    """|x| with slope 0 at 0, where that of `jnp.abs` is 1."""
    return jnp.maximum(x, -x)


def log_sigmoids(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log p and log(1 - p) for p = sigmoid(logits), from one exponential.

    Equal to `jax.nn.log_sigmoid` of both signs, with its gradients.
    """
    rest = _log1p_exp(logits)
    return jnp.minimum(logits, 0.0) - rest, -jnp.maximum(logits, 0.0) - rest


@jax.custom_jvp
def _log1p_exp(x: jax.Array) -> jax.Array:
    """log(1 + exp(-|x|)), to two units in the last place."""
    small = jnp.exp(-magnitude(x))
    if x.dtype != jnp.float32:
        return jnp.log1p(small)
    # XLA's log1p keeps a CPU from vectorising what it is fused with, which takes
    # cross-entropy twice and focal loss three times as long as this series of
    # 2 atanh(s) for s up to 1/3.
    s = small / (2.0 + small)
    series = jnp.full_like(s, 1 / 13)
    for n in (11, 9, 7, 5, 3, 1):
        series = series * (s * s) + 1 / n
    return 2.0 * s * series


@_log1p_exp.defjvp
def _log1p_exp_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    slope = -jnp.sign(x) * jax.nn.sigmoid(-magnitude(x))
    return _log1p_exp(x), slope * tangent


def pixel_sum(values: jax.Array) -> jax.Array:
    """`[B, *S, K]` summed over the pixels of each image: `[B, K]`."""
    return pixel_sums(values)[0]


def pixel_sums(*maps: jax.Array) -> tuple[jax.Array, ...]:
    """The `pixel_sum` of each map; together they cost little more than one."""
    flat = [values.reshape(values.shape[0], -1, values.shape[-1]) for values in maps]
    if jax.default_backend() != "cpu":
        return tuple(values.sum(axis=1) for values in flat)
    return _sums_by_product(*flat)


@jax.custom_jvp
def _sums_by_product(*maps: jax.Array) -> tuple[jax.Array, ...]:
    """Sums of `[B, N, K]` over N, as a product with ones.

    XLA's CPU compiler runs a fused sum element by element; it does not fuse into
    a product, which makes Dice 2 and cross-entropy 8 times faster. Maps of
    several sums are one array, because one fusion with several results is slow.
    """
    ones = jnp.ones(maps[0].shape[1], maps[0].dtype)
    sums = jnp.einsum("mbnk,n->mbk", jnp.stack(maps), ones, precision="highest")
    return tuple(sums)


@_sums_by_product.defjvp
def _sums_by_product_jvp(primals, tangents):
    # Turned round, a sum spreads its gradient; the product would write it out.
    return _sums_by_product(*primals), tuple(t.sum(axis=1) for t in tangents)


def masked(values: jax.Array, where: jax.Array | None) -> jax.Array:
    """`values` with 0 at the pixels that do not count."""
    return values if where is None else jnp.where(where, values, 0.0)


def pixel_count(where: jax.Array | None, like: jax.Array) -> jax.Array:
    """Pixels that count, `[B, 1 or K]`, in the dtype of `like`."""
    if where is None:
        pixels = np.prod(like.shape[1:-1])
        return jnp.full((like.shape[0], 1), pixels, like.dtype)
    return pixel_sum(where.astype(like.dtype))


def ratio(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """top / bottom, and 0 with zero gradient where bottom is 0."""
    known = bottom > 0
    return jnp.where(known, top, 0.0) / jnp.where(known, bottom, 1.0)


def power(base: jax.Array, exponent: float) -> jax.Array:
    """base ** exponent for base >= 0, with slope 0 at 0 where it has none.

    A fractional power below 1 rises with infinite slope from 0, which turns
    into NaN when multiplied by a gradient of 0.
    """
    if isinstance(exponent, int | float) and float(exponent).is_integer():
        return base ** int(exponent)
    positive = base > jnp.finfo(base.dtype).tiny
    safe = jnp.where(positive, base, 1.0)
    if isinstance(exponent, int | float) and float(4 * exponent).is_integer():
        # Roots are many times faster than powers on a CPU.
        root = jnp.sqrt(safe)
        halves = 2 * exponent
        if not float(halves).is_integer():
            root, halves = jnp.sqrt(root), 2 * halves
        return jnp.where(positive, root ** int(halves), 0.0)
    return jnp.where(positive, safe**exponent, 0.0)


def weigh(
    function: str, weights: Sequence[float], terms: dict[str, jax.Array]
) -> jax.Array:
    """Σ weight · term over the terms of a compound loss.

    Raises:
      ValueError: there is not exactly one weight per term.
    """
    if len(weights) != len(terms):
        raise ValueError(
            f"{function}: weights must be {len(terms)} numbers, for "
            f"{', '.join(terms)}, got {weights!r}"
        )
    parts = [
        weight * term for weight, term in zip(weights, terms.values(), strict=True)
    ]
    return sum(parts[1:], start=parts[0])
