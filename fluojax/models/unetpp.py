"""U-Net++: a triangle of nodes between the encoder and the finest resolution.

Node x(i, j) lies at depth i in column j. Column 0 is the encoder. Every other
node sees all nodes before it in its row and the one below them, enlarged:

    x(i, j) = block(x(i, 0), ..., x(i, j - 1), up(x(i + 1, j - 1))).

Source: Zhou et al., UNet++, DLMIA 2018. The default is the form most used since:
bilinear up-sampling, batch norm, no dropout. `upsample="deconv"`, `norm=None`
and `dropout=0.5` give the authors' first program (its weight decay is the
optimiser's).
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks


class UNetPlusPlus(nn.Module):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    Attributes:
      num_classes: channels of the logits.
      features: widths from the finest to the coarsest row, at least two.
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`).
      act: name of the activation.
      conv_bias: bias of the convolutions.
      upsample: "bilinear", without parameters, concatenated last; or "deconv",
        transposed convolutions to the width of the row, concatenated first.
      align_corners: of the bilinear up-sampling (`blocks.resize_linear`).
      dropout: share of the values dropped after every convolution in training,
        drawn from the `dropout` key.
      deep_supervision: return a list of logits, one head for each of x(0, L) to
        x(0, 1) where L is the last column, all at full resolution. The authors
        average them, or take one and prune.
      prune: with deep supervision, leave out all nodes with i + j above this
        and so the heads beyond x(0, prune), which then comes first in the list.
        The variables of the whole network fit.
      remat: recompute the nodes in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
    """

    num_classes: int = 1
    features: tuple[int, ...] = (32, 64, 128, 256, 512)
    norm: str | None = "batch"
    act: str = "relu"
    conv_bias: bool = True
    upsample: str = "bilinear"
    align_corners: bool = True
    dropout: float = 0.0
    deep_supervision: bool = False
    prune: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    ranks: ClassVar[tuple[int, ...]] = (2, 3)
    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        name, last = "UNetPlusPlus", len(self.features) - 1
        blocks.check_choice(name, "norm", self.norm, blocks.NORMS)
        blocks.check_choice(name, "act", self.act, tuple(blocks.ACTIVATIONS))
        blocks.check_choice(name, "upsample", self.upsample, ("bilinear", "deconv"))
        if last < 1:
            raise ValueError(
                f"{name}: features must name two rows or more, got {self.features}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{name}: dropout must be in [0, 1), got {self.dropout}")
        if self.prune is None:
            return
        if not self.deep_supervision:
            raise ValueError(
                f"{name}: prune needs the heads of deep supervision, got prune="
                f"{self.prune} without; add deep_supervision=True"
            )
        blocks.check_choice(name, "prune", self.prune, (None, *range(1, last + 1)))

    @property
    def divisor(self) -> int:
        """Sizes that are no multiple of this are padded inside, also when pruned."""
        return 2 ** (len(self.features) - 1)

    @property
    def min_size(self) -> int:
        """Instance norm needs two pixels in the last row."""
        return self.divisor * (2 if self.norm == "instance" else 1)

    @property
    def halo(self) -> int | None:
        """See `blocks.halo`: the longest path is that of a U-Net, down and up.

        None for "bilinear", whose grid depends on the size of the whole image
        where corners are aligned.
        """
        if self.upsample == "bilinear":
            return None
        return blocks.halo(self.norm, (4,) * (len(self.features) - 1) + (2,))

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> jax.Array | list[jax.Array]:
        sizes, layers = x.shape[1:-1], self._layers()
        node = nn.remat(Node, static_argnums=(3,)) if self.remat else Node
        last = len(self.features) - 1 if self.prune is None else self.prune

        x = blocks.prepare(self, x)
        rows: list[list[jax.Array]] = [[] for _ in range(last + 1)]
        for diagonal in range(last + 1):
            for j in range(diagonal + 1):
                i = diagonal - j
                if j > 0:
                    inputs, below = rows[i], rows[i + 1][j - 1]
                else:
                    inputs, below = [blocks.max_pool(rows[i - 1][0]) if i else x], None
                make = node(
                    self.features[i],
                    layers,
                    self.dropout,
                    self.upsample,
                    self.align_corners,
                    name=f"x{i}_{j}",
                )
                rows[i].append(make(inputs, below, train))

        def head(x: jax.Array, name: str) -> jax.Array:
            logits = blocks.Head(self.num_classes, self.param_dtype, name=name)(x)
            return blocks.crop(logits, sizes)

        if not self.deep_supervision:
            return head(rows[0][last], "head")
        return [head(rows[0][j], f"head{j}") for j in range(last, 0, -1)]

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


class Node(nn.Module):
    """[convolution 3, norm, activation] twice on the row so far and what is below."""

    features: int
    layers: blocks.Layers
    dropout: float
    upsample: str
    align_corners: bool

    @nn.compact
    def __call__(
        self, row: list[jax.Array], below: jax.Array | None, train: bool
    ) -> jax.Array:
        if below is None:
            parts = row
        elif self.upsample == "deconv":
            parts = [self.layers.up(below, self.features, "up"), *row]
        else:
            sizes = row[0].shape[1:-1]
            up = blocks.resize_linear(below, sizes, align_corners=self.align_corners)
            parts = [*row, up]
        x = jnp.concatenate(parts, axis=-1)
        for i in (1, 2):
            x = self.layers.conv(x, self.features, 3, f"conv{i}")
            x = self.layers.norm_act(x, f"norm{i}", train)
            x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return x
