"""Random changes of training examples, compiled into the step.

Every function is `f(key, image, instances, where) -> (image, instances, where)`
for one example: image `[H, W, C]` float32 in [0, 1], instances `[H, W]` int32,
where `[H, W]` bool, all of the same size before and after. Geometry moves the
three together: the image linearly and reflected at the border, instances and
`where` by the nearest pixel and 0 or False outside. Ids are never renumbered;
an object may be cut or vanish.

Of volumes `[D, H, W, C]` all slices are moved alike in their plane, and the order
of the slices is turned round as often as that of the rows. No axis is mixed with
the depth, whose voxels may have another size.
"""

import math
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
      noisy: probability of that noise.
      elastic: probability of an elastic deformation.
      elastic_alpha, elastic_sigma: its amplitude and smoothness in pixels, see
        `ops.elastic_coordinates`.
      elastic_coarse: displacements are drawn on a grid so much wider; 1 is exact.
      grid: probability of a grid distortion.
      grid_cells, grid_limit: see `ops.grid_distortion_coordinates`.
      blur: probability of a Gaussian blur.
      blur_sigma: its standard deviation is drawn from 0 to this, in pixels.
      clahe: whether contrast is equalised (8 x 8 tiles, clip limit 3) at the end.
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
    noisy: float = 1.0
    elastic: float = 0.0
    elastic_alpha: float = 80.0
    elastic_sigma: float = 8.0
    elastic_coarse: int = 4
    grid: float = 0.0
    grid_cells: int = 5
    grid_limit: tuple[float, float] = (0.7, 1.3)
    blur: float = 0.0
    blur_sigma: float = 1.5
    clahe: bool = False


# "study" is the loss study's program: a horizontal flip, fastai's affine and
# lighting draws, neither quarter turns nor noise. "imsahlo" names what that
# paper lists; probabilities, noise and the elastic field are ours. It equalises
# images before augmentation too (`contrast="clahe"` of an experiment); without
# that, brightness of +-0.3 hides the cells of dark images.
PRESETS = {
    "default": Preset(),
    "study": Preset(flip_rows=0.0, quarter_turns=False, noise=0.0),
    "imsahlo": Preset(
        quarter_turns=False,
        affine=0.5,
        degrees=45.0,
        zoom=(1.0, 1.0),
        brightness=0.3,
        contrast=0.3,
        noise=0.02,
        noisy=0.5,
        elastic=0.5,
        grid=0.5,
        blur=0.5,
        clahe=True,
    ),
}


def augmentation(name: str, rank: int = 2) -> Augmentation | None:
    """The augmentation of a preset, or None for "none".

    Args:
      name: in `PRESETS`, or "none".
      rank: 2 for images, 3 for volumes.

    Raises:
      ValueError: unknown name, or a preset that blurs or equalises volumes.
    """
    if name == "none":
        return None
    if name not in PRESETS:
        raise ValueError(
            f"augmentation: {name!r} is unknown; known are {sorted([*PRESETS, 'none'])}"
        )
    preset = PRESETS[name]
    if rank == 3 and (preset.blur or preset.clahe):
        fit = [k for k, p in PRESETS.items() if not (p.blur or p.clahe)]
        raise ValueError(
            f"{name!r} blurs or equalises single images; for volumes choose "
            f"{', '.join(fit)} or none"
        )
    return of_preset(preset, rank)


def of_preset(preset: Preset, rank: int = 2) -> Augmentation:
    """The augmentation that draws from these ranges."""

    def augment(key, image, instances, where):
        geometry, light, noise, soft = jax.random.split(key, 4)
        move = transform if rank == 2 else transform_volume
        example = move(geometry, image, instances, where, preset)
        image = relight(light, example[0], preset)
        image = soften(soft, image, preset)
        image = add_noise(noise, image, preset.noise, preset.noisy)
        if preset.clahe:
            image = jax.vmap(lambda x: ops.clahe(x, 3.0), -1, -1)(image)
        return image, *example[1:]

    return augment


