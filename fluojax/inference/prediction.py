"""From an image as read to probabilities and cells."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluojax.data import scaling
from fluojax.data.contrast import Contrast, left_over, prepared
from fluojax.errors import UserError
from fluojax.inference import augmented, scratch, tiling
from fluojax.inference.augmented import Tta
from fluojax.models import foreground_probability, main_output

# Bytes of the device that a network may take for one call; on accelerators 60 %
# of what the device has, where it says so.
MEMORY = 2 * 2**30
# Up to this many pixels an image is taken whole without asking the compiler.
WHOLE_PIXELS = 512 * 512
_PROBES = {2: 256, 3: 32}  # side of the image by whose program memory is judged


@dataclass(frozen=True)
class Network:
    """A trained network as a function of scaled images.

    Attributes:
      logits: jitted `[B, *S, C] -> [B, *S, K]`.
      scaling: how intensities become [0, 1].
      contrast: whether whole images are equalised first.
      rank: 2 for images, 3 for volumes.
      divisor, halo, min_size: of the model, see `create_model`.
      crop: side of the training crops, the tile of models without a halo.
      memory: bytes that `logits` needs for an image of shape `[*S, C]`, by the
        compiler; None where it cannot be asked.
    """

    logits: Callable[[Any], jax.Array]
    scaling: scaling.Scaling
    divisor: int
    halo: int | None
    min_size: int
    crop: int
    contrast: Contrast = "none"
    rank: int = 2
    memory: Callable[[tuple[int, ...]], int] | None = None


def create_network(
    model: Any,
    variables: Any,
    kind: scaling.Scaling,
    crop: int,
    contrast: Contrast = "none",
    rank: int = 2,
) -> Network:
    """One compilation per image or window shape."""
    apply = _forward(model)

    @functools.cache  # a compilation each
    def memory(shape: tuple[int, ...]) -> int:
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        found = apply.lower(variables, image).compile().memory_analysis()
        return found.temp_size_in_bytes + found.output_size_in_bytes

    return Network(
        logits=lambda image: apply(variables, image),
        scaling=kind,
        divisor=model.divisor,
        halo=model.halo,
        min_size=model.min_size,
        crop=crop,
        contrast=contrast,
        rank=rank,
        memory=memory,
    )


@functools.lru_cache(maxsize=8)
def _forward(model: Any) -> Callable[[Any, Any], jax.Array]:
    """Compiled once per shape for all weights of a model."""
    return jax.jit(lambda v, image: main_output(model.apply(v, image, train=False)))


def probabilities(
    network: Network,
    image: np.ndarray,
    *,
    tile: int | None | str = "auto",
    tta: Tta = "off",
    allocate: tiling.Allocate = np.zeros,
) -> np.ndarray:
    """Foreground probability of one image or volume.

    Args:
      network: from `create_network`.
      image: `[*S, C]` in the values of the file; any size.
      tile: side of the tiles in pixels, None for the whole image, or "auto", see
        `choose_tile`. Tiles of a model with a halo give the result of the whole
        image; without, they are blended and change it.
      tta: test-time augmentation, see `augmented.VIEWS`; probabilities are
        averaged.
      allocate: makes the result of tiles from shape and type, zeros; it may be
        mapped from a file, as may the image.

    Returns:
      `[*S]` float32 in [0, 1].

    Raises:
      UserError: a volume for a network of images, or the reverse.
    """
    shape = image.shape[:-1]
    if len(shape) != network.rank:
        raise UserError(
            f"an image of size {shape}, the network was trained on "
            f"{'volumes [depth, rows, columns]' if network.rank == 3 else 'images'}"
        )
    image, scale = prepared(image, network.scaling, network.contrast)
    kind = left_over(network.scaling, network.contrast)

    def scaled(values: np.ndarray) -> np.ndarray:
        return np.asarray(scaling.apply(values, scale[None], kind))

    if tile == "auto":
        tile = choose_tile(network, image.shape)
    if tile is not None and min(shape) >= network.min_size:
        return _in_tiles(network, image, scaled, tile, tta, allocate)
    # Images below the model's least size are reflected at the high ends.
    missing = [(0, max(network.min_size - n, 0)) for n in shape]
    image = np.pad(image, [*missing, (0, 0)], mode="symmetric")
    probs = augmented.average(
        lambda view: _foreground(tiling.predict_whole(network.logits, view)),
        scaled(image[None])[0],
        tta,
    )
    return probs[tuple(slice(n) for n in shape)][..., 0]


def choose_tile(
    network: Network, shape: Sequence[int], memory: int | None = None
) -> int | None:
    """Side of the tiles for an image `[*S, C]`, None where it fits whole.

    The compiler tells what the network needs for a small image; that grows with
    the pixels. Models without a halo get the crop they were trained on.

    Args:
      memory: bytes that may be used; by default `MEMORY`, on accelerators 60 % of
        what the device has.
    """
    pixels = math.prod(shape[:-1])
    if pixels <= WHOLE_PIXELS or network.memory is None:
        return None if pixels <= WHOLE_PIXELS else network.crop
    rank, divisor = len(shape) - 1, network.divisor
    side = max(_PROBES[rank], network.min_size)
    side = -(-side // divisor) * divisor
    each = network.memory((*(side,) * rank, shape[-1])) / side**rank
    memory = _memory() if memory is None else memory
    if each * pixels <= memory:
        return None
    if network.halo is None:
        return network.crop
    window = int((memory / each) ** (1 / rank))
    # A tile much smaller than its halo would compute everything many times.
    least = max(divisor, network.halo)
    return max(window - 2 * network.halo, least) // divisor * divisor


def _memory() -> int:
    device = jax.devices()[0]
    known = device.memory_stats() if device.platform != "cpu" else None
    return int(0.6 * known["bytes_limit"]) if known else MEMORY


def _foreground(logits: np.ndarray) -> np.ndarray:
    """`[..., 1]` from logits `[..., K]`."""
    return np.asarray(foreground_probability(jnp.asarray(logits)))[..., None]


def _in_tiles(network, image, scaled, tile, tta, allocate) -> np.ndarray:
    """The mean over the views of an image, each view in tiles."""
    total = None
    views = augmented.views(tta)
    for view in views:
        found = view.undo(_view_in_tiles(network, image, scaled, tile, view, allocate))
        if total is None:
            total = found
            continue
        for band in scratch.bands(total.shape):
            total[band] += found[band]
            scratch.release(total, found)
    for band in scratch.bands(total.shape) if len(views) > 1 else ():
        total[band] /= np.float32(len(views))
        scratch.release(total)
    return total[..., 0]


def _view_in_tiles(network, image, scaled, tile, view, allocate) -> np.ndarray:
    """`[*S, 1]` probabilities of a changed image, as changed."""
    local = network.halo is not None

    def apply(windows: np.ndarray) -> np.ndarray:
        values = scaled(windows)
        logits = network.logits(view.change(values) if view.pointwise else values)
        return _foreground(logits) if local else np.asarray(logits)

    found = tiling.predict_tiles(
        apply,
        image if view.pointwise else view.change(image),
        tile=tile,
        halo=network.halo,
        divisor=network.divisor,
        allocate=allocate,
    )
    if local:
        return found
    probs = allocate((*found.shape[:-1], 1), np.float32)
    for band in scratch.bands(probs.shape):
        probs[band] = _foreground(found[band])
        scratch.release(probs, found)
    return probs
