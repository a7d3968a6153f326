"""Synthetic inputs that all contenders share: cells on a jittered grid.

NumPy only, one fixed seed; sizes are named as on the command line.
"""

from collections.abc import Mapping

import numpy as np

SEED = 0
# Batch, rows, columns of the losses; rows, columns of one image for operators.
BATCHES = {"A": (4, 512, 512), "B": (16, 512, 768), "small": (2, 64, 64)}
IMAGES = {"A": (1200, 1600), "B": (1200, 1600), "small": (96, 128)}

Arrays = Mapping[str, np.ndarray]


def loss_batch(size: str, cells: int) -> Arrays:
    """Logits, labels `[B, H, W, 1]` float32 and instances `[B, H, W]` int32."""
    batch, *shape = BATCHES[size]
    rng = np.random.default_rng(SEED)
    instances = np.stack([scene(rng, shape, cells) for _ in range(batch)])
    mask = (instances > 0).astype(np.float32)
    soft = np.stack([blur(image, 2.0) for image in mask])
    noise = rng.normal(size=soft.shape)
    logits = 6.0 * (soft - 0.45) + 0.6 * noise
    return {
        "logits": logits[..., None].astype(np.float32),
        "labels": mask[..., None],
        "instances": instances,
    }


def one_image(size: str, cells: int = 200) -> Arrays:
    """Instances, mask, probabilities, and these as grey levels, `[H, W]` of one image."""
    shape = IMAGES[size]
    rng = np.random.default_rng(SEED)
    if size == "small":
        cells = min(cells, 12)
    instances = scene(rng, shape, cells)
    soft = blur((instances > 0).astype(np.float32), 2.0)
    logits = 6.0 * (soft - 0.45) + 0.6 * rng.normal(size=shape)
    probs = 1.0 / (1.0 + np.exp(-logits))
    return {
        "mask": instances > 0,
        "instances": instances,
        "probs": probs.astype(np.float32),
        "grey": (255 * probs).astype(np.uint8),
    }


def scene(rng: np.random.Generator, shape, cells: int) -> np.ndarray:
    """Label map with about `cells` ellipses, at least one, ids 1, 2, ..."""
    pitch = max(np.sqrt(shape[0] * shape[1] / cells), 4.0)
    rows, columns = (int(np.ceil(n / pitch)) for n in shape)
    places = [(i, j) for i in range(rows) for j in range(columns)]
    picked = rng.permutation(len(places))[:cells]
    instances = np.zeros(shape, np.int32)
    for label, place in enumerate(sorted(picked), start=1):
        i, j = places[place]
        centre = (np.array([i, j]) + 0.5 + rng.uniform(-0.12, 0.12, 2)) * (
            np.array(shape) / (rows, columns)
        )
        _draw_ellipse(rng, instances, label, centre, min(0.36 * pitch, 24.0))
    return instances


def _draw_ellipse(rng, instances, label, centre, radius) -> None:
    long, short = radius * rng.uniform(0.8, 1.0), radius * rng.uniform(0.5, 0.8)
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(radius)) + 1
    low = np.maximum(np.floor(centre).astype(int) - reach, 0)
    high = np.minimum(np.floor(centre).astype(int) + reach + 1, instances.shape)
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
    y, x = y - centre[0], x - centre[1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    inside = (along / long) ** 2 + (across / short) ** 2 <= 1
    window = instances[low[0] : high[0], low[1] : high[1]]
    window[inside & (window == 0)] = label


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, edges repeated."""
    reach = int(3 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in range(image.ndim):
        widths = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.pad(image, widths, mode="edge")
        count = image.shape[axis]
        slices = (np.take(padded, range(i, i + count), axis) for i in range(len(taps)))
        image = sum(tap * part for tap, part in zip(taps, slices, strict=True))
    return image
