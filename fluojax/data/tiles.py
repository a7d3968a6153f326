"""Which pictures are tiles of one larger field, found from their borders alone.

Two pictures of one size are neighbours if the last column (row) of one goes on in
the first of the other, and each is the other's best continuation. Pictures of
one field taken twice belong together, too.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image

CORRELATION = 0.85  # of borders that continue each other
LEAST_SD = 1.0  # grey values; flat borders match anything
STEP = 2.5  # largest step across the border, in steps next to it
TWIN = 0.95  # correlation of thumbnails of one field
THUMBNAIL = (32, 32)


def tile_groups(pictures: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The name of the group of every picture: its first member in order of names.

    Args:
      pictures: `[H, W]` grey values by name.
    """
    parents = {name: name for name in sorted(pictures)}

    def top(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in parents:
        by_shape.setdefault(pictures[name].shape, []).append(name)
    for shape, names in by_shape.items():
        if min(shape) < 2:
            continue  # no inner column to compare with
        stack = np.stack([pictures[name] for name in names]).astype(np.float32)
        across, down = _continued(stack), _continued(stack.swapaxes(1, 2))
        for a, b in [*across, *down, *_twins(stack)]:
            first, second = sorted((top(names[a]), top(names[b])))
            parents[second] = first
    return {name: top(name) for name in parents}


def _continued(stack: np.ndarray) -> list[tuple[int, int]]:
    """Pairs `(a, b)` where the first column of b goes on from the last of a."""
    ends, starts = stack[:, :, -1], stack[:, :, 0]
    match = _correlations(ends, starts)
    varied = (ends.std(1)[:, None] > LEAST_SD) & (starts.std(1)[None] > LEAST_SD)
    last = np.abs(ends - stack[:, :, -2]).mean(1)
    first = np.abs(starts - stack[:, :, 1]).mean(1)
    # A column at a time: all pairs of whole columns would be large.
    step = np.stack([np.abs(end - starts).mean(1) for end in ends])
    smooth = step < STEP * (last[:, None] + first[None]) / 2
    allowed = varied & smooth & (match > CORRELATION)
    np.fill_diagonal(allowed, False)
    match = np.where(allowed, match, -1.0)
    after, before = match.argmax(1), match.argmax(0)
    return [
        (a, int(b)) for a, b in enumerate(after) if allowed[a, b] and before[b] == a
    ]


def _twins(stack: np.ndarray) -> list[tuple[int, int]]:
    small = [
        np.asarray(Image.fromarray(picture).resize(THUMBNAIL, Image.Resampling.BOX))
        for picture in stack
    ]
    flat = np.stack(small).reshape(len(stack), -1)
    match = np.triu(_correlations(flat, flat), 1)
    return [(int(a), int(b)) for a, b in np.argwhere(match > TWIN)]


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of every row of a with every row of b; 0 for constant rows."""
    return _standardised(a) @ _standardised(b).T


def _standardised(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
