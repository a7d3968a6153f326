"""Images as networks see them: scaled and, on request, equalised as a whole.

Training, validation, evaluation and prediction all take their images from
`prepared` and finish them in the compiled step with `scaling.apply` of the kind
that `left_over` names, so that all see the same values.
"""

import functools
from typing import Literal

import jax
import numpy as np

from fluojax import ops
from fluojax.data import scaling
from fluojax.data.scaling import Scaling
from fluojax.errors import UserError

Contrast = Literal["none", "clahe"]
CLIP_LIMIT, TILES = 3.0, (8, 8)


def prepared(
    image: np.ndarray, kind: Scaling, contrast: Contrast
) -> tuple[np.ndarray, np.ndarray]:
    """A whole image for the step, and its `[2, C]` offset and gain.

    With "clahe" the scaled image is equalised channel by channel (8 x 8 tiles,
    clip limit 3) before anything is cut out of it; it leaves as uint8, of which
    equalising keeps 256 levels in any case.

    Args:
      image: `[*S, C]` in the values of the file.
      kind: how intensities become [0, 1].
      contrast: "none" leaves the image as it is.

    Raises:
      UserError: "clahe" of a volume.
    """
    scale = scaling.offset_and_gain(image, kind)
    if contrast == "none":
        return image, scale
    if image.ndim != 3:
        raise UserError(
            f"contrast: clahe equalises images [rows, columns], got {image.shape[:-1]}; "
            "volumes need --set contrast=none"
        )
    levels = np.asarray(_equalised(image, scale, kind))
    return levels, scaling.offset_and_gain(levels, "fixed")


def left_over(kind: Scaling, contrast: Contrast) -> Scaling:
    """The scaling that images of `prepared` still need."""
    return kind if contrast == "none" else "fixed"


@functools.partial(jax.jit, static_argnames="kind")
def _equalised(image, scale, kind: Scaling) -> jax.Array:
    scaled = scaling.apply(image[None], scale[None], kind)[0]
    equal = jax.vmap(lambda plane: ops.clahe(plane, CLIP_LIMIT, TILES), -1, -1)
    return jax.numpy.round(equal(scaled) * 255).astype(np.uint8)
