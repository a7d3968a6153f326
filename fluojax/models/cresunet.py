"""c-ResUnet: a learned projection of the colours, then pre-activation residuals.

Source: Morelli et al., Automating cell counting in fluorescent microscopy
through deep learning with c-ResUnet, Scientific Reports 11, 2021. The authors'
program ends in a sigmoid; this returns logits, `num_classes` of them.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks


class CResUNet(nn.Module):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    Three stages, a bottleneck of two blocks with kernels of 5, a decoder that
    concatenates the skip and adds what came from below.

    Attributes:
      num_classes: channels of the logits.
      base_features: width of the first stage; it doubles at each of three poolings.
      colorspace: project the channels of the input to one first (also a single
        one, by a scale and an offset).
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`). The
        first norm sees the projection alone: any kind but batch removes the
        brightness of the whole image there.
      act: name of the activation.
      remat: recompute the stages in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    base_features: int = 16
    colorspace: bool = True
    norm: str | None = "batch"
    act: str = "elu"
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    divisor: ClassVar[int] = 8
    momentum: ClassVar[float] = 0.99  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_choice("CResUNet", "norm", self.norm, blocks.NORMS)
        blocks.check_choice("CResUNet", "act", self.act, tuple(blocks.ACTIVATIONS))

    @property
    def min_size(self) -> int:
        """Instance norm needs two pixels at the bottleneck."""
        return self.divisor * (2 if self.norm == "instance" else 1)

    @property
    def halo(self) -> int | None:
        """See `blocks.halo`; four convolutions of 5 at the bottleneck."""
        return blocks.halo(self.norm, (4, 4, 4, 8))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes, layers = x.shape[1:-1], self._layers()
        down, up = Residual, Up
        if self.remat:
            down = nn.remat(down, static_argnums=(2,))
            up = nn.remat(up, static_argnums=(3,))
        width = self.base_features

        x = blocks.prepare(self, x)
        if self.colorspace:
            x = layers.conv(x, 1, 1, "colorspace")
        fine = down(width, 3, layers, residual=False, name="enc1")(x, train)
        middle = down(2 * width, 3, layers, name="enc2")(blocks.max_pool(fine), train)
        coarse = down(4 * width, 3, layers, name="enc3")(blocks.max_pool(middle), train)
        x = down(8 * width, 5, layers, name="mid1")(blocks.max_pool(coarse), train)
        x = down(8 * width, 5, layers, name="mid2")(x, train)
        x = up(4 * width, layers, name="dec3")(x, coarse, train)
        x = up(2 * width, layers, name="dec2")(x, middle, train)
        x = up(width, layers, name="dec1")(x, fine, train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        return blocks.crop(logits, sizes)

    def _layers(self) -> blocks.Layers:
        return blocks.Layers(
            norm=self.norm,
            act=self.act,
            eps=1e-3,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )


class Residual(nn.Module):
    """`pre_activation` plus its raw input, projected where the widths differ."""

    features: int
    size: int
    layers: blocks.Layers
    residual: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = pre_activation(x, self.features, self.size, self.layers, train)
        if not self.residual:
            return y
        if x.shape[-1] != self.features:
            x = self.layers.conv(x, self.features, 1, "shortcut")
        return y + x


class Up(nn.Module):
    """u = x at twice the size; `pre_activation` of [u, skip], plus u."""

    features: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
        u = self.layers.up(x, self.features, "up")
        both = jnp.concatenate([u, skip], axis=-1)
        return pre_activation(both, self.features, 3, self.layers, train) + u


def pre_activation(
    x: jax.Array, features: int, size: int, layers: blocks.Layers, train: bool
) -> jax.Array:
    """[norm, activation, convolution] twice, inside a compact method."""
    for i in (1, 2):
        x = layers.norm_act(x, f"norm{i}", train)
        x = layers.conv(x, features, size, f"conv{i}")
    return x
