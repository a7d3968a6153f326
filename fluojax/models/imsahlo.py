"""The IMSAHLO ladder: residual U-Net, NeuroSegNet, multi-scale blocks, attention.

Four networks of one U shape, each the one before plus one idea: residual blocks
(`residual_unet`); squeeze-and-excitation and Swish (`neurosegnet`); multi-scale
dense blocks instead of residual ones (`neurosegnet_msdb`); hierarchical
attention on the bottleneck and every skip (`imsahlo`).

Source: Jain et al., IMSAHLO, arXiv 2601.11645, 2026. The paper names the parts
but gives no widths, dilations, growth, depths, groups or rates: every number
here is our choice, and no published weights or parameter counts exist to compare
with. It cites a graph network for its hierarchical attention but describes
gating of channels, then of pixels, as in CBAM (Woo et al., ECCV 2018), which is
what this computes.

Group norm, the default, takes its statistics over the whole image, so that tiles
of one image can come out differently exposed. For prediction in tiles train with
`norm="batch"`. That makes `residual_unet` exact in tiles; the other three also
weigh channels by their means over the image and are only less sensitive to it.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks


class Ladder(nn.Module):
    """What the four networks share: `[B, *S, C]` to logits `[B, *S, num_classes]`.

    Any size from `min_size` on. The U is here; `_block` and `_attend` differ.

    Attributes:
      num_classes: channels of the logits.
      base_features: width of the first stage; it doubles with every pooling.
      stages: levels of the U, the bottleneck among them, at least two.
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`).
      act: name of the activation.
      dropout: share of the channels dropped inside a block in training, below
        0.5; twice as many at the bottleneck. The `dropout` key draws them.
      se_reduction: channels per hidden channel of squeeze-and-excitation; None
        leaves it out.
      remat: recompute the blocks in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    base_features: int = 16
    stages: int = 5
    norm: str | None = "group"
    act: str = "silu"
    dropout: float = 0.1
    se_reduction: int | None = 8
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        blocks.check_choice(name, "norm", self.norm, blocks.NORMS)
        blocks.check_choice(name, "act", self.act, tuple(blocks.ACTIVATIONS))
        if self.stages < 2:
            raise ValueError(f"{name}: stages must be at least 2, got {self.stages}")
        if not 0 <= self.dropout < 0.5:
            raise ValueError(f"{name}: dropout must be in [0, 0.5), got {self.dropout}")

    @property
    def divisor(self) -> int:
        """Sizes that are no multiple of this are padded inside."""
        return 2 ** (self.stages - 1)

    @property
    def min_size(self) -> int:
        """Instance norm needs two pixels at the bottleneck."""
        return self.divisor * (2 if self.norm == "instance" else 1)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        sizes, layers = x.shape[1:-1], self._layers()
        *widths, deepest = (self.base_features * 2**i for i in range(self.stages))

        x = blocks.prepare(self, x)
        skips = []
        for level, width in enumerate(widths, start=1):
            x = self._block(width, self.dropout, layers, f"enc{level}")(x, train)
            skips.append(x)
            x = blocks.max_pool(x)
        bottleneck = f"enc{self.stages}"
        x = self._block(deepest, 2 * self.dropout, layers, bottleneck)(x, train)
        x = self._attend(x, layers, f"attention{self.stages}")
        for level in range(len(widths), 0, -1):
            width, skip = widths[level - 1], skips[level - 1]
            x = layers.up(x, width, f"up{level}")
            skip = self._attend(skip, layers, f"attention{level}")
            x = jnp.concatenate([x, skip], axis=-1)
            x = self._block(width, self.dropout, layers, f"dec{level}")(x, train)
        logits = blocks.Head(self.num_classes, self.param_dtype, name="head")(x)
        return blocks.crop(logits, sizes)

    def _block(
        self, width: int, dropout: float, layers: blocks.Layers, name: str
    ) -> nn.Module:
        raise NotImplementedError

    def _attend(self, x: jax.Array, layers: blocks.Layers, name: str) -> jax.Array:
        return x

    def _recomputed(self, block: type[nn.Module]) -> type[nn.Module]:
        return nn.remat(block, static_argnums=(2,)) if self.remat else block

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


class ResidualUNet(Ladder):
    """`residual_unet`, and with Swish and squeeze-and-excitation `neurosegnet`."""

    @property
    def halo(self) -> int | None:
        """See `blocks.halo`; None with squeeze-and-excitation."""
        if self.se_reduction is not None:
            return None
        return blocks.halo(self.norm, (4,) * (self.stages - 1) + (2,))

    def _block(
        self, width: int, dropout: float, layers: blocks.Layers, name: str
    ) -> nn.Module:
        block = self._recomputed(Residual)
        return block(width, layers, dropout, self.se_reduction, name=name)


class IMSAHLO(Ladder):
    """`imsahlo`, and without attention `neurosegnet_msdb`.

    Attributes:
      dilations: of the parallel convolutions in a dense layer.
      dense_layers: dense layers in a block.
      growth: channels of each parallel convolution; None: a quarter of the
        block's width, at least 4.
      attention_reduction: channels per hidden channel of the attention to
        channels; None leaves the attention out.
      attention_kernel: odd size of the convolution of the attention to pixels.
      (and those of `Ladder`)
    """

    dilations: tuple[int, ...] = (1, 2, 4)
    dense_layers: int = 2
    growth: int | None = None
    attention_reduction: int | None = 8
    attention_kernel: int = 7

    # Attention, and squeeze-and-excitation, use means over the whole image.
    halo: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(
                f"IMSAHLO: dilations must be one or more, from 1 on, got {self.dilations}"
            )
        if self.dense_layers < 1:
            raise ValueError(
                f"IMSAHLO: dense_layers must be at least 1, got {self.dense_layers}"
            )
        if self.attention_kernel % 2 == 0:
            raise ValueError(
                f"IMSAHLO: attention_kernel must be odd, got {self.attention_kernel}"
            )

    def _block(
        self, width: int, dropout: float, layers: blocks.Layers, name: str
    ) -> nn.Module:
        block = self._recomputed(MultiScaleDense)
        growth = max(width // 4, 4) if self.growth is None else self.growth
        return block(
            width,
            layers,
            dropout,
            self.se_reduction,
            self.dilations,
            self.dense_layers,
            growth,
            name=name,
        )

    def _attend(self, x: jax.Array, layers: blocks.Layers, name: str) -> jax.Array:
        reduction, size = self.attention_reduction, self.attention_kernel
        if reduction is None:
            return x
        return HierarchicalAttention(reduction, size, layers, name=name)(x)


class Residual(nn.Module):
    """Two convolutions of 3 with norms, squeeze-and-excitation, plus the shortcut."""

    features: int
    layers: blocks.Layers
    dropout: float
    se_reduction: int | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.layers.conv(x, self.features, 3, "conv1")
        y = self.layers.norm_act(y, "norm1", train)
        y = spatial_dropout(y, self.dropout, train)
        y = self.layers.conv(y, self.features, 3, "conv2")
        return join(x, y, "norm2", self.layers, self.se_reduction, train)


class MultiScaleDense(nn.Module):
    """Dense layers, each of parallel convolutions that differ in their dilation.

    Every layer sees the 1x1 projection of the input and all layers before it;
    a 1x1 convolution merges them all, then as in `Residual`.
    """

    features: int
    layers: blocks.Layers
    dropout: float
    se_reduction: int | None
    dilations: tuple[int, ...]
    dense_layers: int
    growth: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm_act = self.layers.conv, self.layers.norm_act
        y = conv(x, self.features, 1, "entry")
        seen = norm_act(y, "entry_norm", train)
        for layer in range(1, self.dense_layers + 1):
            scales = [
                conv(seen, self.growth, 3, f"dense{layer}_{branch}", dilation=dilation)
                for branch, dilation in enumerate(self.dilations, start=1)
            ]
            y = jnp.concatenate(scales, axis=-1)
            y = norm_act(y, f"dense{layer}_norm", train)
            seen = jnp.concatenate([seen, y], axis=-1)
        y = spatial_dropout(seen, self.dropout, train)
        y = conv(y, self.features, 1, "merge")
        return join(x, y, "merge_norm", self.layers, self.se_reduction, train)


class HierarchicalAttention(nn.Module):
    """Gates channels by their mean and maximum, then pixels by theirs."""

    reduction: int
    size: int
    layers: blocks.Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, space = x.shape[-1], tuple(range(1, x.ndim - 1))
        hidden = max(channels // self.reduction, 4)
        means = jnp.mean(x, space, jnp.float32, keepdims=True)
        peaks = jnp.max(x, space, keepdims=True).astype(jnp.float32)
        pooled = jnp.concatenate([means, peaks])  # one more batch: shared layers
        shared = nn.relu(
            self._dense(hidden, nn.initializers.he_normal(), "fc1")(pooled)
        )
        shared = self._dense(channels, nn.initializers.lecun_normal(), "fc2")(shared)
        x = x * nn.sigmoid(sum(jnp.split(shared, 2))).astype(x.dtype)

        means = jnp.mean(x, -1, jnp.float32, keepdims=True)
        peaks = jnp.max(x, -1, keepdims=True).astype(jnp.float32)
        pooled = jnp.concatenate([means, peaks], axis=-1)
        gate = self.layers.conv(pooled, 1, self.size, "spatial", bias=False)
        return x * nn.sigmoid(gate.astype(jnp.float32)).astype(x.dtype)

    def _dense(self, features: int, init: Any, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=False,
            kernel_init=init,
            dtype=jnp.float32,
            param_dtype=self.layers.param_dtype,
            name=name,
        )


def join(
    x: jax.Array,
    y: jax.Array,
    norm: str,
    layers: blocks.Layers,
    se_reduction: int | None,
    train: bool,
) -> jax.Array:
    """The end of a block from x to y: norm, squeeze-and-excitation, plus x, act.

    Inside a compact method. x is projected where the widths differ. The norm
    starts at zero, so that every block starts as its shortcut.
    """
    y = layers.normalize(y, norm, train, zero=True)
    if se_reduction is not None:
        y = blocks.SqueezeExcite(se_reduction, layers.param_dtype, name="se")(y)
    if x.shape[-1] != y.shape[-1]:
        x = layers.conv(x, y.shape[-1], 1, "shortcut")
        x = layers.normalize(x, "shortcut_norm", train)
    return blocks.ACTIVATIONS[layers.act](x + y)


def spatial_dropout(x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Drops whole channels of an item, inside a compact method."""
    space = tuple(range(1, x.ndim - 1))
    return nn.Dropout(rate, broadcast_dims=space)(x, deterministic=not train)
