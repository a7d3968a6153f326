"""UNeXt: convolutions where the image is large, shifted MLPs where it is small.

Source: Valanarasu and Patel, UNeXt, MICCAI 2022, in the form of the authors'
program: pooling comes before the activation, skips are added, and only shifts
and a depthwise convolution mix tokens. Channels come from the image here; the
program always reads three.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks
from fluojax.models.blocks import Layers


class UNeXt(nn.Module):
    """`[B, H, W, C]` to logits `[B, H, W, num_classes]`, sizes from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      features: widths of the three convolution stages and two token stages.
      shift_size: groups of channels that a shift moves apart, odd.
      norm: of the convolution stages: "batch", "group", "instance", "layer" or
        None (`blocks.Layers`). Tokens always have layer norm.
      act: name of the activation of the convolution stages.
      dropout: rate inside the shifted MLPs, in training.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    features: tuple[int, ...] = (16, 32, 128, 160, 256)
    shift_size: int = 5
    norm: str | None = "batch"
    act: str = "relu"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2,)
    divisor: ClassVar[int] = 32
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_choice("UNeXt", "norm", self.norm, blocks.NORMS)
        blocks.check_choice("UNeXt", "act", self.act, tuple(blocks.ACTIVATIONS))
        if len(self.features) != 5:
            raise ValueError(f"UNeXt: features must be five, got {self.features}")
        if self.shift_size < 1 or self.shift_size % 2 == 0:
            raise ValueError(
                f"UNeXt: shift_size must be odd and positive, got {self.shift_size}; "
                "as many groups move either way"
            )

    @property
    def min_size(self) -> int:
        """Instance norm needs two pixels at the coarsest level."""
        return self.divisor * (2 if self.norm == "instance" else 1)

    @property
    def halo(self) -> int | None:
        """See `blocks.halo`; interpolation counts as a radius of 1 where it reads."""
        block = self.shift_size // 2 + 1
        fine, half, quarter = 1, 1 + 2, 1 + 2
        eighth = 1 + block + 2
        sixteenth = 2 * block + 1 + 2
        return blocks.halo(
            self.norm, (fine, half, quarter, eighth, sixteenth, block + 2)
        )

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes = x.shape[1:-1]
        layers = Layers(
            norm=self.norm,
            act=self.act,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )
        tokens = (self.shift_size, self.dropout, layers)
        width1, width2, width3, width4, width5 = self.features

        x = blocks.prepare(self, x)
        half = Encode(width1, layers, name="enc1")(x, train)
        quarter = Encode(width2, layers, name="enc2")(half, train)
        eighth = Encode(width3, layers, name="enc3")(quarter, train)
        sixteenth = EncodeTokens(width4, *tokens, name="enc4")(eighth, train)
        x = EncodeTokens(width5, *tokens, name="mid")(sixteenth, train)
        x = DecodeTokens(width4, *tokens, name="dec4")(x, sixteenth, train)
        x = DecodeTokens(width3, *tokens, name="dec3")(x, eighth, train)
        x = Decode(width2, layers, name="dec2")(x, train) + quarter
        x = Decode(width1, layers, name="dec1")(x, train) + half
        x = Decode(width1, layers, normalize=False, name="dec0")(x, train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        return blocks.crop(logits, sizes)


class Encode(nn.Module):
    """Convolution 3, norm, max-pooling, activation."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.layers.conv(x, self.features, 3, "conv")
        x = blocks.max_pool(self.layers.normalize(x, "norm", train))
        return blocks.ACTIVATIONS[self.layers.act](x)


class Decode(nn.Module):
    """Convolution 3, norm (the last stage has none), twice the size, activation."""

    features: int
    layers: Layers
    normalize: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.layers.conv(x, self.features, 3, "conv")
        if self.normalize:
            x = self.layers.normalize(x, "bn", train)
        return blocks.ACTIVATIONS[self.layers.act](twice(x))


class EncodeTokens(nn.Module):
    """Overlapping patches of half the resolution, a shifted block, layer norm."""

    features: int
    shift_size: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = OverlapPatchEmbed(self.features, self.layers, name="embed")(x)
        block = ShiftedBlock(self.shift_size, self.dropout, self.layers, name="block")
        return self.layers.token_norm(block(x, train), "norm")


class DecodeTokens(nn.Module):
    """`Decode` plus the skip, a shifted block, layer norm."""

    features: int
    shift_size: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
        x = self.layers.conv(x, self.features, 3, "conv")
        x = twice(self.layers.normalize(x, "bn", train))
        x = blocks.ACTIVATIONS[self.layers.act](x) + skip
        block = ShiftedBlock(self.shift_size, self.dropout, self.layers, name="block")
        return self.layers.token_norm(block(x, train), "norm")


class OverlapPatchEmbed(nn.Module):
    """A convolution of 3 with stride 2, then layer norm."""

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layers.conv(x, self.features, 3, "proj", stride=2)
        return self.layers.token_norm(x, "norm")


class ShiftedBlock(nn.Module):
    """x plus its tokenised MLP, whose two layers each look along one axis."""

    shift_size: int
    dropout: float
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width, layers = x.shape[-1], self.layers
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = shift(layers.token_norm(x, "norm"), 1, self.shift_size)
        y = layers.dense(y, width, "fc1")
        y = layers.conv(y, width, 3, "dwconv", groups=width)
        y = shift(drop(blocks.ACTIVATIONS["gelu"](y)), 2, self.shift_size)
        return x + drop(layers.dense(y, width, "fc2"))


def shift(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Groups of channels moved by -(size // 2), ..., size // 2 pixels along `axis`.

    C channels are cut into `size` groups of ceil(C / size), the last one of what
    remains. Zeros move in at the border.
    """
    group, reach, length = -(-x.shape[-1] // size), size // 2, x.shape[axis]
    widths = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, widths)
    parts = [
        jax.lax.slice_in_dim(
            padded[..., i * group : (i + 1) * group],
            2 * reach - i,
            2 * reach - i + length,
            axis=axis,
        )
        for i in range(size)
    ]
    return jnp.concatenate(parts, axis=-1)


def twice(x: jax.Array) -> jax.Array:
    """Bilinear interpolation to twice the size, corners not aligned."""
    return blocks.resize_linear(x, [2 * n for n in x.shape[1:-1]])
