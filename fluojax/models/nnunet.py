"""nnU-Net's two networks: the plain U-Net and the residual encoder.

Both go down by strided convolutions, normalise every image alone, and have a
head at every level of the decoder.

Sources: Isensee et al., nnU-Net, Nature Methods 2021; Isensee et al., nnU-Net
Revisited, MICCAI 2024 (residual encoder). The topology is not planned from the
data here: it is given by the fields, and ends at six stages by default.
"""

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fluojax.models import blocks
from fluojax.models.blocks import ConvNormAct, Layers, Spread

_WIDEST = {2: 512, 3: 320}  # channels by spatial rank


class _Base(nn.Module):
    """The decoder, the heads and the fields of both networks."""

    num_classes: int = 1
    features: tuple[int, ...] | None = None
    strides: tuple[Spread, ...] | None = None
    kernels: tuple[Spread, ...] | None = None
    decoder_convs: int = 1
    norm: str | None = "instance"
    act: str = "leaky_relu"
    deep_supervision: bool = False
    remat: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    momentum: ClassVar[float] = 0.9  # of the running statistics

    def __post_init__(self) -> None:
        super().__post_init__()
        model = type(self).__name__
        blocks.check_choice(model, "norm", self.norm, blocks.NORMS)
        blocks.check_choice(model, "act", self.act, tuple(blocks.ACTIVATIONS))
        if self.features is not None and len(self.features) < 2:
            raise ValueError(
                f"{model}: features must name two stages or more, got {self.features}"
            )
        self._check_plan()

    def _check_plan(self) -> None:
        model = type(self).__name__
        for option in ("strides", "kernels"):
            given = getattr(self, option)
            if given is not None and len(given) != self._stages:
                raise ValueError(
                    f"{model}: {option} must have one entry for each of the "
                    f"{self._stages} stages, got {given}"
                )
        if not self.ranks:
            raise ValueError(
                f"{model}: strides and kernels must be numbers or have all two or "
                f"all three axes, got {self.strides} and {self.kernels}"
            )
        if set(blocks.spread(self._strides[0], 1)) != {1}:
            raise ValueError(
                f"{model}: strides must begin with 1, got {self.strides}; "
                "the first stage has the resolution of the image"
            )
        sizes = [n for kernel in self._kernels for n in blocks.spread(kernel, 1)]
        if any(n % 2 == 0 for n in sizes):
            raise ValueError(f"{model}: kernels must be odd, got {self.kernels}")

    @property
    def ranks(self) -> tuple[int, ...]:
        """Both, or the number of axes that strides and kernels are given for."""
        given = (*self._strides, *self._kernels)
        axes = {len(n) for n in given if not isinstance(n, int)}
        return tuple(rank for rank in (2, 3) if axes <= {rank})

    @property
    def divisor(self) -> int:
        """Sizes that are no multiple of this may be padded inside.

        Where the strides differ between the axes, the largest of their products;
        every axis is padded to its own.
        """
        return max(self._divisors(self.ranks[0]))

    @property
    def min_size(self) -> int:
        """Instance norm needs two pixels at the bottleneck."""
        return self.divisor * (2 if self.norm == "instance" else 1)

    @property
    def halo(self) -> int | None:
        """See `blocks.halo`; None also for other strides than 2, kernels than 3.

        A strided convolution counts at the level it reads, one above its stage.
        """
        if self._strides[1:] != (2,) * (self._stages - 1) or set(self._kernels) != {3}:
            return None
        first, *middle, last = self._encoder_convs()
        up = self.decoder_convs
        radii = (first + 1 + up, *(n + up for n in middle), last - 1)
        return blocks.halo(self.norm, radii)

    @property
    def _stages(self) -> int:
        return 6 if self.features is None else len(self.features)

    @property
    def _strides(self) -> tuple[Spread, ...]:
        return self.strides or (1,) + (2,) * (self._stages - 1)

    @property
    def _kernels(self) -> tuple[Spread, ...]:
        return self.kernels or (3,) * self._stages

    def _divisors(self, rank: int) -> tuple[int, ...]:
        strides = (blocks.spread(stride, rank) for stride in self._strides)
        return tuple(map(math.prod, zip(*strides, strict=True)))

    def _widths(self, rank: int) -> tuple[int, ...]:
        doubled = (32 * 2**stage for stage in range(self._stages))
        return self.features or tuple(min(n, _WIDEST[rank]) for n in doubled)

    def _encoder_convs(self) -> list[int]:
        """Convolutions in a row at every stage of the encoder."""
        raise NotImplementedError

    def _encode(self, x: jax.Array, layers: Layers, train: bool) -> list[jax.Array]:
        """The output of every stage of the encoder, the finest first."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False
    ) -> jax.Array | list[jax.Array]:
        sizes, rank = x.shape[1:-1], x.ndim - 2
        layers = Layers(
            norm=self.norm,
            act=self.act,
            momentum=self.momentum,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )
        divisors = self._divisors(rank) if rank in self.ranks else None
        x = blocks.prepare(self, x, divisors)
        *skips, x = self._encode(x, layers, train)
        up, outputs = Up, []
        if self.remat:
            up = nn.remat(up, static_argnums=(3,))
        for level, skip in enumerate(reversed(skips)):
            stage = len(skips) - level
            x, logits = up(
                skip.shape[-1],
                self.num_classes,
                self._strides[stage],
                self._kernels[stage - 1],
                self.decoder_convs,
                layers,
                name=f"dec{level}",
            )(x, skip, train)
            outputs.insert(0, logits)
        if not self.deep_supervision:
            return blocks.crop(outputs[0], sizes)
        cropped = []
        for logits, stride in zip(outputs, self._strides[:-1], strict=True):
            steps = zip(sizes, blocks.spread(stride, rank), strict=True)
            sizes = [-(-size // step) for size, step in steps]
            cropped.append(blocks.crop(logits, sizes))
        return cropped


class NNUNet(_Base):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    nnU-Net's plain network: a stage is two convolutions, the first with the
    stride, each with norm and activation.

    Attributes:
      num_classes: channels of the logits.
      features: widths from the finest to the coarsest stage, at least two; None:
        six, from 32 on doubling up to 512 in two, 320 in three dimensions.
      strides: one for each stage, the first 1; a number or one for each axis of
        thick slices; None: 2 from the second stage on.
      kernels: odd sizes, one for each stage, a number or one for each axis;
        None: 3. The decoder uses those of its skips.
      decoder_convs: convolutions of a stage of the decoder.
      norm: "batch", "group", "instance", "layer" or None (`blocks.Layers`).
      act: name of the activation; leaky ReLU has the slope 0.01.
      deep_supervision: return the logits of every level of the decoder as a
        list, the full resolution first, the others at their own, of
        ceil(size / stride) pixels. The parameters are the same either way.
      remat: recompute the stages in the backward pass instead of storing them.
      dtype: type in which convolutions compute; logits are float32.
      param_dtype: type in which their parameters are stored.
      axis_name: mapped axis for synchronised batch statistics; None: local.
      convs_per_stage: convolutions of a stage of the encoder.
    """

    decoder_convs: int = 2
    convs_per_stage: int = 2

    def _encoder_convs(self) -> list[int]:
        return [self.convs_per_stage] * self._stages

    def _encode(self, x: jax.Array, layers: Layers, train: bool) -> list[jax.Array]:
        stage = nn.remat(Convs, static_argnums=(2,)) if self.remat else Convs
        skips = []
        plan = zip(self._widths(x.ndim - 2), self._kernels, self._strides, strict=True)
        for level, (width, kernel, stride) in enumerate(plan):
            convs = stage(
                width, kernel, stride, self.convs_per_stage, layers, name=f"enc{level}"
            )
            x = convs(x, train)
            skips.append(x)
        return skips


