import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import segmentation

from fluojax.ops.watershed import (
    fluocells_postprocess,
    peak_local_max,
    split_touching,
    watershed,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")

SMALL = {
    "max_hole_size": 4,
    "min_object_size": 30,
    "max_filter_size": 6,
    "footprint": 20,
}


def disks(shape, *places):
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, bool)
    for row, column, radius in places:
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return mask


TOUCHING = disks((28, 44), (14, 12, 9), (14, 28, 9))


def test_a_valley_belongs_to_its_marker_and_a_ridge_to_who_is_there_first():
    height = jnp.array([[0.0, 1.0, 2.0, 5.0, 1.0, 0.0]])
    markers = jnp.array([[4, 0, 0, 0, 0, 9]])
    np.testing.assert_array_equal(watershed(height, markers), [[4, 4, 4, 9, 9, 9]])


def test_on_flat_ground_compact_regions_are_those_nearest_to_a_marker():
    markers = jnp.zeros((9, 12), jnp.int32).at[4, 2].set(1).at[2, 9].set(2)
    found = np.asarray(watershed(jnp.zeros((9, 12)), markers, compactness=1.0))
    rows, columns = np.indices((9, 12))
    to_one = np.hypot(rows - 4, columns - 2)
    to_two = np.hypot(rows - 2, columns - 9)
    clear = np.abs(to_one - to_two) > 1e-6
    expected = np.where(to_one < to_two, 1, 2)
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_only_what_faces_connect_to_a_marker_is_flooded():
    mask = np.array([[1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 0]])
    markers = jnp.zeros((3, 4), jnp.int32).at[0, 0].set(7)
    found = watershed(jnp.zeros((3, 4)), markers, mask=mask)
    np.testing.assert_array_equal(found, [[7, 7, 0, 0], [0] * 4, [0] * 4])


def noisy_scene(seed):
    rng = np.random.default_rng(seed)
    height = rng.permutation(24 * 20).reshape(24, 20).astype(np.float32)
    markers = np.zeros((24, 20), np.int32)
    places = rng.choice(24 * 20, 5, replace=False)
    markers.ravel()[places] = [3, 1, 8, 5, 2]
    mask = rng.random((24, 20)) < 0.85
    return height, markers, mask


def test_without_ties_regions_equal_those_of_a_queue():
    flood = jax.jit(lambda h, m, inside: watershed(h, m, mask=inside))
    for seed in range(4):
        height, markers, mask = noisy_scene(seed)
        expected = segmentation.watershed(height, markers, mask=mask)
        np.testing.assert_array_equal(flood(height, markers, mask), expected)


def test_touching_cells_agree_with_a_queue_but_for_ties():
    depth = ndimage.distance_transform_edt(TOUCHING)
    markers = np.zeros(TOUCHING.shape, np.int32)
    markers[14, 12], markers[14, 28] = 1, 2
    for compactness, limit in ((0.0, 0.97), (1.0, 0.985)):
        found = watershed(-depth, markers, mask=TOUCHING, compactness=compactness)
        expected = segmentation.watershed(
            -depth, markers, mask=TOUCHING, compactness=compactness
        )
        assert np.mean((found == expected)[TOUCHING]) >= limit


@pytest.mark.parametrize("compactness", [0.0, 2.0])
def test_regions_are_connected_and_keep_their_markers(compactness):
    # Plateaus of three heights: most decisions are ties.
    rng = np.random.default_rng(3)
    height = rng.integers(0, 3, (24, 20)).astype(np.float32)
    _, markers, mask = noisy_scene(3)
    found = np.asarray(watershed(height, markers, mask=mask, compactness=compactness))
    seeds = (markers != 0) & mask
    np.testing.assert_array_equal(found[seeds], markers[seeds])
    for label in np.unique(markers[seeds]):
        assert ndimage.label(found == label)[1] == 1
    pieces, _ = ndimage.label(mask)
    reachable = np.isin(pieces, pieces[seeds]) & mask
    np.testing.assert_array_equal(found != 0, reachable)


def test_lines_part_every_two_regions_and_spare_the_markers():
    height, markers, mask = noisy_scene(1)
    markers[10, 4:6] = 11, 12  # side by side: no room for a line
    mask[10, 4:6] = True
    found = np.asarray(watershed(height, markers, mask=mask, line=True))
    whole = np.asarray(watershed(height, markers, mask=mask))
    seeds = (markers != 0) & mask
    np.testing.assert_array_equal(found[seeds], markers[seeds])
    assert np.all((found == whole) | (found == 0))
    for axis in (0, 1):
        first = np.delete(found, -1, axis)
        second = np.delete(found, 0, axis)
        fixed = np.delete(seeds, -1, axis) & np.delete(seeds, 0, axis)
        meet = (first != second) & (first != 0) & (second != 0)
        assert not np.any(meet & ~fixed)


