"""U-Net: DoubleConv stages, max-pooling, transposed convolutions, skips.

Source: Ronneberger, Fischer and Brox, U-Net, MICCAI 2015. Their network had
unpadded, biased convolutions without norms, and dropout at the end of the
encoder; this is today's form, with padding and batch norm, without dropout.
`norm=None` gives the biased convolutions of 2015, still padded.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks


class UNet(nn.Module):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      features: widths from the finest to the coarsest stage, at least two.
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`).
      act: name of the activation.
      conv_bias: bias of the convolutions; None: only without a norm.
      upsample: "deconv", or "bilinear" (corners aligned), which also halves the
        widths of the bottleneck and of all but the last decoder stage.
      remat: recompute the stages in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    norm: str | None = "batch"
    act: str = "relu"
    conv_bias: bool | None = None
    upsample: str = "deconv"
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_choice("UNet", "norm", self.norm, blocks.NORMS)
        blocks.check_choice("UNet", "act", self.act, tuple(blocks.ACTIVATIONS))
        blocks.check_choice("UNet", "upsample", self.upsample, ("deconv", "bilinear"))
        if len(self.features) < 2:
            raise ValueError(
                f"UNet: features must name two stages or more, got {self.features}"
            )

    @property
    def divisor(self) -> int:
        """Sizes that are no multiple of this are padded inside."""
        return 2 ** (len(self.features) - 1)

    @property
    def min_size(self) -> int:
        """Instance norm needs two pixels at the bottleneck."""
        return self.divisor * (2 if self.norm == "instance" else 1)

    @property
    def halo(self) -> int | None:
        """See `blocks.halo`; None also for "bilinear".

        Its interpolation grid depends on the size of the whole image.
        """
        if self.upsample == "bilinear":
            return None
        return blocks.halo(self.norm, (4,) * (len(self.features) - 1) + (2,))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes, layers = x.shape[1:-1], self._layers()
        down, up = blocks.DoubleConv, Up
        if self.remat:
            down = nn.remat(down, static_argnums=(2,))
            up = nn.remat(up, static_argnums=(3,))
        bilinear = self.upsample == "bilinear"
        *widths, deepest = self.features

        x = blocks.prepare(self, x)
        skips = []
        for level, width in enumerate(widths, start=1):
            x = down(width, layers, name=f"enc{level}")(x, train)
            skips.append(x)
            x = blocks.max_pool(x)
        bottleneck = deepest // 2 if bilinear else deepest
        x = down(bottleneck, layers, name=f"enc{len(self.features)}")(x, train)
        for level in range(len(widths), 0, -1):
            width = widths[level - 1]
            out = width // 2 if bilinear and level > 1 else width
            stage = up(width, out, layers, bilinear, name=f"dec{level}")
            x = stage(x, skips[level - 1], train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        return blocks.crop(logits, sizes)

    def _layers(self) -> blocks.Layers:
        return blocks.Layers(
            norm=self.norm,
            act=self.act,
            bias=self.norm is None if self.conv_bias is None else self.conv_bias,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )


class Up(nn.Module):
    """The decoder stage: twice the size, concatenated as [skip, up], DoubleConv."""

    features: int
    out: int
    layers: blocks.Layers
    bilinear: bool

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
        if self.bilinear:
            x = blocks.resize_linear(x, skip.shape[1:-1], align_corners=True)
        else:
            x = self.layers.up(x, self.features, "up")
        x = jnp.concatenate([skip, x], axis=-1)
        return blocks.double_conv(x, (self.features, self.out), self.layers, train)