def transform(
    key: jax.Array,
    image: jax.Array,
    instances: jax.Array,
    where: jax.Array,
    preset: Preset,
) -> Example:
    """Flips, turns, zoom and warps as one resampling."""
    matrix = draw_matrix(key, preset, square=image.shape[0] == image.shape[1])
    places = draw_warp(key, instances.shape, preset)
    coords = ops.affine_coordinates(instances.shape, matrix, places)
    # Channels last, so that a pixel is looked up once for all of them.
    look_up = jax.vmap(lambda plane: ops.sample(plane, coords, mode="reflect"), -1, -1)
    # A pixel reaches half a pixel beyond its centre, hence the grid.
    moved = ops.sample(instances, coords, order=0, mode="grid-constant")
    valid = ops.sample(where, coords, order=0, mode="grid-constant")
    return look_up(image), moved, valid


def transform_volume(
    key: jax.Array,
    image: jax.Array,
    instances: jax.Array,
    where: jax.Array,
    preset: Preset,
) -> Example:
    """One draw of `transform` for all slices, and a flip of their order."""
    turned = jax.random.uniform(jax.random.fold_in(key, 2)) < preset.flip_rows
    example = tuple(jnp.where(turned, x[::-1], x) for x in (image, instances, where))
    return jax.vmap(lambda *slices: transform(key, *slices, preset))(*example)


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


def draw_warp(
    key: jax.Array, shape: tuple[int, ...], preset: Preset
) -> jax.Array | None:
    """`[2, H, W]` places after grid distortion and elastic deformation, if any."""
    if not (preset.grid or preset.elastic):
        return None
    places = None
    keys = jax.random.split(jax.random.fold_in(key, 1), 4)
    still = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"))
    still = still.astype(jnp.float32)
    if preset.grid:
        places = ops.grid_distortion_coordinates(
            keys[0], shape, num_steps=preset.grid_cells, limit=preset.grid_limit
        )
        places = jnp.where(jax.random.uniform(keys[1]) < preset.grid, places, still)
    if preset.elastic:
        moved = ops.elastic_coordinates(
            keys[2],
            shape,
            alpha=preset.elastic_alpha,
            sigma=preset.elastic_sigma,
            coarse=preset.elastic_coarse,
        )
        applied = jax.random.uniform(keys[3]) < preset.elastic
        places = still if places is None else places
        places = places + jnp.where(applied, moved - still, 0.0)
    return places


def soften(key: jax.Array, image: jax.Array, preset: Preset) -> jax.Array:
    """A Gaussian blur of drawn width."""
    if not preset.blur:
        return image
    chance, width = jax.random.uniform(key, (2,))
    sigma = jnp.where(chance < preset.blur, preset.blur_sigma * width, 0.0)
    size = 2 * math.ceil(3 * preset.blur_sigma) + 1
    blur = jax.vmap(lambda x: ops.gaussian_blur(x, sigma, ksize=size), -1, -1)
    return blur(image)


def relight(key: jax.Array, image: jax.Array, preset: Preset) -> jax.Array:
    """A common change of brightness and contrast for all channels."""
    chance, brightness, contrast = jax.random.uniform(key, (3,))
    changed = ops.brightness_contrast(
        image,
        preset.brightness * (2 * brightness - 1),
        preset.contrast * (2 * contrast - 1),
    )
    return jnp.where(chance < preset.photometric, changed, image)


def add_noise(
    key: jax.Array, image: jax.Array, deviation: float, chance: float = 1.0
) -> jax.Array:
    """Gaussian noise, clipped to [0, 1]; nothing at all for deviation 0."""
    if deviation == 0:
        return image
    noise = deviation * jax.random.normal(key, image.shape, image.dtype)
    if chance < 1:
        drawn = jax.random.uniform(jax.random.fold_in(key, 1)) < chance
        noise = jnp.where(drawn, noise, 0.0)
    return jnp.clip(image + noise, 0, 1)
