"""Centre terms of the ICI loss: boxes around the centres of objects."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluojax.losses import _instances as inst
from fluojax.losses import _shared as shared
from fluojax.losses._instances import Sums, image_sum, segment_sum

# Boxes are painted a little brighter than 1, as published.
_BRIGHT = 1.0 + 1e-7
# Coordinates of large images are summed in two parts, in units of this and rest.
_COARSE = 64


def box_center(scene, true, pred, offset, loss, smooth) -> jax.Array:
    """The drawings of both compared; hard images, thus Dice for cross-entropy."""
    drawings = [_drawn(objects, scene, offset) for objects in (true, pred)]
    bright = jnp.asarray(_BRIGHT, scene.logits.dtype)
    truth, found = (d.astype(bright.dtype) * bright for d in drawings)
    hits, areas = image_sum(truth * found), image_sum(truth)
    nothing = jnp.zeros_like(hits)
    sums = Sums(hits, image_sum(found) - hits, areas - hits, nothing, nothing)
    name = "tversky" if loss == "tversky" else "dice"
    return lax.stop_gradient(inst.pixel_loss(name, sums, smooth))


def _drawn(objects, scene, offset) -> jax.Array:
    """`[B, P]` bool: inside a box around the centre of some object."""
    pixels = int(np.prod(scene.shape))

    def of_image(rows, areas):
        places, inside = _boxes(rows, areas, scene.shape, offset)
        places = jnp.where(inside, places, pixels).ravel()
        return jnp.zeros(pixels, bool).at[places].set(True, mode="drop")

    drawn = jax.vmap(of_image)(objects.rows, objects.areas)
    return drawn if scene.where is None else drawn & scene.where


def soft_center(scene, true, offset, loss, smooth) -> jax.Array:
    """Mean over instances of the loss of p against 1 in the box of each."""

    def of_image(rows, areas, *maps):
        places, inside = _boxes(rows, areas, scene.shape, offset)
        if len(maps) == 2:
            inside = inside & maps[1][places]
        return maps[0][places], inside

    maps = (scene.logits,) if scene.where is None else (scene.logits, scene.where)
    logits, inside = jax.vmap(of_image)(true.rows, true.areas, *maps)

    def total(values):
        return jnp.sum(jnp.where(inside, values, 0.0), axis=-1)

    hits, missed = total(shared.sigmoid(logits)), total(shared.sigmoid(-logits))
    entropy = -total(shared.log_sigmoids(logits)[0])
    pixels = total(jnp.ones_like(logits))
    sums = Sums(hits, jnp.zeros_like(hits), missed, entropy, pixels)
    return inst.row_mean(inst.pixel_loss(loss, sums, smooth), pixels > 0)


def _boxes(rows, areas, shape, offset) -> tuple[jax.Array, jax.Array]:
    """Flat places of the pixels of every box `[N, M]`, and which are in the image.

    Along each axis a box has 2 o + 1 pixels from ⌈mean⌉ - o - 1 on, one pixel
    before the centre as published, with o = ⌈offset · length / longest⌉.
    """
    known = areas > 0
    places = jnp.zeros((areas.size, 1), jnp.int32)
    inside = known[:, None]
    for axis, length in enumerate(shape):
        reach = int(np.ceil(length / max(shape) * offset))
        start = _mean_up(rows, areas, shape, axis) - reach - 1
        along = start[:, None] + jnp.arange(2 * reach + 1, dtype=jnp.int32)[None]
        fits = (along >= 0) & (along < length)
        along = jnp.clip(along, 0, length - 1)
        size = places.shape[1] * along.shape[1]
        places = (places[:, :, None] * length + along[:, None]).reshape(-1, size)
        inside = (inside[:, :, None] & fits[:, None]).reshape(-1, size)
    return places, inside


def _mean_up(rows, areas, shape, axis) -> jax.Array:
    """Mean coordinate of every object, rounded up, in whole numbers `[N]`.

    Exact for objects of up to 2^26 pixels.
    """
    size = areas.size
    place = lax.broadcasted_iota(jnp.uint32, shape, axis).ravel()
    area = jnp.maximum(areas, 1).astype(jnp.uint32)
    if place.size * shape[axis] // 2 < 2**32:
        total = segment_sum(rows, size, place)
        return ((total + area - 1) // area).astype(jnp.int32)
    coarse = segment_sum(rows, size, place // _COARSE)
    fine = segment_sum(rows, size, place % _COARSE)
    rest = coarse % area * _COARSE + fine
    return (coarse // area * _COARSE + (rest + area - 1) // area).astype(jnp.int32)