class ResEncUNet(_Base):
    """`[B, *S, C]` to logits `[B, *S, num_classes]`, any size from `min_size` on.

    nnU-Net with the residual encoder: a convolution at full resolution, then
    stages of residual blocks, the first of a stage with its stride.

    Attributes: those of `NNUNet` except convs_per_stage, and
      blocks: residual blocks of each stage; None: (1, 3, 4, 6, 6, ...).
    """

    blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self._blocks) != self._stages or min(self._blocks) < 1:
            raise ValueError(
                f"ResEncUNet: blocks must have one positive entry for each of the "
                f"{self._stages} stages, got {self.blocks}"
            )

    @property
    def _blocks(self) -> tuple[int, ...]:
        return self.blocks or ((1, 3, 4) + (6,) * self._stages)[: self._stages]

    def _encoder_convs(self) -> list[int]:
        stem, *rest = (2 * count for count in self._blocks)
        return [stem + 1, *rest]

    def _encode(self, x: jax.Array, layers: Layers, train: bool) -> list[jax.Array]:
        block = nn.remat(Stage, static_argnums=(2,)) if self.remat else Stage
        widths = self._widths(x.ndim - 2)
        stem = ConvNormAct(widths[0], self._kernels[0], layers, name="stem")
        x = stem(x, train)
        skips = []
        plan = zip(widths, self._kernels, self._strides, self._blocks, strict=True)
        for level, (width, kernel, stride, count) in enumerate(plan):
            stage = block(width, kernel, stride, count, layers, name=f"enc{level}")
            x = stage(x, train)
            skips.append(x)
        return skips


