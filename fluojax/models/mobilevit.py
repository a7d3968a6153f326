"""MobileViT with the DeepLabV3 head: a light backbone that also attends far.

Sources: Mehta and Rastegari, MobileViT, ICLR 2022, with the segmentation head
of their experiments: Chen et al., Rethinking atrous convolution, 2017.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks
from fluojax.models.blocks import ConvNormAct, Layers

_HEADS = 4
# The head sees the mean of the image as one pixel, which instance norm erases.
_NORMS = tuple(norm for norm in blocks.NORMS if norm != "instance")


class Variant(NamedTuple):
    """Widths of a backbone.

    `blocks` has (channels inside the transformer, channels of its MLP, number of
    its layers) for the last three stages; `expansion` is that of the inverted
    residuals.
    """

    stem: int
    stages: tuple[int, int, int, int, int]
    blocks: tuple[tuple[int, int, int], ...]
    expansion: int


VARIANTS = {
    "s": Variant(
        stem=16,
        stages=(32, 64, 96, 128, 160),
        blocks=((144, 288, 2), (192, 384, 4), (240, 480, 3)),
        expansion=4,
    ),
    "xs": Variant(
        stem=16,
        stages=(32, 48, 64, 80, 96),
        blocks=((96, 192, 2), (120, 240, 4), (144, 288, 3)),
        expansion=4,
    ),
    "xxs": Variant(
        stem=16,
        stages=(16, 24, 48, 64, 80),
        blocks=((64, 128, 2), (80, 160, 4), (96, 192, 3)),
        expansion=2,
    ),
}


class MobileViT(nn.Module):
    """`[B, H, W, C]` to logits `[B, H, W, num_classes]`, sizes from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      variant: "s", "xs" or "xxs", the paper's three widths.
      output_stride: of the backbone, 16, or 8: four times the pixels from the
        fourth stage on.
      aspp_channels: width of the head.
      aspp_rates: dilations of its three convolutions.
      norm: "batch", "group", "layer" or None (`blocks.Layers`). Tokens always
        have layer norm.
      act: name of the activation of the backbone; the head has ReLU.
      dropout: rate in training, after attention, in MLPs and in the head.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    variant: str = "s"
    output_stride: int = 16
    aspp_channels: int = 256
    aspp_rates: tuple[int, ...] = (6, 12, 18)
    norm: str | None = "batch"
    act: str = "silu"
    dropout: float = 0.1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2,)
    divisor: ClassVar[int] = 32
    min_size: ClassVar[int] = 32
    halo: ClassVar[int | None] = None  # attention sees the whole image
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, known in (
            ("variant", tuple(VARIANTS)),
            ("output_stride", (8, 16)),
            ("norm", _NORMS),
            ("act", tuple(blocks.ACTIVATIONS)),
        ):
            blocks.check_choice("MobileViT", option, getattr(self, option), known)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes = x.shape[1:-1]
        backbone, head = self._layers(self.act), self._layers("relu")
        stem, widths, vits, expansion = VARIANTS[self.variant]
        fine = self.output_stride == 8

        x = blocks.prepare(self, x)
        padded = x.shape[1:-1]
        x = ConvNormAct(stem, 3, backbone, stride=2, name="stem")(x, train)
        plan = (  # strides and dilations of the inverted residuals of a stage
            ((1, 1),),
            ((2, 1), (1, 1), (1, 1)),
            ((2, 1),),
            ((1 if fine else 2, 1),),
            ((1, 2 if fine else 1),),
        )
        for level, (width, residuals) in enumerate(zip(widths, plan, strict=True)):
            vit = vits[level - 2] if level >= 2 else None
            x = Stage(
                width,
                expansion,
                residuals,
                vit,
                self.dropout,
                backbone,
                name=f"layer{level + 1}",
            )(x, train)
        aspp = ASPP(
            self.aspp_channels, self.aspp_rates, self.dropout, head, name="aspp"
        )
        x = aspp(x, train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        logits = blocks.resize_linear(logits, padded, align_corners=True)
        return blocks.crop(logits, sizes)

    def _layers(self, act: str) -> Layers:
        return Layers(
            norm=self.norm,
            act=act,
            bias=False,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )


class Stage(nn.Module):
    """Inverted residuals, then a MobileViT block if `vit` gives its sizes."""

    features: int
    expansion: int
    residuals: tuple[tuple[int, int], ...]
    vit: tuple[int, int, int] | None
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, (stride, dilation) in enumerate(self.residuals):
            residual = InvertedResidual(
                self.features,
                self.expansion,
                stride,
                dilation,
                self.layers,
                name=f"mv{i}",
            )
            x = residual(x, train)
        if self.vit is None:
            return x
        block = MobileViTBlock(*self.vit, self.dropout, self.layers, name="vit")
        return block(x, train)


class InvertedResidual(nn.Module):
    """Wide inside, depthwise: expand 1x1, convolve each channel, project 1x1."""

    features: int
    expansion: int
    stride: int
    dilation: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        hidden, layers = self.expansion * x.shape[-1], self.layers
        y = ConvNormAct(hidden, 1, layers, name="expand")(x, train)
        y = ConvNormAct(
            hidden, 3, layers, self.stride, self.dilation, hidden, name="depthwise"
        )(y, train)
        y = ConvNormAct(self.features, 1, layers, act=False, name="project")(y, train)
        return x + y if x.shape == y.shape else y


class MobileViTBlock(nn.Module):
    """Local convolutions, a transformer over the whole image, fusion with the input.

    Tokens attend to those at the same place of the other 2x2 patches only: four
    sequences, each of a quarter of the pixels.
    """

    width: int
    mlp_width: int
    depth: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features, layers = x.shape[-1], self.layers
        y = ConvNormAct(features, 3, layers, name="local3")(x, train)
        plain = dataclasses.replace(layers, norm=None)
        y = ConvNormAct(self.width, 1, plain, act=False, name="local1")(y, train)
        sizes, y = y.shape[1:-1], unfold(y)
        for i in range(self.depth):
            layer = TransformerLayer(
                self.mlp_width, self.dropout, layers, name=f"block{i}"
            )
            y = layer(y, train)
        y = fold(layers.token_norm(y, "norm"), sizes)
        y = ConvNormAct(features, 1, layers, name="proj")(y, train)
        y = jnp.concatenate([x, y], axis=-1)
        return ConvNormAct(features, 3, layers, name="fusion")(y, train)


class TransformerLayer(nn.Module):
    """x + attention(norm x), then x + MLP(norm x), on tokens `[B, N, C]`."""

    mlp_width: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width, layers = x.shape[-1], self.layers
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = layers.dense(layers.token_norm(x, "attn_norm"), 3 * width, "qkv")
        y = blocks.attend(*jnp.split(y, 3, axis=-1), _HEADS)
        x = x + drop(layers.dense(y, width, "out"))
        y = layers.dense(layers.token_norm(x, "mlp_norm"), self.mlp_width, "mlp1")
        y = drop(blocks.ACTIVATIONS[layers.act](y))
        return x + drop(layers.dense(y, width, "mlp2"))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling.

    A 1x1 convolution, one of 3x3 for every rate and the mean of the image side
    by side, projected to `features`.
    """

    features: int
    rates: tuple[int, ...]
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features, layers = self.features, self.layers
        branches = [ConvNormAct(features, 1, layers, name="branch0")(x, train)]
        for i, rate in enumerate(self.rates, start=1):
            conv = ConvNormAct(features, 3, layers, dilation=rate, name=f"branch{i}")
            branches.append(conv(x, train))
        mean = jnp.mean(x, (1, 2), jnp.float32, keepdims=True).astype(x.dtype)
        mean = ConvNormAct(features, 1, layers, name="pool")(mean, train)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        x = jnp.concatenate(branches, axis=-1)
        x = ConvNormAct(features, 1, layers, name="project")(x, train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


def unfold(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` to `[4 B, H/2 W/2, C]`: a sequence for each place in a patch."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows // 2, 2, columns // 2, 2, channels)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(4 * batch, -1, channels)


def fold(x: jax.Array, sizes: tuple[int, int]) -> jax.Array:
    """The image of spatial `sizes` that `unfold` made `x` of."""
    rows, columns = sizes
    x = x.reshape(-1, 2, 2, rows // 2, columns // 2, x.shape[-1])
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(-1, rows, columns, x.shape[-1])
