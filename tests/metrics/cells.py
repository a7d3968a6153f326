"""Label maps for the tests of metrics, and matching written as plain loops."""

import numpy as np


def random_cells(
    seed: int, shape: tuple[int, ...] = (24, 28), count: int = 9
) -> np.ndarray:
    """Boxes that cover each other, ids 1..count (some may be hidden)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for cell in range(1, count + 1):
        low = [rng.integers(0, length - 2) for length in shape]
        box = tuple(slice(a, a + rng.integers(2, 9)) for a in low)
        labels[box] = cell
    return labels


def moved(labels: np.ndarray, seed: int) -> np.ndarray:
    """The map shifted by a pixel, with some cells lost and some merged."""
    rng = np.random.default_rng(seed)
    pred = np.roll(labels, rng.integers(-1, 2, labels.ndim), range(labels.ndim))
    ids = np.unique(pred[pred != 0])
    lost, merged = rng.choice(ids, 2, replace=False)
    pred = np.where(pred == lost, 0, pred)
    return np.where(pred == merged, ids[0], pred).astype(np.int32)


def iou_table(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """IoU of every pair, float64, rows and columns in the order of the ids."""
    ids_true, ids_pred = np.unique(true[true != 0]), np.unique(pred[pred != 0])
    table = np.zeros((len(ids_true), len(ids_pred)))
    for i, a in enumerate(ids_true):
        for j, b in enumerate(ids_pred):
            both = np.sum((true == a) & (pred == b))
            table[i, j] = both / np.sum((true == a) | (pred == b))
    return table
