"""`fnc_synth`: a generator of pictures like the Fluorescent Neuronal Cells.

Rare bright neurons with processes, single or touching, among dim cells out of
focus that carry no label, fibres, specks, vessels and a background that varies
from picture to picture. Needs no download. NumPy only; one seed gives the same
bytes in every process of one NumPy build.

The distributions were fitted to published statistics of the real pictures: over
200 seeds cells cover 0.38 to 0.62 % of a field, have a mean area of 1100 to
1320 native pixels and axes of 48-54 and 26.5-31, and 10 to 27 % of the fields
are empty. As in the real pictures a global threshold fails, and the mask's
connected components are not quite the cells.
"""

from typing import Any, NamedTuple

import numpy as np

from fluojax.data.blobs_appearance import paint
from fluojax.data.blobs_layout import draw_layout
from fluojax.data.blobs_layout import noisy_labels as disturb

SPLITS = {
    "train": range(0, 200),
    "val": range(50_000, 50_040),
    "test": range(100_000, 100_060),
}


class Sample(NamedTuple):
    """A picture and its labels.

    Attributes:
      image: uint8 `[H, W, 3]`, RGB; None for labels alone.
      instances: int32 `[H, W]`, 0 background, 1..N the cells.
      meta: `seed`, `scale`, `num_cells`: plain values.
    """

    image: np.ndarray | None
    instances: np.ndarray
    meta: dict[str, Any]


def sample(
    seed: int,
    *,
    size: tuple[int, int] = (288, 384),
    scale: float = 0.24,
    density: float = 1.0,
    touching: float = 0.16,
    labels_only: bool = False,
    noisy_labels: bool = False,
) -> Sample:
    """Picture number `seed`.

    Args:
      seed: at least 0; `SPLITS` has the ranges of the data set.
      size: rows and columns of the picture.
      scale: its pixels per native pixel. The default size shows the whole field
        of 1600 x 1200; cells are 36 native pixels wide, so below 0.16 they are
        under six pixels: for tiny tests show a window and raise the density.
      density: factor on the number of cells and of everything between them,
        which is also proportional to the area shown.
      touching: share of the cells that are placed beside an earlier one; the
        default is that of the real pictures.
      labels_only: leave out the picture, which takes most of the time. The
        labels are the same.
      noisy_labels: labels with missing cells, wandering borders and stray
        pixels; the picture is that of the true ones.

    Raises:
      ValueError: a negative seed, a size, scale or density that is not
        positive, or a share outside [0, 1].
    """
    if seed < 0 or min(size) < 1 or scale <= 0 or density <= 0:
        raise ValueError(
            "sample: seed must be at least 0, size, scale and density positive, "
            f"got seed {seed}, size {size}, scale {scale}, density {density}"
        )
    if not 0 <= touching <= 1:
        raise ValueError(f"sample: touching must be in [0, 1], got {touching}")
    layout = draw_layout(seed, size, scale, density, touching)
    instances = disturb(seed, layout) if noisy_labels else layout.instances
    image = None if labels_only else paint(seed, layout)
    meta = {"seed": seed, "scale": scale, "num_cells": len(layout.cells)}
    return Sample(image, instances, meta)
