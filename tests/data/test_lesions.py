import hashlib

import numpy as np
import pytest
from scipy import ndimage

from fluojax.data import fingerprint, lesion3d_synth, lesions
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError

COARSE = {"size": (32, 36, 32), "spacing_mm": 3.0}


def test_volumes_are_spread_as_published():
    drawn = [lesions.draw_volumes(np.random.default_rng(k), 5e5) for k in range(3000)]
    totals = np.array([volumes.sum() for volumes in drawn]) / 1000  # cm3
    low, median, high = np.quantile(totals, (0.05, 0.5, 0.95))
    assert 0.15 < low < 0.28 and 4.4 < median < 5.7 and 100 < high < 155
    several = [volumes for volumes in drawn if len(volumes) > 1]
    ratios = np.array([volumes[0] / volumes[-1] for volumes in several])
    assert 8 < np.median(ratios) < 14 and 0.17 < np.mean(ratios > 50) < 0.28
    assert all((volumes[1:] >= 10).all() for volumes in drawn)


def test_a_single_lesion_comes_as_often_as_said():
    rng = np.random.default_rng(0)
    # 0.45, and some whose other parts are below 10 mm3.
    single = np.mean([len(lesions.draw_volumes(rng, 5e5)) == 1 for _ in range(3000)])
    assert 0.45 < single < 0.51


def test_lesions_are_apart_within_the_brain_and_of_the_volumes_drawn():
    corners = np.ones((3, 3, 3))
    for seed in range(6):
        labels = lesions.sample(seed, labels_only=True).instances
        got = np.bincount(labels.ravel())[1:]
        rng = lesions.stream(seed, lesions.Kind.VOLUMES)
        most = 0.2 * 4 / 3 * np.pi * np.prod(0.425 * np.array(labels.shape))
        np.testing.assert_allclose(got, lesions.draw_volumes(rng, most), atol=0.5)
        assert ndimage.label(labels, corners)[1] == len(got)
        places = np.argwhere(labels) + 0.5 - np.array(labels.shape) / 2
        assert (np.square(places / (0.425 * np.array(labels.shape))).sum(1) <= 1).all()


def test_one_seed_gives_the_same_bytes_and_the_same_labels_without_a_picture():
    def digest(sample):
        return hashlib.sha256(sample.image.tobytes()).hexdigest()

    first, again = lesions.sample(7, **COARSE), lesions.sample(7, **COARSE)
    assert digest(first) == digest(again) != digest(lesions.sample(8, **COARSE))
    bare = lesions.sample(7, labels_only=True, **COARSE)
    assert bare.image is None
    np.testing.assert_array_equal(bare.instances, first.instances)


def test_the_picture_shows_tissue_and_lesions_between_white_matter_and_fluid():
    drawn = lesions.sample(3, labels_only=False)
    values = drawn.image[..., 0] / 255
    inside = ndimage.binary_erosion(drawn.instances == 1, iterations=3)
    assert drawn.image.dtype == np.uint8 and inside.any()
    assert 0.2 < values[inside].mean() < 0.65
    assert values[0].mean() < 0.03  # outside: noise alone
    middle = np.array(values.shape) // 2
    white = values[middle[0] - 20 : middle[0] + 20, middle[1] + 30, middle[2] + 20]
    assert 0.5 < np.median(white) < 0.8


def test_no_seed_is_in_two_splits_and_every_size_fits():
    seeds = [seed for split in lesions.SPLITS.values() for seed in split]
    assert len(seeds) == len(set(seeds))
    for config in lesion3d_synth.CONFIGS.values():
        assert all(n <= len(lesions.SPLITS[s]) for s, n in config.counts.items())


def test_the_smallest_data_set_has_its_volumes_and_a_crop_that_fits():
    dataset = load_dataset("lesion3d_synth/smoke")
    counts = {split: len(part) for split, part in dataset.splits.items()}
    assert counts == {"train": 8, "val": 4, "test": 4}
    assert dataset.scaling == "fixed" and dataset.reference == "instances"
    first = dataset.splits["train"][0]
    assert first.image.shape == (32, 36, 32, 1) and first.spacing == (3.0, 3.0, 3.0)
    facts = fingerprint.fingerprint(dataset)
    assert 32 <= facts.crop <= 96 and facts.batch_size >= 2
    with pytest.raises(UserError, match="lesion3d_synth/smok is unknown.*did you"):
        load_dataset("lesion3d_synth/smok")


def test_a_head_too_small_for_lesions_is_refused():
    with pytest.raises(ValueError, match="holds no lesion"):
        lesions.sample(0, size=(6, 6, 6))


def test_no_more_than_a_head_can_hold_is_drawn():
    rng = np.random.default_rng(0)
    totals = [lesions.draw_volumes(rng, 1000.0).sum() for _ in range(200)]
    assert 500 < max(totals) <= 1000
