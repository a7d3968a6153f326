"""TransUNet: a ResNet, a transformer on its coarsest map, a decoder with skips.

Source: Chen et al., TransUNet, arXiv 2102.04306, 2021, in the form of the
authors' program, whose ResNet is that of Kolesnikov et al., Big transfer, ECCV
2020, except that norms follow the convolutions. Ours: the position table has a
grid of its own and is interpolated to the image, which may have any size and
any channels, where the program needs squares of one size and three channels.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks
from fluojax.models.blocks import ConvNormAct, Layers
from fluojax.models.convolution import convolution

_GROUPS = 32  # of the ResNet's norms


class TransUNet(nn.Module):
    """`[B, H, W, C]` to logits `[B, H, W, num_classes]`, sizes from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      grid: rows and columns of the position table; best the usual size of an
        image / 16. Other sizes interpolate it linearly.
      hidden_size: width of the transformer.
      mlp_dim: width inside its MLPs.
      num_heads: of its attention; they divide hidden_size.
      num_layers: of the transformer.
      resnet_units: bottlenecks in the three stages of the ResNet.
      resnet_width: width of its root, a multiple of 32; the stages have 4, 8 and
        16 times as many channels.
      decoder_channels: widths of the four stages that double the size.
      head_channels: width between transformer and decoder.
      skips: stages of the decoder, from the coarsest on, that see the ResNet.
      norm: of the decoder: "batch", "group", "instance", "layer" or None
        (`blocks.Layers`). The ResNet has group norm.
      act: name of the activation of the decoder.
      dropout: rate in training, of the embedded tokens and in MLPs.
      remat: recompute stages and layers in the backward pass instead of
        storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    grid: tuple[int, int] = (14, 14)
    hidden_size: int = 768
    mlp_dim: int = 3072
    num_heads: int = 12
    num_layers: int = 12
    resnet_units: tuple[int, int, int] = (3, 4, 9)
    resnet_width: int = 64
    decoder_channels: tuple[int, int, int, int] = (256, 128, 64, 16)
    head_channels: int = 512
    skips: int = 3
    norm: str | None = "batch"
    act: str = "relu"
    dropout: float = 0.1
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2,)
    divisor: ClassVar[int] = 16
    min_size: ClassVar[int] = 32
    halo: ClassVar[int | None] = None  # attention sees the whole image
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_choice("TransUNet", "norm", self.norm, blocks.NORMS)
        blocks.check_choice("TransUNet", "act", self.act, tuple(blocks.ACTIVATIONS))
        blocks.check_choice("TransUNet", "skips", self.skips, (0, 1, 2, 3))
        for option, length in (
            ("grid", 2),
            ("resnet_units", 3),
            ("decoder_channels", 4),
        ):
            given = getattr(self, option)
            if len(given) != length or min(given) < 1:
                raise ValueError(
                    f"TransUNet: {option} must have {length} positive entries, "
                    f"got {given}"
                )
        for whole, part in (
            ("hidden_size", self.num_heads),
            ("resnet_width", _GROUPS),
        ):
            if getattr(self, whole) % part:
                raise ValueError(
                    f"TransUNet: {whole} must be a multiple of {part}, "
                    f"got {getattr(self, whole)}"
                )

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes, layers = x.shape[1:-1], self._layers()
        stage, layer, up = Stage, TransformerLayer, Up
        if self.remat:
            stage = nn.remat(stage)
            layer = nn.remat(layer, static_argnums=(2,))
            up = nn.remat(up, static_argnums=(3,))

        x = blocks.prepare(self, x)
        x = root = Root(self.resnet_width, layers, name="root")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        stages = []
        for level, units in enumerate(self.resnet_units):
            width = 4 * self.resnet_width * 2**level
            stride = 2 if level else 1
            x = stage(width, units, stride, layers, name=f"stage{level + 1}")(x)
            stages.append(x)
        quarter, eighth, x = stages
        skips = [eighth, grow(quarter, [n // 2 for n in root.shape[1:-1]]), root]

        embed = Embed(self.hidden_size, self.grid, self.dropout, layers, name="embed")
        shape, tokens = x.shape[1:-1], embed(x, train)
        for i in range(self.num_layers):
            tokens = layer(
                self.num_heads, self.mlp_dim, self.dropout, layers, name=f"layer{i}"
            )(tokens, train)
        tokens = layers.token_norm(tokens, "norm", 1e-6)
        x = tokens.reshape(-1, *shape, self.hidden_size)

        decoder0 = ConvNormAct(self.head_channels, 3, layers, name="decoder0")
        x = decoder0(x, train)
        for i, width in enumerate(self.decoder_channels):
            skip = skips[i] if i < self.skips else None
            x = up(width, layers, name=f"decoder{i + 1}")(x, skip, train)
        logits = nn.Conv(
            self.num_classes,
            (3, 3),
            padding=1,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            name="head",
        )(x)
        return blocks.crop(logits, sizes)

    def _layers(self) -> Layers:
        return Layers(
            norm=self.norm,
            act=self.act,
            bias=False,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )


class StdConv(nn.Module):
    """A convolution without bias whose kernel is standardised at every use.

    Each output channel's weights get mean 0 and (biased) variance 1, in float32.
    """

    features: int
    size: int
    layers: Layers
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        init = nn.initializers.he_normal()
        kernel = self.param("kernel", init, shape, self.layers.param_dtype)
        kernel = jnp.asarray(kernel, jnp.float32)
        mean = kernel.mean((0, 1, 2))
        variance = kernel.var((0, 1, 2))
        kernel = (kernel - mean) * jax.lax.rsqrt(variance + 1e-5)
        return convolution(
            x,
            kernel.astype(x.dtype),
            (self.stride, self.stride),
            [(self.size // 2, self.size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Root(nn.Module):
    """A convolution of 7 with stride 2, group norm, ReLU."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = StdConv(self.features, 7, self.layers, 2, name="conv")(x)
        return nn.relu(group_norm(x, self.layers, "norm"))


class Stage(nn.Module):
    """Bottlenecks in a row, the first strided."""

    features: int
    units: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.units):
            stride = 1 if i else self.stride
            x = Bottleneck(self.features, stride, self.layers, name=f"unit{i + 1}")(x)
        return x


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 with a quarter of the width, plus the shortcut.

    The shortcut's norm has one channel to a group. The last norm's scale starts
    from 0, and so the unit from its shortcut.
    """

    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers, width = self.layers, self.features // 4
        y = StdConv(width, 1, layers, name="conv1")(x)
        y = nn.relu(group_norm(y, layers, "norm1"))
        y = StdConv(width, 3, layers, self.stride, name="conv2")(y)
        y = nn.relu(group_norm(y, layers, "norm2"))
        y = StdConv(self.features, 1, layers, name="conv3")(y)
        y = group_norm(y, layers, "norm3", zero=True)
        if x.shape != y.shape:
            x = StdConv(self.features, 1, layers, self.stride, name="shortcut")(x)
            x = group_norm(x, layers, "shortcut_norm", self.features, 1e-5)
        return nn.relu(x + y)


class Embed(nn.Module):
    """Pixels to tokens `[B, N, C]`: a 1x1 convolution plus the position table."""

    features: int
    grid: tuple[int, int]
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        rows, columns = self.grid
        table = self.param(
            "position_embeddings",
            nn.initializers.truncated_normal(0.02),
            (1, rows * columns, self.features),
            self.layers.param_dtype,
        )
        table = jnp.asarray(table, jnp.float32).reshape(1, rows, columns, -1)
        table = blocks.resize_linear(table, x.shape[1:-1])
        x = self.layers.conv(x, self.features, 1, "conv", bias=True)
        x = (x + table.astype(x.dtype)).reshape(x.shape[0], -1, self.features)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class TransformerLayer(nn.Module):
    """x + attention(norm x), then x + MLP(norm x), on tokens `[B, N, C]`."""

    heads: int
    mlp_width: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width, dense = x.shape[-1], self.layers.dense
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = self.layers.token_norm(x, "attn_norm", 1e-6)
        q, k, v = (dense(y, width, name) for name in ("query", "key", "value"))
        x = x + dense(blocks.attend(q, k, v, self.heads), width, "out")
        y = dense(self.layers.token_norm(x, "mlp_norm", 1e-6), self.mlp_width, "mlp1")
        y = drop(blocks.ACTIVATIONS["gelu"](y))
        return x + drop(dense(y, width, "mlp2"))


class Up(nn.Module):
    """Twice the size (corners aligned), [x, skip] if there is one, DoubleConv."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array | None, train: bool) -> jax.Array:
        sizes = [2 * n for n in x.shape[1:-1]]
        x = blocks.resize_linear(x, sizes, align_corners=True)
        if skip is not None:
            x = jnp.concatenate([x, skip], axis=-1)
        return blocks.double_conv(x, (self.features,) * 2, self.layers, train)


def group_norm(
    x: jax.Array,
    layers: Layers,
    name: str,
    groups: int = _GROUPS,
    eps: float = 1e-6,
    zero: bool = False,
) -> jax.Array:
    """The ResNet's norm, inside a compact method; `zero` starts its scale from 0."""
    start = nn.initializers.zeros_init() if zero else nn.initializers.ones_init()
    return blocks.GroupNorm(groups, eps, layers.dtype, start, name=name)(x)


def grow(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """`x` with zeros at the high ends up to the spatial `sizes`.

    Pooling without padding leaves one pixel less than a quarter of the image.
    """
    pads = [(0, m - n) for n, m in zip(x.shape[1:-1], sizes, strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])
