"""DTASUNet, a reconstruction: local and global attention down, gated decoder up.

Source of the idea: DTASUnet, a local and global dual transformer with the
attention supervision U-network for brain tumor segmentation, Scientific Reports
2024. No program was published and only the abstract and the introduction were
available: a pyramid of "shift local" and "global" transformers, and supervision
of the decoder by attention to channels and pixels. Everything beyond that
sentence (widths, heads, windows, pooling, order, the form of the supervision) is
our choice, so results of this network are not results of that paper.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fluojax.models import blocks

_SMALL = nn.initializers.truncated_normal(0.02)


class DTASUNet(nn.Module):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      stem_features: width at the full resolution.
      dims: widths of the transformer stages; each halves the resolution.
      heads: of every stage; they divide its width.
      units: of every stage: a local, a shifted local and a global block each.
      pool_ratios: of every stage, how much coarser the keys of global attention
        are than its queries.
      window: side of the windows of local attention in two dimensions, half of
        it in three; a multiple of four.
      norm: of the convolutions: "batch", "group", "instance", "layer" or None
        (`blocks.Layers`). Tokens have layer norm.
      act: name of the activation of the convolutions.
      deep_supervision: return a list: the logits, then those by which the
        decoder gates itself, from the full to the coarsest resolution, of
        ceil(size / stride) pixels.
      remat: recompute the blocks in the backward pass instead of storing them.
      dtype: type in which convolutions and tokens compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    stem_features: int = 24
    dims: tuple[int, ...] = (48, 96, 192, 384)
    heads: tuple[int, ...] = (2, 4, 8, 16)
    units: tuple[int, ...] = (1, 1, 1, 1)
    pool_ratios: tuple[int, ...] = (16, 8, 4, 2)
    window: int = 8
    norm: str | None = "group"
    act: str = "gelu"
    deep_supervision: bool = False
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    momentum: ClassVar[float] = 0.9  # of the running statistics
    # Global attention sees the whole image.
    halo: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "DTASUNet"
        blocks.check_choice(name, "norm", self.norm, blocks.NORMS)
        blocks.check_choice(name, "act", self.act, tuple(blocks.ACTIVATIONS))
        for option in ("heads", "units", "pool_ratios"):
            values = getattr(self, option)
            if len(values) != len(self.dims) or min(values) < 1:
                raise ValueError(
                    f"{name}: {option} must be one number from 1 on for each of the "
                    f"{len(self.dims)} dims, got {values}"
                )
        if any(dim % n for dim, n in zip(self.dims, self.heads, strict=True)):
            raise ValueError(
                f"{name}: heads must divide dims, got {self.heads} and {self.dims}"
            )
        if self.window < 4 or self.window % 4:
            raise ValueError(
                f"{name}: window must be a multiple of 4, got {self.window}"
            )

    @property
    def divisor(self) -> int:
        """Sizes that are no multiple of this are padded inside."""
        return 2 ** len(self.dims)

    @property
    def min_size(self) -> int:
        return self.divisor

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> jax.Array | list[jax.Array]:
        sizes, layers = x.shape[1:-1], self._layers()
        stage, up = Stage, Up
        if self.remat:
            stage, up = nn.remat(stage), nn.remat(up, static_argnums=(3,))
        window = self.window if x.ndim == 4 else self.window // 2

        x = blocks.prepare(self, x)
        x = blocks.DoubleConv(self.stem_features, layers, name="stem")(x, train)
        skips = []
        for i, dim in enumerate(self.dims):
            skips.append(x)
            x = stage(
                dim,
                self.heads[i],
                self.units[i],
                window,
                self.pool_ratios[i],
                layers,
                name=f"stage{i + 1}",
            )(x)
        outputs = []
        for level in range(len(skips) - 1, -1, -1):
            decoder = up(self.num_classes, layers, name=f"dec{level}")
            x, logits = decoder(x, skips[level], train)
            outputs.insert(0, blocks.crop(logits, [-(-n // 2**level) for n in sizes]))
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        logits = blocks.crop(logits, sizes)
        return [logits, *outputs] if self.deep_supervision else logits

    def _layers(self) -> blocks.Layers:
        return blocks.Layers(
            norm=self.norm,
            act=self.act,
            bias=False,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )


class Stage(nn.Module):
    """Half the resolution, then units of local, shifted local and global blocks."""

    features: int
    heads: int
    units: int
    window: int
    pool_ratio: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layers.conv(x, self.features, 3, "embed", stride=2, bias=True)
        x = layer_norm(x, "embed_norm", self.layers)
        options = (self.heads, self.layers)
        for i in range(self.units):
            local = LocalAttention(self.window, 0, *options, name=f"local{i}")
            x = x + local(layer_norm(x, f"local{i}_norm", self.layers))
            x = mlp(x, f"local{i}", self.layers)
            shift = self.window // 2
            local = LocalAttention(self.window, shift, *options, name=f"shifted{i}")
            x = x + local(layer_norm(x, f"shifted{i}_norm", self.layers))
            x = mlp(x, f"shifted{i}", self.layers)
            coarse = GlobalAttention(self.pool_ratio, *options, name=f"global{i}")
            x = x + coarse(layer_norm(x, f"global{i}_norm", self.layers))
            x = mlp(x, f"global{i}", self.layers)
        return layer_norm(x, "norm", self.layers)


class LocalAttention(nn.Module):
    """Attention inside windows whose grid is moved by `shift`.

    The map is filled up to a multiple of the window at its high ends and rolled;
    what is filling, or comes from the other end of an axis, is not attended to.
    Every pair of relative position and head has a learned bias.
    """

    window: int
    shift: int
    heads: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sizes, channels = x.shape[1:-1], x.shape[-1]
        rank, window = len(sizes), self.window
        axes = tuple(range(1, 1 + rank))
        fill = [(0, 0), *((0, -n % window) for n in sizes), (0, 0)]
        x = jnp.roll(jnp.pad(x, fill), (-self.shift,) * rank, axes)
        filled = x.shape[1:-1]
        qkv = dense(x, 3 * channels, "qkv", self.layers)
        parts = jnp.split(to_windows(qkv, window), 3, axis=-1)
        query, key, value = (to_heads(part, self.heads) for part in parts)

        table = self.param(
            "position_bias",
            _SMALL,
            ((2 * window - 1) ** rank, self.heads),
            self.layers.param_dtype,
        )
        places = relative_places(window, rank)
        bias = jnp.moveaxis(jnp.asarray(table, jnp.float32)[places], -1, 0)
        origin = to_windows(_origins(sizes, filled, self.shift), window)[0, ..., 0]
        allowed = None
        if origin.any():
            origin = jnp.asarray(origin)
            allowed = (origin[:, :, None] == origin[:, None, :])[:, None]
        y = attend(query, key, value, bias, allowed)
        y = from_windows(y, filled, window)
        y = dense(y, channels, "out", self.layers)
        return blocks.crop(jnp.roll(y, (self.shift,) * rank, axes), sizes)


class GlobalAttention(nn.Module):
    """Attention of every pixel to the means of blocks of `pool_ratio` pixels."""

    pool_ratio: int
    heads: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, *sizes, channels = x.shape
        query = dense(x, channels, "query", self.layers)
        coarse = block_means(x, [min(self.pool_ratio, n) for n in sizes])
        coarse = layer_norm(coarse.astype(x.dtype), "pool_norm", self.layers)
        pair = dense(coarse, 2 * channels, "key_value", self.layers)
        key, value = jnp.split(pair.reshape(batch, -1, 2 * channels), 2, axis=-1)
        query = query.reshape(batch, -1, channels)
        query, key, value = (to_heads(a, self.heads) for a in (query, key, value))
        y = attend(query, key, value).reshape(x.shape)
        return dense(y, channels, "out", self.layers)


class Up(nn.Module):
    """Twice the size, [up, skip], two convolutions, supervised attention.

    Channels are weighed by squeeze-and-excitation. A 1x1 convolution gives the
    logits of this level, `[B, *S, num_classes]` float32; with a the largest of
    their sigmoids, the features x become x (1 + a).
    """

    num_classes: int
    layers: blocks.Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, skip: jax.Array, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        features = skip.shape[-1]
        x = jnp.concatenate([self.layers.up(x, features, "up"), skip], axis=-1)
        x = blocks.double_conv(x, (features, features), self.layers, train)
        x = blocks.SqueezeExcite(8, self.layers.param_dtype, name="se")(x)
        logits = blocks.Head(self.num_classes, self.layers.param_dtype, name="logits")(
            x
        )
        gate = nn.sigmoid(jnp.max(logits, axis=-1, keepdims=True))
        return x * (1 + gate).astype(x.dtype), logits


def mlp(x: jax.Array, name: str, layers: blocks.Layers) -> jax.Array:
    """x plus two dense layers of its layer norm, four times as wide between."""
    y = layer_norm(x, f"{name}_mlp_norm", layers)
    y = blocks.ACTIVATIONS["gelu"](dense(y, 4 * x.shape[-1], f"{name}_fc1", layers))
    return x + dense(y, x.shape[-1], f"{name}_fc2", layers)


def dense(x: jax.Array, features: int, name: str, layers: blocks.Layers) -> jax.Array:
    return nn.Dense(
        features,
        kernel_init=_SMALL,
        dtype=layers.dtype,
        param_dtype=layers.param_dtype,
        name=name,
    )(x)


def layer_norm(x: jax.Array, name: str, layers: blocks.Layers) -> jax.Array:
    """Over the channels of every pixel."""
    return nn.LayerNorm(epsilon=1e-5, dtype=layers.dtype, name=name)(x)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    allowed: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention, `[..., T, heads, depth]` to `[..., T, C]`.

    `bias` `[heads, T, T]` is added to the scores; where `allowed`
    `[..., 1, T, T]` is False they do not count. Softmax in float32.
    """
    scores = jnp.einsum(
        "...qhd,...khd->...hqk", query, key, preferred_element_type=jnp.float32
    )
    scores = scores / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    shares = nn.softmax(scores).astype(value.dtype)
    y = jnp.einsum("...hqk,...khd->...qhd", shares, value)
    return y.reshape(*y.shape[:-2], -1)


