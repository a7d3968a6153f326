"""One tiny trained run that the tests of the jobs share."""

import numpy as np
import pytest
import tifffile

from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.jobs.train import train


def cells(seed, size=40):
    """An image of bright rectangles and its instances."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint16)
    for k in range(3):
        row, column = rng.integers(0, size - 12, 2)
        labels[row : row + 9, column : column + 10] = k + 1
    noise = rng.integers(0, 20, labels.shape)
    return (40 + 180 * (labels > 0) + noise).astype(np.uint8), labels


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """train/val/test of TIFFs with instance masks."""
    root = tmp_path_factory.mktemp("cells")
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for number in range(count):
            image, labels = cells(100 * len(split) + number)
            for kind, array in (("images", image), ("masks", labels)):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(root / split / kind / f"c{number}.tif", array)
    return root


@pytest.fixture(scope="session")
def experiment(folder, tmp_path_factory):
    return Experiment(
        data=str(folder),
        model="cresunet",
        model_options={"base_features": 4},
        crop=32,
        batch_size=4,
        learning_rate=1e-2,
        num_steps=60,
        eval_every=30,
        save_every=30,
        scaling="fixed",
        threshold=None,
        workdir=str(tmp_path_factory.mktemp("runs") / "first"),
    )


@pytest.fixture(scope="session")
def trained(experiment):
    """(run folder, results)"""
    from pathlib import Path

    results = train(experiment, console=Console(quiet=True))
    return Path(experiment.workdir), results
