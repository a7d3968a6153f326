"""The images that the training processes of this folder learn from."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Six 24-pixel images with one to three cells."""
    root = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4 if split == "train" else 2):
            labels = np.zeros((24, 24), np.uint8)
            for k in range(1 + number % 3):
                row, column = rng.integers(0, 17, 2)
                labels[row : row + 7, column : column + 6] = k + 1
            image = (
                50 + 150 * (labels > 0) + rng.integers(0, 30, labels.shape)
            ).astype(np.uint8)
            for kind, array in (("images", image), ("masks", labels)):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                np.save(root / split / kind / f"{number}.npy", array)
    return root
