"""Random changes of training examples, compiled into the step.

Every function is `f(key, image, instances, where) -> (image, instances, where)`
for one example: image `[H, W, C]` float32 in [0, 1], instances `[H, W]` int32,
where `[H, W]` bool, all of the same size before and after. Geometry moves the
three together: the image linearly and reflected at the border, instances and
`where` by the nearest pixel and 0 or False outside. Ids are never renumbered;
an object may be cut or vanish.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fluojax import ops

Example = tuple[jax.Array, jax.Array, jax.Array]
Augmentation = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], Example]


@dataclass(frozen=True)
class Preset:
    """Ranges of the draws; probabilities in [0, 1].

    Attributes:
      flip_rows, flip_columns: probability of turning the image upside down and
        of mirroring it left to right.
      quarter_turns: whether square images are also turned by 0 to 3 quarters.
      affine: probability of a rotation and zoom.
      degrees: rotation is drawn from +-degrees.
      zoom: magnification is drawn from this range.
      photometric: probability of a change of brightness and contrast.
      brightness, contrast: drawn from +- these.
      noise: standard deviation of Gaussian noise, in units of the image.
    """

    flip_rows: float = 0.5
    flip_columns: float = 0.5
    quarter_turns: bool = True
    affine: float = 0.75
    degrees: float = 15.0
    zoom: tuple[float, float] = (0.9, 1.1)
    photometric: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.1
    noise: float = 0.01


# "study" is the loss study's program: a horizontal flip, fastai's affine and
# lighting draws, neither quarter turns nor noise.
PRESETS = {
    "default": Preset(),
    "study": Preset(flip_rows=0.0, quarter_turns=False, noise=0.0),
}


def augmentation(name: str) -> Augmentation | None:
    """The augmentation of a preset, or None for "none".

    Raises:
      ValueError: unknown name.
    """
    if name == "none":
        return None
    if name not in PRESETS:
        raise ValueError(
            f"augmentation: {name!r} is unknown; known are {sorted([*PRESETS, 'none'])}"
        )
    preset = PRESETS[name]

    def augment(key, image, instances, where):
        geometry, light, noise = jax.random.split(key, 3)
        example = transform(geometry, image, instances, where, preset)
        image = relight(light, example[0], preset)
        return add_noise(noise, image, preset.noise), *example[1:]

    return augment


def transform(
    key: jax.Array,
    image: jax.Array,
    instances: jax.Array,
    where: jax.Array,
    preset: Preset,
) -> Example:
    """Flips, quarter turns, rotation and zoom as one resampling."""
    matrix = draw_matrix(key, preset, square=image.shape[0] == image.shape[1])
    coords = ops.affine_coordinates(instances.shape, matrix)
    planes = jnp.moveaxis(image, -1, 0)
    planes = jax.vmap(lambda plane: ops.sample(plane, coords, mode="reflect"))(planes)
    # A pixel reaches half a pixel beyond its centre, hence the grid.
    moved = ops.sample(instances, coords, order=0, mode="grid-constant")
    valid = ops.sample(where, coords, order=0, mode="grid-constant")
    return jnp.moveaxis(planes, 0, -1), moved, valid


def draw_matrix(key: jax.Array, preset: Preset, *, square: bool) -> jax.Array:
    """`[2, 2]` map from result to source offsets; exact where nothing turns."""
    keys = jax.random.split(key, 5)
    flips = jnp.where(
        jax.random.uniform(keys[0], (2,))
        < jnp.array([preset.flip_rows, preset.flip_columns]),
        -1.0,
        1.0,
    )
    turns = jax.random.randint(keys[1], (), 0, 4)
    if not (square and preset.quarter_turns):
        turns = jnp.zeros_like(turns)
    quarter = jnp.array(
        [
            [[1.0, 0.0], [0.0, 1.0]],
            [[0.0, 1.0], [-1.0, 0.0]],
            [[-1.0, 0.0], [0.0, -1.0]],
            [[0.0, -1.0], [1.0, 0.0]],
        ]
    )[turns]
    applied = jax.random.uniform(keys[2]) < preset.affine
    angle = jnp.deg2rad(preset.degrees) * jax.random.uniform(
        keys[3], minval=-1.0, maxval=1.0
    )
    zoom = jax.random.uniform(keys[4], minval=preset.zoom[0], maxval=preset.zoom[1])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotation = jnp.array([[cos, -sin], [sin, cos]]) / zoom
    rotation = jnp.where(applied, rotation, jnp.eye(2))
    # Full precision: an accelerator's fast product would move whole pixels.
    turned = jnp.matmul(rotation, quarter, precision="highest")
    return turned * flips[None, :]


def relight(key: jax.Array, image: jax.Array, preset: Preset) -> jax.Array:
    """A common change of brightness and contrast for all channels."""
    chance, brightness, contrast = jax.random.uniform(key, (3,))
    changed = ops.brightness_contrast(
        image,
        preset.brightness * (2 * brightness - 1),
        preset.contrast * (2 * contrast - 1),
    )
    return jnp.where(chance < preset.photometric, changed, image)


def add_noise(key: jax.Array, image: jax.Array, deviation: float) -> jax.Array:
    """Gaussian noise, clipped to [0, 1]; nothing at all for deviation 0."""
    if deviation == 0:
        return image
    noise = deviation * jax.random.normal(key, image.shape, image.dtype)
    return jnp.clip(image + noise, 0, 1)
