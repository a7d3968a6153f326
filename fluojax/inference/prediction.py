"""From an image as read to probabilities and cells."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluojax.data import scaling
from fluojax.inference import augmented, tiling
from fluojax.inference.augmented import Tta
from fluojax.models import foreground_probability, main_output

WHOLE_PIXELS = 2048 * 2048  # larger images are cut into tiles
TILE = 1024


@dataclass(frozen=True)
class Network:
    """A trained network as a function of scaled images.

    Attributes:
      logits: jitted `[B, H, W, C] -> [B, H, W, K]`.
      scaling: how intensities become [0, 1].
      divisor, halo, min_size: of the model, see `create_model`.
      crop: side of the training crops, the tile of models without a halo.
    """

    logits: Callable[[Any], jax.Array]
    scaling: scaling.Scaling
    divisor: int
    halo: int | None
    min_size: int
    crop: int


def create_network(
    model: Any, variables: Any, kind: scaling.Scaling, crop: int
) -> Network:
    """One compilation per image or window shape."""
    apply = jax.jit(lambda v, image: main_output(model.apply(v, image, train=False)))
    return Network(
        logits=lambda image: apply(variables, image),
        scaling=kind,
        divisor=model.divisor,
        halo=model.halo,
        min_size=model.min_size,
        crop=crop,
    )


def probabilities(
    network: Network,
    image: np.ndarray,
    *,
    tile: int | None | str = "auto",
    tta: Tta = "off",
) -> np.ndarray:
    """Foreground probability of one image.

    Args:
      network: from `create_network`.
      image: `[H, W, C]` in the values of the file; any size.
      tile: side of the tiles in pixels, None for the whole image, or "auto":
        whole up to `WHOLE_PIXELS`. Tiles of a model with a halo give the
        result of the whole image; without, they are blended and change it.
      tta: test-time augmentation, see `augmented.VIEWS`; probabilities are
        averaged.

    Returns:
      `[H, W]` float32 in [0, 1].
    """
    rows, columns = image.shape[:2]
    scale = scaling.offset_and_gain(image, network.scaling)
    # Images below the model's least size are reflected at the high ends.
    missing = [(0, max(network.min_size - n, 0)) for n in (rows, columns)]
    image = np.pad(image, [*missing, (0, 0)], mode="symmetric")
    scaled = np.asarray(scaling.apply(image[None], scale[None], network.scaling))[0]
    if tile == "auto":
        large = tiling.needs_tiles(image.shape[:2], WHOLE_PIXELS)
        tile = (TILE if network.halo is not None else network.crop) if large else None
    probs = augmented.average(
        lambda view: _probabilities(network, view, tile), scaled, tta
    )
    return probs[:rows, :columns, 0]


def _probabilities(
    network: Network, scaled: np.ndarray, tile: int | None
) -> np.ndarray:
    """`[H, W, 1]` of one scaled image."""
    if tile is None:
        logits = tiling.predict_whole(network.logits, scaled)
    else:
        logits = tiling.predict_tiles(
            network.logits,
            scaled,
            tile=tile,
            halo=network.halo,
            divisor=network.divisor,
        )
    return np.asarray(foreground_probability(jnp.asarray(logits)))[..., None]