def test_volumes_are_flooded_too():
    height = np.abs(np.arange(-4, 5, dtype=np.float32))[:, None, None]
    height = np.broadcast_to(4 - height, (9, 3, 4))
    markers = np.zeros((9, 3, 4), np.int32)
    markers[0, 1, 1], markers[8, 1, 1] = 5, 6
    found = np.asarray(watershed(height, markers))
    assert np.all(found[:4] == 5) and np.all(found[5:] == 6)


def test_a_batch_is_flooded_like_its_images():
    scenes = [
        np.stack(arrays) for arrays in zip(*map(noisy_scene, range(3)), strict=True)
    ]
    flood = jax.vmap(lambda h, m, inside: watershed(h, m, mask=inside, compactness=3.0))
    batched = jax.jit(flood)(*scenes)
    alone = [flood(*(a[i : i + 1] for a in scenes))[0] for i in range(3)]
    np.testing.assert_array_equal(batched, np.stack(alone))


def test_peaks_are_whole_plateaus_above_the_threshold():
    image = jnp.array([[1, 3, 3, 1, 0, 2, 0, 0, 1]])
    found = peak_local_max(image, 3)
    np.testing.assert_array_equal(found, [[0, 1, 1, 0, 0, 1, 0, 0, 1]])
    found = peak_local_max(image, 3, threshold=2)
    np.testing.assert_array_equal(found, [[0, 1, 1, 0, 0, 0, 0, 0, 0]])


def test_peaks_compete_within_their_label_only():
    image = jnp.array([[1.0, 4.0, 3.0, 2.0, 5.0]])
    labels = jnp.array([[1, 1, 2, 2, 0]])
    found = peak_local_max(image, 5, labels=labels)
    np.testing.assert_array_equal(found, [[0, 1, 1, 0, 0]])
    found = peak_local_max(image, 5, labels=labels != 0)
    np.testing.assert_array_equal(found, [[0, 1, 0, 0, 0]])


@pytest.mark.parametrize("size", [4, 5])
def test_the_box_of_labelled_peaks_is_that_of_the_others(size):
    image = np.random.default_rng(0).integers(0, 9, (12, 13))
    whole = peak_local_max(image, size, labels=np.ones((12, 13), bool))
    labelled = peak_local_max(image, size, labels=np.ones((12, 13), int))
    np.testing.assert_array_equal(labelled, whole)


def test_two_touching_cells_are_parted_and_counted():
    stages = fluocells_postprocess(TOUCHING, **SMALL)
    assert int(stages.count) == 2
    assert int(stages.markers.max()) == 2
    for column, label in ((12, 1), (28, 2)):
        assert stages.labels[14, column] == label
    assert np.mean((np.asarray(stages.labels) > 0)[TOUCHING]) > 0.9
    np.testing.assert_array_equal(split_touching(TOUCHING, **SMALL), stages.labels)


def test_a_cell_beside_a_larger_one_is_lost_unless_it_is_kept():
    mask = disks((28, 44), (14, 12, 9), (14, 27, 4))
    assert int(fluocells_postprocess(mask, **SMALL).count) == 1
    kept = fluocells_postprocess(mask, **SMALL, keep_unmarked=True)
    assert int(kept.count) == 2
    assert int(split_touching(mask, **SMALL).max()) == 2


def test_empty_and_full_masks_have_no_and_one_object():
    assert int(fluocells_postprocess(np.zeros((28, 44)), **SMALL).count) == 0
    full = fluocells_postprocess(np.ones((28, 44)), **SMALL)
    assert int(full.count) == 1 and np.all(full.labels == 1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: watershed(np.zeros((3, 3)), np.zeros((3, 3))),
            TypeError,
            "watershed: markers must be integers",
        ),
        (
            lambda: watershed(np.zeros((3, 3)), np.zeros((3, 4), int)),
            ValueError,
            r"markers must have the shape of the image \(3, 3\), got \(3, 4\)",
        ),
        (
            lambda: peak_local_max(np.zeros((3, 3)), 0),
            ValueError,
            "size must be a positive number or 2 of them, got 0",
        ),
        (
            lambda: fluocells_postprocess(np.zeros((3, 3)), smooth_disk=-1),
            ValueError,
            "smooth_disk must be >= 0, got -1",
        ),
        (lambda: split_touching(np.zeros(3)), ValueError, "split_touching: mask must"),
    ],
)
def test_what_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