class Convs(nn.Module):
    """Convolutions in a row, each with norm and activation, the first strided."""

    features: int
    kernel: Spread
    stride: Spread
    count: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.count):
            stride = 1 if i else self.stride
            x = self.layers.conv(
                x, self.features, self.kernel, f"conv{i}", stride=stride
            )
            x = self.layers.norm_act(x, f"norm{i}", train)
        return x


class Stage(nn.Module):
    """Residual blocks in a row, the first strided."""

    features: int
    kernel: Spread
    stride: Spread
    count: int
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.count):
            stride = 1 if i else self.stride
            block = BasicBlockD(
                self.features, self.kernel, stride, self.layers, name=f"block{i}"
            )
            x = block(x, train)
        return x


class BasicBlockD(nn.Module):
    """Two convolutions plus a shortcut that averages where they stride (ResNet-D).

    The last norm's scale starts from 0, and so the block from its shortcut.
    """

    features: int
    kernel: Spread
    stride: Spread
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv, norm = self.layers.conv, self.layers.normalize
        y = conv(x, self.features, self.kernel, "conv1", stride=self.stride)
        y = self.layers.norm_act(y, "norm1", train)
        y = conv(y, self.features, self.kernel, "conv2")
        y = norm(y, "norm2", train, zero=True)
        x = mean_pool(x, blocks.spread(self.stride, x.ndim - 2))
        if x.shape[-1] != self.features:
            x = conv(x, self.features, 1, "shortcut", bias=False)
            x = norm(x, "shortcut_norm", train)
        return blocks.ACTIVATIONS[self.layers.act](y + x)


class Up(nn.Module):
    """A level of the decoder: [up, skip] through convolutions, and its head."""

    features: int
    num_classes: int
    stride: Spread
    kernel: Spread
    count: int
    layers: Layers

    @nn.compact
    def __call__(
        self, x: jax.Array, skip: jax.Array, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        x = self.layers.up(x, self.features, "up", self.stride)
        x = jnp.concatenate([x, skip], axis=-1)
        for i in range(self.count):
            x = self.layers.conv(x, self.features, self.kernel, f"conv{i}")
            x = self.layers.norm_act(x, f"norm{i}", train)
        head = blocks.Head(self.num_classes, self.layers.param_dtype, name="head")
        return x, head(x)


def mean_pool(x: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    """Means of blocks of `strides` pixels, which must divide the sizes."""
    if set(strides) == {1}:
        return x
    batch, *sizes, channels = x.shape
    pairs = zip(sizes, strides, strict=True)
    split = [n for size, stride in pairs for n in (size // stride, stride)]
    inner = tuple(range(2, 2 + 2 * len(sizes), 2))
    return x.reshape(batch, *split, channels).mean(inner)
