"""What the parts of a step and of its scores do with volumes."""

import numpy as np
import pytest

from fluojax import config as configs
from fluojax.config import Experiment
from fluojax.data import scaling
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError
from fluojax.inference import evaluation
from fluojax.train import program, step


def test_every_channel_of_a_volume_is_scaled_by_its_own_numbers():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 100, (2, 3, 4, 5, 2), np.uint8)
    scale = np.array([[[10, 20], [0.01, 0.02]], [[0, 5], [0.005, 0.01]]], np.float32)
    got = np.asarray(scaling.apply(image, scale, "fixed"))
    for example in range(2):
        for channel in range(2):
            low, gain = scale[example, :, channel]
            expected = np.clip((image[example, ..., channel] - low) * gain, 0, 1)
            np.testing.assert_allclose(got[example, ..., channel], expected, atol=1e-6)


def test_a_gap_opens_between_cells_that_touch_over_slices():
    cells = np.zeros((1, 4, 3, 3), np.int32)
    cells[0, :2], cells[0, 2:] = 1, 2
    labels = np.asarray(step.labels_of(cells, 1, touching_gap=1))
    assert labels.shape == (1, 4, 3, 3, 1)
    np.testing.assert_array_equal(labels[0, :, 1, 1, 0], [1, 0, 0, 1])


def test_volumes_are_padded_a_little_before_they_are_compared():
    assert evaluation._padded(np.ones((33, 20, 32), np.int32)).shape == (64, 32, 32)
    assert evaluation._padded(np.ones((33, 20), np.int32)).shape == (256, 256)


def test_presets_for_images_are_refused_for_volumes_before_anything_is_compiled():
    image = np.arange(8**3, dtype=np.uint16).reshape(8, 8, 8, 1)
    record = Record(image, np.ones((8, 8, 8), np.int32), "a", "a")
    dataset = Dataset("d", {"train": [record], "val": [], "test": []})
    config = configs.apply_overrides(
        Experiment(crop=8, batch_size=4, scaling="fixed", model="unet_nano"),
        {"augmentation": "imsahlo", "crop": 16},
    )
    with pytest.raises(UserError, match="augmentation: 'imsahlo' blurs or equalises"):
        program.build(config, dataset)
