"""Layers that the networks share: pooling, up-sampling, norms, padding, reach.

Arrays are channels last, `[B, *S, C]` with spatial rank 2 or 3, and every layer
takes either rank. `dtype` is the type in which convolutions compute; statistics
and affine parameters of norms, heads and logits are float32 whatever it is.

Pooling and the transposed convolution are written as reshapes and one matrix
product because that halves the time of a training step on a CPU; they compute
what `lax.reduce_window` and `lax.conv_transpose` do, except that the gradient
of a tie in pooling is shared evenly instead of going to one pixel.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fluojax.models.convolution import convolution
from fluojax.ops.resize import weighted_along

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "silu": nn.silu,
}
NORMS = ("batch", "group", "instance", "layer", None)
Spread = int | Sequence[int]  # one number for all spatial axes, or one for each

_LAYOUTS = {
    2: "[batch, rows, columns, channels]",
    3: "[batch, depth, rows, columns, channels]",
}


def spread(value: Spread, rank: int) -> tuple[int, ...]:
    """One number for each of `rank` axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


@dataclasses.dataclass(frozen=True)
class Layers:
    """What the convolutions and norms of one model have in common.

    Its methods build and apply a Flax layer, so they may be called only inside
    a compact method; `name` becomes the layer's name in the parameter tree.

    Attributes:
      norm: "batch"; "group" (groups of C / gcd(C, 8) channels); "instance" (each
        channel alone); "layer" (all channels together); or None. All but
        batch norm take their statistics over the whole image of one item.
      act: a name in `ACTIVATIONS`.
      bias: whether the convolutions of `conv` have a bias.
      eps: added to the variance.
      momentum: what remains of the running statistics in one step.
      axis_name: mapped axis over which batch statistics are averaged, or None.
    """

    norm: str | None = "batch"
    act: str = "relu"
    bias: bool = True
    eps: float = 1e-5
    momentum: float = 0.9
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    def conv(
        self,
        x: jax.Array,
        features: int,
        size: Spread,
        name: str,
        *,
        stride: Spread = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool | None = None,
    ) -> jax.Array:
        """A convolution of odd `size`, zeros on both sides: n to ceil(n / stride).

        `bias` overrides that of the layers.
        """
        sizes = spread(size, x.ndim - 2)
        return nn.Conv(
            features,
            sizes,
            strides=spread(stride, x.ndim - 2),
            # "SAME" would shift the grid of a strided convolution by a pixel.
            padding=[(dilation * (n // 2),) * 2 for n in sizes],
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=self.bias if bias is None else bias,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=convolution,
            name=name,
        )(x)

    def up(
        self, x: jax.Array, features: int, name: str, stride: Spread = 2
    ) -> jax.Array:
        """The transposed convolution that makes every axis `stride` times longer."""
        return UpConv(features, stride, self.dtype, self.param_dtype, name=name)(x)

    def norm_act(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """The norm (none if `norm` is None), then the activation."""
        return ACTIVATIONS[self.act](self.normalize(x, name, train))

    def dense(self, x: jax.Array, features: int, name: str) -> jax.Array:
        """A biased matrix product over the channels, as transformers start it."""
        return nn.Dense(
            features,
            kernel_init=nn.initializers.truncated_normal(0.02),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x)

    def token_norm(self, x: jax.Array, name: str, eps: float = 1e-5) -> jax.Array:
        """Layer norm of every pixel or token alone, over its channels."""
        return nn.LayerNorm(epsilon=eps, dtype=self.dtype, name=name)(x)

    def normalize(
        self, x: jax.Array, name: str, train: bool, *, zero: bool = False
    ) -> jax.Array:
        """The norm alone; its scale starts from 0 if `zero`, else from 1."""
        if self.norm is None:
            return x
        start = nn.initializers.zeros_init() if zero else nn.initializers.ones_init()
        if self.norm == "batch":
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                epsilon=self.eps,
                dtype=self.dtype,
                scale_init=start,
                axis_name=self.axis_name,
                name=name,
            )(x)
        channels = x.shape[-1]
        groups = {"group": math.gcd(channels, 8), "instance": channels, "layer": 1}
        return GroupNorm(groups[self.norm], self.eps, self.dtype, start, name=name)(x)


class GroupNorm(nn.Module):
    """Mean 0 and variance 1 of groups of channels over the image of each item.

    Channels are summed one by one and then put together: a CPU adds up an image
    of many channels several times faster than one of groups. Statistics and
    parameters (`scale`, `bias`) are float32.
    """

    groups: int
    eps: float
    dtype: Any = jnp.float32
    scale_init: Callable = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        flat = x.reshape(len(x), -1, channels).astype(jnp.float32)
        mean, square = self._of_group(flat), self._of_group(flat * flat)
        deviation = jnp.sqrt(jnp.maximum(square - mean * mean, 0.0) + self.eps)
        gain = scale[None] / deviation
        flat = flat * gain[:, None] + (bias[None] - mean * gain)[:, None]
        return flat.reshape(x.shape).astype(self.dtype)

    def _of_group(self, flat: jax.Array) -> jax.Array:
        """The mean over pixels and group of every channel, `[B, C]`."""
        means = flat.mean(1).reshape(len(flat), self.groups, -1)
        return jnp.repeat(means.mean(-1), means.shape[-1], axis=-1)


class ConvNormAct(nn.Module):
    """One convolution, the norm and, unless `act` is False, the activation."""

    features: int
    size: Spread
    layers: Layers
    stride: Spread = 1
    dilation: int = 1
    groups: int = 1
    act: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.layers.conv(
            x,
            self.features,
            self.size,
            "conv",
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        normalize = self.layers.norm_act if self.act else self.layers.normalize
        return normalize(x, "norm", train)


class DoubleConv(nn.Module):
    """The stage of U-Net's encoder: `double_conv` to `features` channels."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return double_conv(x, (self.features, self.features), self.layers, train)


def double_conv(
    x: jax.Array, widths: tuple[int, int], layers: Layers, train: bool
) -> jax.Array:
    """[convolution 3, norm, activation] twice, inside a compact method."""
    for i, width in enumerate(widths, start=1):
        x = layers.conv(x, width, 3, f"conv{i}")
        x = layers.norm_act(x, f"norm{i}", train)
    return x


class UpConv(nn.Module):
    """Transposed convolution whose kernel is its stride (see `up_convolve`).

    The kernel starts from Glorot's uniform distribution, Keras' default.
    """

    features: int
    stride: Spread = 2
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = spread(self.stride, x.ndim - 2) + (x.shape[-1], self.features)
        init = nn.initializers.glorot_uniform()
        kernel = self.param("kernel", init, shape, self.param_dtype)
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return up_convolve(x, kernel) + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class SqueezeExcite(nn.Module):
    """Every channel times a factor in (0, 1) that the means of all channels give.

    Means over the image, dense to C / `reduction` channels (at least 4), ReLU,
    dense to C, sigmoid; float32 throughout. Source: Hu, Shen and Sun,
    Squeeze-and-excitation networks, CVPR 2018.
    """

    reduction: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, space = x.shape[-1], tuple(range(1, x.ndim - 1))
        hidden = max(channels // self.reduction, 4)
        s = jnp.mean(x, space, jnp.float32, keepdims=True)
        s = nn.relu(self._dense(hidden, nn.initializers.he_normal(), "squeeze")(s))
        s = self._dense(channels, nn.initializers.lecun_normal(), "excite")(s)
        return x * nn.sigmoid(s).astype(x.dtype)

    def _dense(self, features: int, init: Any, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            kernel_init=init,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            name=name,
        )


class Head(nn.Module):
    """The 1x1 convolution that gives the logits, float32 throughout."""

    num_classes: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.num_classes)
        size = (1,) * (x.ndim - 2)
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, size + shape, self.param_dtype)
        zeros = nn.initializers.zeros_init()
        bias = self.param("bias", zeros, (self.num_classes,), self.param_dtype)
        x, kernel, bias = (jnp.asarray(a, jnp.float32) for a in (x, kernel, bias))
        return x @ kernel.reshape(shape) + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def max_pool(x: jax.Array) -> jax.Array:
    """Maxima of 2x2 (2x2x2) blocks; every spatial axis must be even."""
    batch, *sizes, channels = x.shape
    blocks = [n for size in sizes for n in (size // 2, 2)]
    inner = tuple(range(2, 2 + 2 * len(sizes), 2))
    return x.reshape(batch, *blocks, channels).max(inner)


def up_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`[B, *S, C]` and `[2, 2, C, F]` (`[2, 2, 2, C, F]`) to `[B, *2S, F]`.

    Equals `lax.conv_transpose(x, kernel, (2, 2), "VALID")`, which reads the
    kernel back to front: the output at 2i + j is x[i] times kernel[1 - j].
    The same for other strides, one per axis, which are the kernel's sizes.
    """
    batch, *sizes, channels = x.shape
    rank, features = len(sizes), kernel.shape[-1]
    strides = kernel.shape[:rank]
    taps = jnp.moveaxis(jnp.flip(kernel, range(rank)), -2, 0)
    y = x @ taps.reshape(channels, -1)
    y = y.reshape(batch, *sizes, *strides, features)
    pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    y = y.transpose(0, *pairs, 1 + 2 * rank)
    sizes = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    return y.reshape(batch, *sizes, features)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Scaled dot-product attention of `[B, N, C]`, C split into `heads`.

    Scores and their softmax are float32.
    """
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    scores = jnp.einsum(
        "bqhc,bkhc->bhqk",
        q / math.sqrt(q.shape[-1]),
        k,
        preferred_element_type=jnp.promote_types(q.dtype, jnp.float32),
    )
    weights = nn.softmax(scores).astype(v.dtype)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, v).reshape(*v.shape[:2], -1)


def resize_linear(
    x: jax.Array, sizes: Sequence[int], *, align_corners: bool = False
) -> jax.Array:
    """`x` `[B, *S, C]` interpolated linearly to the spatial `sizes`, two taps an axis.

    For an axis of n to m pixels the output pixel k reads position
    k (n - 1) / (m - 1) where corners are aligned, else (k + ½) n / m - ½ held
    inside the image. No smoothing before shrinking. An axis of one pixel is
    repeated.
    """
    for axis, (n, m) in enumerate(zip(x.shape[1:-1], sizes, strict=True), start=1):
        if n == m:
            continue
        # Free sizes of `jax.export` are no numbers yet.
        xp = np if isinstance(n, int) and isinstance(m, int) else jnp
        k = xp.arange(m)
        if align_corners:
            position = k * (n - 1) / max(m - 1, 1)
        else:
            position = xp.clip((k + 0.5) * n / m - 0.5, 0, n - 1)
        low = xp.minimum(position.astype(int), n - 1)
        high = xp.minimum(low + 1, n - 1)
        if xp is np:
            x = _between(axis, n, np.stack([low, high]), position - low)(x)
        else:
            x = _read_between(x, axis, (low, high), position - low)
    return x


def _read_between(x: jax.Array, axis: int, pixels, part) -> jax.Array:
    """`[B, *S, C]` along an axis, `part` of the way between pairs of pixels."""
    shape = [part.shape[0] if i == axis else 1 for i in range(x.ndim)]
    share = jnp.asarray(part.reshape(shape), x.dtype)
    below, above = (jnp.take(x, i, axis, mode="clip") for i in pixels)
    return below + (above - below) * share


def _between(axis: int, length: int, pixels: np.ndarray, part: np.ndarray):
    """The function of `[B, *S, C]` that interpolates between pairs of pixels `[2, m]`.

    `length` is that of the axis. The gradient reads the few results that each
    pixel went into, where that of indexing would add up one after the other.
    """

    @jax.custom_vjp
    def interpolate(x: jax.Array) -> jax.Array:
        return _read_between(x, axis, pixels, part)

    def backward(_, slopes: jax.Array) -> tuple[jax.Array]:
        table = np.zeros((len(part), length))
        np.add.at(table, (np.arange(len(part)), pixels[0]), 1 - part)
        np.add.at(table, (np.arange(len(part)), pixels[1]), part)
        most = max(int((table != 0).sum(axis=0).max()), 1)
        readers = np.argsort(table == 0, axis=0, kind="stable")[:most]
        weights = np.take_along_axis(table, readers, axis=0)
        return (weighted_along(slopes, axis, readers, weights),)

    interpolate.defvjp(lambda x: (interpolate(x), None), backward)
    return interpolate


def prepare(
    model: nn.Module, x: jax.Array, divisors: Sequence[int] | None = None
) -> jax.Array:
    """The input of `model`, checked, in its compute dtype and padded.

    Axes whose size is no multiple of `model.divisor` grow at their high end (see
    `pad_to_multiple`); crop the logits back with `crop`. A model whose axes
    differ gives its `divisors`; an axis with a smaller one may be shorter in
    proportion.

    Raises:
      TypeError: `x` is not floating point.
      ValueError: the rank is not in `model.ranks`, or an axis is shorter than
        `model.min_size`.
    """
    name, x = type(model).__name__, jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: x must be floating point, got {x.dtype}; "
            "scale the image first, for example x / 255"
        )
    if x.ndim - 2 not in model.ranks:
        layouts = " or ".join(_LAYOUTS[rank] for rank in model.ranks)
        ranks = " or ".join(str(rank) for rank in model.ranks)
        raise ValueError(
            f"{name}: x must be {layouts} (spatial rank {ranks}), got {x.shape}; "
            "add the batch with x[None], channels with x[..., None]"
        )
    divisors = spread(model.divisor if divisors is None else divisors, x.ndim - 2)
    least = [model.min_size // model.divisor * divisor for divisor in divisors]
    if any(n < m for n, m in zip(x.shape[1:-1], least, strict=True)):
        needed = tuple(least) if len(set(least)) > 1 else least[0]
        raise ValueError(
            f"{name}: every spatial axis must have at least {needed} pixels, "
            f"got {x.shape[1:-1]}; pad or enlarge the image"
        )
    return pad_to_multiple(x.astype(model.dtype), divisors)


def pad_to_multiple(x: jax.Array, divisor: Spread) -> jax.Array:
    """`x` `[B, *S, C]` grown at the high ends to multiples of `divisor`.

    An axis is mirrored where the pad is smaller than the axis, else its last
    pixel is repeated: zeros would shift the statistics of norms and show as a
    rim. Multiples are returned as they are.
    """
    for axis, multiple in enumerate(spread(divisor, x.ndim - 2), start=1):
        pad = -x.shape[axis] % multiple
        if pad:
            widths = [(0, pad if i == axis else 0) for i in range(x.ndim)]
            mode = "reflect" if pad < x.shape[axis] else "edge"
            x = jnp.pad(x, widths, mode=mode)
    return x


def crop(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """The first `sizes` pixels of the spatial axes of `[B, *S, C]`."""
    return x[(slice(None), *(slice(size) for size in sizes))]


def halo(norm: str | None, radii: Sequence[int]) -> int | None:
    """Pixels beyond which an output pixel of a U-shaped net ignores the input.

    `radii[l]` is the sum of the radii (1 for 3x3, 2 for 5x5) of the convolutions
    in a row at level l, where a pixel covers 2^l input pixels, encoder and
    decoder together; the last level is the bottleneck. The longest path goes
    through it. A convolution of radius r at level l widens an interval by r 2^l
    on both sides; pooling and 2x2 up-sampling round its ends outward to the grid
    of the bottleneck, at most d - 1 pixels for the divisor d = 2^(levels - 1):

        reach = sum over l of radii[l] 2^l + d - 1,

    which some pixel attains. Returned rounded up to a multiple of d. None where
    evaluation takes statistics over the whole image (any norm but batch).
    """
    if norm not in ("batch", None):
        return None
    divisor = 2 ** (len(radii) - 1)
    reach = sum(radius * 2**level for level, radius in enumerate(radii)) + divisor - 1
    return -(-reach // divisor) * divisor


def check_choice(model: str, option: str, value: Any, known: Sequence[Any]) -> None:
    """Raises ValueError unless `value` is one of the `known` ones."""
    if value not in known:
        names = ", ".join(repr(choice) for choice in known)
        raise ValueError(f"{model}: {option} must be one of {names}; got {value!r}")