def to_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[..., C]` to `[..., heads, C / heads]`."""
    return x.reshape(*x.shape[:-1], heads, -1)


def to_windows(x: Any, window: int) -> Any:
    """`[B, *S, C]` to `[B, windows, window^rank, C]`, for both kinds of arrays."""
    batch, *sizes, channels = x.shape
    rank, counts = len(sizes), [n // window for n in sizes]
    x = x.reshape(batch, *(n for count in counts for n in (count, window)), channels)
    outer, inner = range(1, 1 + 2 * rank, 2), range(2, 2 + 2 * rank, 2)
    x = x.transpose(0, *outer, *inner, 1 + 2 * rank)
    return x.reshape(batch, math.prod(counts), window**rank, channels)


def from_windows(x: jax.Array, sizes: Sequence[int], window: int) -> jax.Array:
    """The inverse of `to_windows` for a map of `sizes`."""
    batch, *_, channels = x.shape
    rank, counts = len(sizes), [n // window for n in sizes]
    x = x.reshape(batch, *counts, *(window,) * rank, channels)
    pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    return x.transpose(0, *pairs, 1 + 2 * rank).reshape(batch, *sizes, channels)


def relative_places(window: int, rank: int) -> np.ndarray:
    """`[T, T]` rows of the table of position biases, T = window^rank."""
    grid = np.stack(np.meshgrid(*(np.arange(window),) * rank, indexing="ij"), -1)
    grid = grid.reshape(-1, rank)
    offsets = grid[:, None] - grid[None] + window - 1
    return offsets @ (2 * window - 1) ** np.arange(rank)[::-1]


def _origins(sizes: Sequence[int], filled: Sequence[int], shift: int) -> np.ndarray:
    """`[1, *filled, 1]`: -1 for filling, else which axes were rolled around.

    Of the map after rolling by -shift; only equal numbers attend to each other.
    """
    origin, filling = np.zeros(filled, int), np.zeros(filled, bool)
    for axis, (n, total) in enumerate(zip(sizes, filled, strict=True)):
        shape = [-1 if i == axis else 1 for i in range(len(sizes))]
        place = np.arange(total) + shift
        origin = origin + (place >= total).reshape(shape) * 2**axis
        filling = filling | (place % total >= n).reshape(shape)
    return np.where(filling, -1, origin)[None, ..., None]


def block_means(x: jax.Array, ratios: Sequence[int]) -> jax.Array:
    """Means of blocks of `ratios` pixels, float32; the last may be smaller."""
    batch, *sizes, channels = x.shape
    pairs = list(zip(sizes, ratios, strict=True))
    counts = [-(-n // ratio) for n, ratio in pairs]
    fill = [(0, 0), *((0, -n % ratio) for n, ratio in pairs), (0, 0)]
    blocked = [n for pair in zip(counts, ratios, strict=True) for n in pair]
    x = jnp.pad(x, fill).reshape(batch, *blocked, channels)
    sums = x.sum(tuple(range(2, 2 + 2 * len(sizes), 2)), jnp.float32)
    area = np.ones(())
    for count, (n, ratio) in zip(counts, pairs, strict=True):
        area = area[..., None] * np.minimum(n - ratio * np.arange(count), ratio)
    return sums / jnp.asarray(area[..., None], jnp.float32)
