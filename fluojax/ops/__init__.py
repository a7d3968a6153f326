"""Operators on one image `[*S]`, rank 2 or 3; `jax.vmap` makes them a batch."""

from fluojax.ops.geometry import affine, affine_coordinates, sample
from fluojax.ops.picture import brightness_contrast

__all__ = ["affine", "affine_coordinates", "brightness_contrast", "sample"]
