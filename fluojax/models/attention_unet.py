"""Attention U-Net: a U-Net whose skips pass a gate steered by the decoder.

Source: Oktay et al., Attention U-Net, MIDL 2018. Their program is
three-dimensional, computes the gates on a coarser grid, has two of them per
level, merged, and none on the finest skip. This is the two-dimensional form most
used since: one gate on every skip, at the skip's own resolution, after nearest
up-sampling and a convolution.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks


class AttentionUNet(nn.Module):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      features: widths from the finest to the coarsest stage, at least two.
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`).
      act: name of the activation, also inside the gates.
      conv_bias: bias of the 3x3 convolutions; those of the gates always have one.
      remat: recompute the stages in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    norm: str | None = "batch"
    act: str = "relu"
    conv_bias: bool = True
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        name = "AttentionUNet"
        blocks.check_choice(name, "norm", self.norm, blocks.NORMS)
        blocks.check_choice(name, "act", self.act, tuple(blocks.ACTIVATIONS))
        if len(self.features) < 2:
            raise ValueError(
                f"{name}: features must name two stages or more, got {self.features}"
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
        """See `blocks.halo`; the convolution after up-sampling counts too."""
        return blocks.halo(self.norm, (5,) * (len(self.features) - 1) + (2,))

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes, layers = x.shape[1:-1], self._layers()
        down, up, gate = blocks.DoubleConv, Up, AttentionGate
        if self.remat:
            down, up = (nn.remat(m, static_argnums=(2,)) for m in (down, up))
            gate = nn.remat(gate, static_argnums=(3,))

        x = blocks.prepare(self, x)
        skips = []
        for level, width in enumerate(self.features, start=1):
            x = blocks.max_pool(x) if level > 1 else x
            x = down(width, layers, name=f"enc{level}")(x, train)
            skips.append(x)
        for level in range(len(self.features), 1, -1):
            width, skip = self.features[level - 2], skips[level - 2]
            x = up(width, layers, name=f"up{level}")(x, train)
            skip = gate(max(width // 2, 1), layers, name=f"gate{level}")(x, skip, train)
            x = jnp.concatenate([skip, x], axis=-1)
            x = down(width, layers, name=f"dec{level}")(x, train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        return blocks.crop(logits, sizes)

    def _layers(self) -> blocks.Layers:
        return blocks.Layers(
            norm=self.norm,
            act=self.act,
            bias=self.conv_bias,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )


class Up(nn.Module):
    """Every pixel twice along every axis, then convolution 3, norm, activation."""

    features: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for axis in range(1, x.ndim - 1):
            x = jnp.repeat(x, 2, axis)
        x = self.layers.conv(x, self.features, 3, "conv")
        return self.layers.norm_act(x, "norm", train)


class AttentionGate(nn.Module):
    """`skip` times one number in (0, 1) per pixel, from it and from `gating`.

    With W the 1x1 convolutions, each followed by the norm:

        skip · sigmoid(W_psi act(W_g gating + W_s skip)).
    """

    features: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, gating: jax.Array, skip: jax.Array, train: bool) -> jax.Array:
        def project(x: jax.Array, features: int, name: str) -> jax.Array:
            x = self.layers.conv(x, features, 1, name, bias=True)
            return self.layers.normalize(x, f"{name}_norm", train)

        both = project(gating, self.features, "gating")
        both += project(skip, self.features, "skip")
        psi = project(blocks.ACTIVATIONS[self.layers.act](both), 1, "psi")
        return skip * nn.sigmoid(psi.astype(jnp.float32)).astype(skip.dtype)
