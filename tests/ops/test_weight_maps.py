import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.ops.weight_maps import (
    class_balance_weights,
    overcrowding_weights,
    unet_border_weights,
)

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_the_border_weight_by_hand():
    # Between the cells, d1 + d2 is 1 + 2; two pixels before the first 2 + 5.
    instances = np.array([[0, 0, 8, 0, 0, 3]])
    expected = 10 * np.exp(-np.square([[7, 5, 0, 3, 3, 0]]) / 50.0)
    expected[0, [2, 5]] = 0
    np.testing.assert_allclose(unet_border_weights(instances), expected, rtol=1e-5)
    inside = unet_border_weights(instances, everywhere=True)[0, 2]
    np.testing.assert_allclose(inside, 10 * np.exp(-9 / 50.0), rtol=1e-5)


def test_cells_that_touch_have_the_full_weight_nowhere_in_the_background():
    instances = np.array([[1, 1, 2, 2]])
    assert not np.any(unet_border_weights(instances))


@pytest.mark.parametrize("instances", [np.zeros((4, 4), int), np.eye(4, dtype=int)])
def test_fewer_than_two_instances_have_no_border(instances):
    assert not np.any(unet_border_weights(instances, everywhere=True))


def test_width_weight_and_spacing_scale_as_they_say():
    instances = np.array([[4, 0, 0, 0, 5], [0, 0, 0, 0, 0]])
    base = unet_border_weights(instances)
    twice = unet_border_weights(instances, w0=20.0, sigma=10.0, spacing=2.0)
    np.testing.assert_allclose(twice, 2 * base, rtol=1e-5)


def test_both_classes_sum_to_the_same_and_the_rarer_counts_fully():
    mask = np.array([[1, 0, 0], [0, 0, 1]])
    found = np.asarray(class_balance_weights(mask))
    np.testing.assert_allclose(found, np.where(mask, 1.0, 0.5))
    np.testing.assert_allclose(class_balance_weights(1 - mask), found)
    for alone in (np.zeros((2, 3)), np.ones((2, 3))):
        np.testing.assert_array_equal(class_balance_weights(alone), np.ones((2, 3)))


def crowd(mask, sigma):
    labels, count = ndimage.label(mask)
    total = np.zeros(mask.shape)
    for label in range(1, count + 1):
        distances = ndimage.distance_transform_edt(labels != label)
        total += np.exp(-(distances**2) / (2 * sigma**2))
    return np.maximum(total, 1.0)


def cells():
    mask = np.zeros((20, 26), bool)
    mask[2:6, 2:6] = mask[2:7, 9:13] = mask[10:14, 4:8] = True
    mask[3, 3] = False  # a hole
    mask[17, 22:24] = True  # too small
    return mask


def test_the_overcrowding_map_agrees_with_a_loop_over_cells():
    mask, sizes = cells(), {"min_object": 4, "max_hole": 3}
    kept = ndimage.binary_fill_holes(mask)
    kept[17] = False
    near = ndimage.maximum_filter(kept, size=6, mode="constant")
    expected = np.where(near, crowd(kept, 4.0), 1.0) * np.where(kept, 1.5, 1.0) / 3.0
    found = overcrowding_weights(mask, sigma=4.0, dilation=6, normalizer=3.0, **sizes)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cells_beyond_the_window_of_the_others_count_as_exactly():
    mask = np.zeros((120, 110), bool)
    mask[5:110, 50:53] = mask[2:5, 100:104] = mask[110:113, 2:8] = True
    expected = crowd(mask, 1.0) * np.where(mask, 1.5, 1.0)
    found = overcrowding_weights(
        mask, sigma=1.0, dilation=200, min_object=4, max_hole=1, normalizer=1.0
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_far_cells_make_borders_as_a_search_without_end_finds_them():
    instances = np.zeros((6, 90), int)
    instances[2, 3], instances[3, 40], instances[0, 88] = 1, 2, 3
    places = [ndimage.distance_transform_edt(instances != k) for k in (1, 2, 3)]
    both = np.sort(places, axis=0)[:2].sum(axis=0)
    expected = np.where(instances == 0, 10 * np.exp(-(both**2) / 8), 0)
    found = unet_border_weights(instances, sigma=2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-30)


def test_without_cells_the_overcrowding_map_is_flat():
    found = overcrowding_weights(np.zeros((20, 26)), dilation=6)
    np.testing.assert_allclose(found, np.full((20, 26), 1 / 3.8177538), rtol=1e-6)


def test_batches_are_their_images_one_by_one():
    masks = np.stack([cells(), np.zeros((20, 26), bool), cells()[::-1, ::-1]])

    def weights(mask):
        return overcrowding_weights(mask, sigma=4.0, min_object=4, dilation=6)

    batched = jax.jit(jax.vmap(weights))(masks)
    alone = np.stack([weights(mask) for mask in masks])
    np.testing.assert_allclose(batched, alone, rtol=1e-6)
    assert batched.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: unet_border_weights(np.ones((2, 2))),
            TypeError,
            "unet_border_weights: instances must be integers",
        ),
        (
            lambda: overcrowding_weights(np.ones((2, 2)), dilation=0),
            ValueError,
            "dilation must be >= 1 pixel, got 0",
        ),
        (lambda: class_balance_weights(np.ones(2)), ValueError, "use jax.vmap"),
    ],
)
def test_what_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
