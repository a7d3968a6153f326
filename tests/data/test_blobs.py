import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import regionprops

from fluojax.data import blobs, blobs_appearance, blobs_layout

# Quantity: lowest and highest value that 200 seeds may give, native pixels.
BANDS = {
    "signal": (0.38, 0.62),  # per cent of the picture
    "area": (1100, 1320),
    "diameter": (34.5, 38.5),
    "major": (48, 54),
    "minor": (26.5, 31),
    "empty": (0.10, 0.27),
}


def statistics(seeds, size=(288, 384), scale=0.24):
    signal, cells = [], []
    for seed in seeds:
        labels = blobs.sample(seed, size=size, scale=scale, labels_only=True).instances
        signal.append(100 * np.mean(labels > 0))
        for cell in regionprops(labels):
            lengths = (
                cell.equivalent_diameter_area,
                cell.axis_major_length,
                cell.axis_minor_length,
            )
            cells.append((cell.area / scale**2, *(n / scale for n in lengths)))
    assert max(signal) <= 8
    area, diameter, major, minor = np.mean(cells, axis=0)
    return {
        "signal": np.mean(signal),
        "area": area,
        "diameter": diameter,
        "major": major,
        "minor": minor,
        "empty": np.mean(np.array(signal) == 0),
    }


def check_bands(found, count):
    # The error of a mean shrinks with the root of the number of seeds.
    wider = math.sqrt(200 / count)
    for name, (low, high) in BANDS.items():
        middle, half = (low + high) / 2, wider * (high - low) / 2
        assert abs(found[name] - middle) <= half, (name, found[name])


def test_eighty_fields_look_like_the_published_statistics():
    check_bands(statistics(range(80)), 80)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1000, 50_000])
def test_two_hundred_fields_lie_in_the_bands(first):
    check_bands(statistics(range(first, first + 200)), 200)


@pytest.mark.slow
def test_the_statistics_do_not_depend_on_the_scale():
    check_bands(statistics(range(200), (576, 768), 0.48), 200)


DIGEST = """
import hashlib
from fluojax.data import blobs
s = blobs.sample(6, size=(96, 128), density=2.0)
print(hashlib.sha256(s.image.tobytes() + s.instances.tobytes()).hexdigest())
"""


def test_one_seed_gives_the_same_bytes_in_another_process():
    sample = blobs.sample(6, size=(96, 128), density=2.0)
    data = sample.image.tobytes() + sample.instances.tobytes()
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == hashlib.sha256(data).hexdigest()


def test_what_a_sample_holds():
    sample = blobs.sample(3)
    assert sample.image.shape == (288, 384, 3) and sample.image.dtype == np.uint8
    assert sample.instances.shape == (288, 384)
    assert sample.instances.dtype == np.int32
    count = sample.meta["num_cells"]
    assert count > 1
    np.testing.assert_array_equal(np.unique(sample.instances), np.arange(count + 1))
    assert sample.meta == {"seed": 3, "scale": 0.24, "num_cells": count}


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_labels_alone_are_those_of_the_picture(seed):
    options = {"size": (96, 128), "density": 3.0}
    full = blobs.sample(seed, **options)
    alone = blobs.sample(seed, labels_only=True, **options)
    assert alone.image is None
    assert alone.meta == full.meta
    np.testing.assert_array_equal(alone.instances, full.instances)


def test_splits_share_no_seed():
    seeds = [seed for split in blobs.SPLITS.values() for seed in split]
    assert len(set(seeds)) == len(seeds) == 200 + 40 + 60


def test_seeds_give_different_fields():
    digests = {blobs.sample(k, size=(32, 32)).image.tobytes() for k in range(6)}
    assert len(digests) == 6


def test_more_cells_leave_the_earlier_ones_where_they_are():
    few = blobs.sample(6, labels_only=True)
    many = blobs.sample(6, density=1.5, labels_only=True)
    count = few.meta["num_cells"]
    assert many.meta["num_cells"] > count
    kept = np.where(many.instances <= count, many.instances, 0)
    np.testing.assert_array_equal(kept, few.instances)


def test_another_shape_of_one_cell_shifts_no_other(monkeypatch):
    before = blobs.sample(6).instances
    draw, calls = blobs_layout.draw_outline, []

    def changed(rng):
        outline = draw(rng)
        calls.append(outline)
        if len(calls) == 2:
            rng.random(7)  # what follows in the stream of this object moves too
            return blobs_layout.Outline(10.0, np.full_like(outline.radii, 5.0))
        return outline

    monkeypatch.setattr(blobs_layout, "draw_outline", changed)
    after = blobs.sample(6, labels_only=True).instances
    assert np.any((before == 2) != (after == 2))
    others = np.setdiff1d(np.unique(before), [0, 2])
    same = [np.array_equal(before == k, after == k) for k in others]
    # One that touches the changed cell may follow it; the streams stay apart.
    assert np.mean(same) > 0.8


def test_cells_are_bright_and_yellow_on_a_dark_ground():
    samples = [blobs.sample(seed) for seed in range(8)]
    cells = np.concatenate([s.image[s.instances > 0] for s in samples])
    ground = np.concatenate([s.image[s.instances == 0] for s in samples])
    red, green, blue = np.median(cells, axis=0)
    assert 60 <= red <= 100 and 30 <= green <= 60 and 2 <= blue <= 9
    red, green, blue = np.median(ground, axis=0)
    assert 2 <= red <= 9 and green <= 2 and blue == 0


def test_noisy_labels_are_close_to_the_true_ones():
    same, either = [], []
    for seed in range(60):
        true = blobs.sample(seed, labels_only=True)
        noisy = blobs.sample(seed, labels_only=True, noisy_labels=True)
        assert noisy.meta == true.meta
        a, b = true.instances > 0, noisy.instances > 0
        if a.any():
            same.append((a & b).sum())
            either.append((a | b).sum())
    ious = np.array(same) / np.array(either)
    assert 0.92 <= np.median(ious) <= 0.97  # a picture in which no cell is missing


def test_noisy_labels_leave_the_picture_alone():
    options = {"size": (64, 64), "density": 6.0}
    clean, noisy = (
        blobs.sample(4, noisy_labels=flag, **options) for flag in (False, True)
    )
    np.testing.assert_array_equal(clean.image, noisy.image)
    assert np.any(clean.instances != noisy.instances)


@pytest.mark.parametrize("sigma", [0.53, 1.06, 3.0])
def test_the_gaussian_filter_against_scipy(sigma):
    image = np.random.default_rng(0).normal(size=(20, 31))
    reach = math.ceil(3 * sigma)
    expected = ndimage.gaussian_filter(image, sigma, radius=reach)
    found = blobs_appearance.gaussian_filter(image, sigma)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.7, 3.0, 12.0])
def test_smooth_noise_has_variance_one_and_its_length(sigma):
    rng = np.random.default_rng(1)
    noise = blobs_appearance.smooth_noise(rng, (500, 500), sigma)
    # Interpolation between coarse nodes costs some of the variance.
    assert 0.75 <= noise.std() <= 1.1
    step = max(1, round(sigma))
    related = np.mean(noise[step:] * noise[:-step]) / noise.var()
    assert abs(related - math.exp(-((step / sigma) ** 2) / 4)) < 0.12


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"seed": 0, "size": (0, 32)},
        {"seed": 0, "scale": 0.0},
        {"seed": 0, "density": -1.0},
    ],
)
def test_impossible_fields_are_refused(options):
    with pytest.raises(ValueError, match="sample: seed must be at least 0"):
        blobs.sample(options.pop("seed"), **options)
