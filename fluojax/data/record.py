"""The one record that every source of images is turned into."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Record:
    """One image with its cells.

    Attributes:
      image: `[H, W, C]` in the dtype and range of the file.
      instances: `[H, W]` int32, 0 background, 1..N without gaps.
      id: relative path without suffix, unique in its data set.
      group: images that must stay in one split share it; the id if unknown.
      has_labels: False for images without annotation (instances all zero).
      kind: "instances" if objects were given, "binary" if they are the
        8-connected components of a mask.
      spacing: micrometres per pixel and axis; 1 where unknown.
    """

    image: np.ndarray
    instances: np.ndarray
    id: str
    group: str
    has_labels: bool = True
    kind: Literal["instances", "binary"] = "instances"
    spacing: tuple[float, ...] = (1.0, 1.0)


@dataclass(frozen=True)
class Dataset:
    """Records by split, and what training and scoring must know about them.

    Attributes:
      name: short name for logs and folders.
      splits: records of "train", "val" and "test"; any may be empty.
      scaling: "fixed" where absolute brightness carries the label,
        "percentile" elsewhere.
      reference: what object scores count against: the given "instances", or
        the connected "components" of the mask.
      notes: one line each, for the user.
    """

    name: str
    splits: dict[str, list[Record]]
    scaling: Literal["fixed", "percentile", "asinh"] = "percentile"
    reference: Literal["components", "instances"] = "instances"
    notes: tuple[str, ...] = field(default=())
