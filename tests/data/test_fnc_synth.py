import numpy as np
import pytest

from fluojax.data import blobs, fingerprint, fnc_synth
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError

TINY = {"size": (32, 32), "density": 20.0}


def test_the_smallest_size_has_its_counts_and_what_training_must_know():
    dataset = fnc_synth.dataset("smoke", **TINY)
    counts = {split: len(part) for split, part in dataset.splits.items()}
    assert counts == fnc_synth.CONFIGS["smoke"] == {"train": 8, "val": 4, "test": 4}
    # Brightness carries the label, and masks are compared as the study does.
    assert dataset.scaling == "fixed" and dataset.reference == "components"
    for split, part in dataset.splits.items():
        for record in part:
            assert record.id == record.group and record.id.startswith(f"{split}/")
            assert record.image.shape == (32, 32, 3) and record.image.dtype == np.uint8
            assert record.instances.shape == (32, 32)
            assert record.instances.dtype == np.int32 and record.has_labels
            ids = np.unique(record.instances)
            np.testing.assert_array_equal(ids, np.arange(ids.size) + (ids[0] > 0))


def test_no_seed_is_in_two_splits_and_every_size_fits():
    seeds = [seed for split in blobs.SPLITS.values() for seed in split]
    assert len(seeds) == len(set(seeds))
    for config in fnc_synth.CONFIGS.values():
        assert all(n <= len(blobs.SPLITS[split]) for split, n in config.items())


def test_images_are_the_same_in_every_size_and_order_of_drawing():
    two = fnc_synth.records("val", 2, **TINY)
    three = fnc_synth.records("val", 3, **TINY)
    again = fnc_synth.record(50_001, "val", **TINY)
    for first, second in zip(two, three, strict=False):
        assert first.id == second.id
        np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(two[1].image, again.image)
    np.testing.assert_array_equal(two[1].instances, again.instances)


def test_crowded_images_have_more_cells_that_touch_and_count_them_one_by_one():
    def cells(**options):
        found = [
            blobs.sample(k, labels_only=True, **options).instances for k in range(12)
        ]
        return sum(map(fingerprint.touching_cells, found)) / sum(x.max() for x in found)

    assert cells(**fnc_synth.OPTIONS["crowded"]) > 0.5 > 0.4 > cells()
    assert fnc_synth.reference("crowded") == "instances"
    assert fnc_synth.reference("full") == "components"


def test_a_share_of_touching_cells_is_checked():
    with pytest.raises(ValueError, match=r"touching must be in \[0, 1\], got 2"):
        blobs.sample(0, touching=2)


def test_an_unknown_size_is_refused_with_those_known():
    with pytest.raises(UserError) as error:
        load_dataset("fnc_synth/smok")
    text = str(error.value)
    assert "fnc_synth/smok is unknown (did you mean smoke" in text
    assert "fnc_synth/full, fnc_synth/demo, fnc_synth/smoke" in text


def test_other_machines_are_refused():
    with pytest.raises(UserError, match="folders of this machine only"):
        load_dataset("gs://bucket/cells")
