"""DeepLabV3+: a dilated ResNet, parallel dilated convolutions, one fine skip.

Source: Chen et al., Encoder-decoder with atrous separable convolution, ECCV 2018,
with ResNets (He et al., CVPR 2016) instead of Xception as encoders. As in
widespread programs every 3x3 convolution of a dilated stage is dilated, also
that of the first block, and the rates 6, 12, 18 go with an output stride of 16,
as in the paper. Not pretrained.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks

ENCODERS = ("resnet34", "resnet50")


class DeepLabV3Plus(nn.Module):
    """`[B, H, W, C]` to logits `[B, H, W, num_classes]`, any size from 32 on.

    On images or crops below 16 times a rate, a dilated convolution sees little
    but zeros beside its centre: choose smaller `aspp_rates` there.

    In training with batch norm, an image alone (batch of one, no `axis_name`)
    has one pooled value per channel, which its own statistics would cancel:
    the pooled branch then uses the running statistics and leaves them as they
    are. `norm="group"` has no such case.

    Attributes:
      num_classes: channels of the logits.
      encoder: "resnet50", of bottleneck blocks, or "resnet34", of basic ones.
      encoder_width: channels of the stem; the stages have 1, 2, 4, 8 times as
        many inside their blocks, bottleneck blocks give out four times that.
      encoder_blocks: blocks of each of the four stages.
      output_stride: 16, or 8 for a finer and slower encoder.
      decoder_channels: width of the pyramid and of the decoder.
      low_level_channels: width of the projected skip at a quarter of the size.
      aspp_rates: dilations of the pyramid's 3x3 convolutions.
      aspp_separable: whether those are separable.
      dropout: share of the pyramid's values dropped in training, drawn from the
        `dropout` key.
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`);
        the pooled branch has group norm for "instance".
      act: name of the activation.
      remat: recompute the blocks in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    encoder: str = "resnet50"
    encoder_width: int = 64
    encoder_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    output_stride: int = 16
    decoder_channels: int = 256
    low_level_channels: int = 48
    aspp_rates: tuple[int, ...] = (6, 12, 18)
    aspp_separable: bool = True
    dropout: float = 0.5
    norm: str | None = "batch"
    act: str = "relu"
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2,)
    min_size: ClassVar[int] = 32
    momentum: ClassVar[float] = 0.9  # of the running statistics
    # The pooled branch sees the whole image.
    halo: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "DeepLabV3Plus"
        blocks.check_choice(name, "norm", self.norm, blocks.NORMS)
        blocks.check_choice(name, "act", self.act, tuple(blocks.ACTIVATIONS))
        blocks.check_choice(name, "encoder", self.encoder, ENCODERS)
        blocks.check_choice(name, "output_stride", self.output_stride, (8, 16))
        if len(self.encoder_blocks) != 4 or min(self.encoder_blocks) < 1:
            raise ValueError(
                f"{name}: encoder_blocks must be four numbers from 1 on, "
                f"got {self.encoder_blocks}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{name}: dropout must be in [0, 1), got {self.dropout}")

    @property
    def divisor(self) -> int:
        """Sizes that are no multiple of this are padded inside."""
        return self.output_stride

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes, layers = x.shape[1:-1], self._layers()
        pyramid = nn.remat(Pyramid, static_argnums=(2,)) if self.remat else Pyramid
        width = self.decoder_channels

        x = blocks.prepare(self, x)
        padded = x.shape[1:-1]
        low, x = self._encode(x, layers, train)
        x = pyramid(
            width,
            self.aspp_rates,
            self.aspp_separable,
            self.dropout,
            layers,
            name="aspp",
        )(x, train)
        x = blocks.resize_linear(x, low.shape[1:-1], align_corners=True)
        low = ConvNormAct(self.low_level_channels, layers, name="low")(low, train)
        x = jnp.concatenate([x, low], axis=-1)
        x = ConvNormAct(width, layers, 3, separable=True, name="fuse")(x, train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        logits = blocks.resize_linear(logits, padded, align_corners=True)
        return blocks.crop(logits, sizes)

    def _encode(
        self, x: jax.Array, layers: blocks.Layers, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """What the first and the last stage give: a quarter of the size, the rest."""
        block = Bottleneck if self.encoder == "resnet50" else Basic
        if self.remat:
            block = nn.remat(block, static_argnums=(2,))
        x = ConvNormAct(self.encoder_width, layers, 7, stride=2, name="stem")(x, train)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        low, stride_so_far, dilation = x, 4, 1
        for stage, count in enumerate(self.encoder_blocks, start=1):
            stride = 1 if stage == 1 else 2
            if stride_so_far * stride > self.output_stride:
                stride, dilation = 1, 2 * dilation
            stride_so_far *= stride
            stage_blocks = Stage(
                block,
                self.encoder_width * 2 ** (stage - 1),
                count,
                stride,
                dilation,
                layers,
                name=f"layer{stage}",
            )
            x = stage_blocks(x, train)
            low = x if stage == 1 else low
        return low, x

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


class ConvNormAct(nn.Module):
    """Convolution, norm, activation.

    A separable convolution is one of every channel alone, then a 1x1, with
    nothing in between.
    """

    features: int
    layers: blocks.Layers
    size: int = 1
    stride: int = 1
    dilation: int = 1
    separable: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, channels = self.layers.conv, x.shape[-1]
        options = {"stride": self.stride, "dilation": self.dilation}
        if self.separable:
            x = conv(x, channels, self.size, "depthwise", groups=channels, **options)
            x = conv(x, self.features, 1, "pointwise")
        else:
            x = conv(x, self.features, self.size, "conv", **options)
        return self.layers.norm_act(x, "norm", train)


class Stage(nn.Module):
    """`count` residual blocks, the first with the stride."""

    block: type[nn.Module]
    features: int
    count: int
    stride: int
    dilation: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.count):
            stride = self.stride if i == 0 else 1
            block = self.block(
                self.features, stride, self.dilation, self.layers, name=f"block{i}"
            )
            x = block(x, train)
        return x


class Basic(nn.Module):
    """ResNet's block of two 3x3 convolutions."""

    features: int
    stride: int
    dilation: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, dilation = self.layers.conv, self.dilation
        y = conv(x, self.features, 3, "conv1", stride=self.stride, dilation=dilation)
        y = self.layers.norm_act(y, "norm1", train)
        y = conv(y, self.features, 3, "conv2", dilation=dilation)
        y = self.layers.normalize(y, "norm2", train, zero=True)
        return join(x, y, self.stride, self.layers, train)


class Bottleneck(nn.Module):
    """ResNet's block of convolutions 1x1, 3x3 and 1x1 to four times the width."""

    features: int
    stride: int
    dilation: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm_act = self.layers.conv, self.layers.norm_act
        y = norm_act(conv(x, self.features, 1, "conv1"), "norm1", train)
        y = conv(
            y, self.features, 3, "conv2", stride=self.stride, dilation=self.dilation
        )
        y = conv(norm_act(y, "norm2", train), 4 * self.features, 1, "conv3")
        y = self.layers.normalize(y, "norm3", train, zero=True)
        return join(x, y, self.stride, self.layers, train)


def join(
    x: jax.Array, y: jax.Array, stride: int, layers: blocks.Layers, train: bool
) -> jax.Array:
    """act(x + y), inside a compact method; x is projected where shapes differ."""
    if stride > 1 or x.shape[-1] != y.shape[-1]:
        x = layers.conv(x, y.shape[-1], 1, "shortcut", stride=stride)
        x = layers.normalize(x, "shortcut_norm", train)
    return blocks.ACTIVATIONS[layers.act](x + y)


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (ASPP) and a 3x3 convolution.

    Side by side: a 1x1 convolution, a 3x3 one for each rate, and the mean over
    the image; concatenated and projected.
    """

    features: int
    rates: tuple[int, ...]
    separable: bool
    dropout: float
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layers, width = self.layers, self.features
        branches = [ConvNormAct(width, layers, name="branch0")(x, train)]
        for i, rate in enumerate(self.rates, start=1):
            branch = ConvNormAct(
                width,
                layers,
                3,
                dilation=rate,
                separable=self.separable,
                name=f"branch{i}",
            )
            branches.append(branch(x, train))
        branches.append(self._pooled(x, train))
        x = jnp.concatenate(branches, axis=-1)
        x = ConvNormAct(width, layers, name="project")(x, train)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return ConvNormAct(width, layers, 3, separable=True, name="post")(x, train)

    def _pooled(self, x: jax.Array, train: bool) -> jax.Array:
        layers = self.layers
        if layers.norm == "instance":  # of one value, would leave nothing
            layers = dataclasses.replace(layers, norm="group")
        alone = layers.norm == "batch" and x.shape[0] == 1 and not layers.axis_name
        mean = jnp.mean(x, (1, 2), jnp.float32, keepdims=True).astype(x.dtype)
        y = ConvNormAct(self.features, layers, name="pool")(mean, train and not alone)
        return jnp.broadcast_to(y, (*x.shape[:-1], self.features))
