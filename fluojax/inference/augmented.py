"""Test-time augmentation: predictions of changed images, changed back, averaged.

A view is a pair of functions of an image `[H, W, C]` in [0, 1] and of a map
`[H, W, K]`: how the image is changed, and how its prediction is changed back.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

Tta = Literal["off", "5", "8"]


class View(NamedTuple):
    """One changed image; `pointwise` if each pixel is changed where it is."""

    change: Callable[[np.ndarray], np.ndarray]
    undo: Callable[[np.ndarray], np.ndarray]
    pointwise: bool = False


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _brighter(factor: float) -> View:
    return View(lambda x: np.clip(x * np.float32(factor), 0, 1), _same, True)


def _dihedral(turns: int, mirror: bool) -> View:
    def change(x):
        return np.rot90(x[:, ::-1] if mirror else x, turns)

    def undo(x):
        x = np.rot90(x, -turns)
        return x[:, ::-1] if mirror else x

    return View(change, undo)


_UP_DOWN = View(lambda x: x[::-1], lambda x: x[::-1])
_LEFT_RIGHT = View(lambda x: x[:, ::-1], lambda x: x[:, ::-1])

# "5" is what IMSAHLO names (flips and shifts of brightness; the factors are
# ours), "8" all turns and mirror images of a square.
VIEWS: dict[str, tuple[View, ...]] = {
    "off": (View(_same, _same),),
    "5": (View(_same, _same), _UP_DOWN, _LEFT_RIGHT, _brighter(0.9), _brighter(1.1)),
    "8": tuple(_dihedral(k, mirror) for mirror in (False, True) for k in range(4)),
}


def average(
    predict: Callable[[np.ndarray], np.ndarray], image: np.ndarray, tta: Tta
) -> np.ndarray:
    """Mean of `predict(view)` over the views, changed back.

    Args:
      predict: `[H, W, C]` to `[H, W, K]`, probabilities or logits; what is
        averaged.
      image: in [0, 1].
      tta: a name in `VIEWS`.

    Raises:
      ValueError: another name.
    """
    total = None
    for view in views(tta):
        found = view.undo(predict(np.ascontiguousarray(view.change(image))))
        total = found if total is None else total + found
    return total / np.float32(len(VIEWS[tta]))


def views(tta: Tta) -> tuple[View, ...]:
    """The views of a name.

    Raises:
      ValueError: another name.
    """
    if tta not in VIEWS:
        raise ValueError(f"tta must be one of {', '.join(VIEWS)}, got {tta!r}")
    return VIEWS[tta]
