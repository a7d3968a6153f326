import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from fluojax.data import augment
from fluojax.data.augment import Preset

STILL = Preset(
    flip_rows=0, flip_columns=0, quarter_turns=False, affine=0, photometric=0, noise=0
)
SIZE = 32


def labels(size=(SIZE, SIZE)):
    """Blocks of 4 x 4 pixels, a third of them cells with scattered ids."""
    rng = np.random.default_rng(0)
    shape = (-(-size[0] // 4), -(-size[1] // 4))
    ids = rng.permutation(np.prod(shape)).reshape(shape) * 37 + 1
    ids = np.where(rng.random(shape) < 0.3, ids, 0)
    return np.kron(ids, np.ones((4, 4)))[: size[0], : size[1]].astype(np.int32)


def example(size=(SIZE, SIZE)):
    """Channels: noise, and the label map itself as grey values."""
    cells = labels(size)
    noise = np.random.default_rng(1).random(size)
    image = np.stack([noise, cells / cells.max()], -1).astype(np.float32)
    return jnp.asarray(image), jnp.asarray(cells), jnp.ones(size, bool)


def with_preset(**options):
    return Preset(**{**vars(STILL), **options})


def moved(preset, key=0, size=(SIZE, SIZE)):
    key = jax.random.key(key)
    return augment.transform(key, *example(size), preset)


# --- geometry ---------------------------------------------------------------------------


def test_a_draw_without_change_is_bit_exact():
    for got, given in zip(moved(STILL), example(), strict=True):
        np.testing.assert_array_equal(got, given)


@pytest.mark.parametrize("size", [(SIZE, SIZE), (20, 33)])
def test_flips_are_exact(size):
    for preset, flip in (
        (with_preset(flip_rows=1.0), np.flipud),
        (with_preset(flip_columns=1.0), np.fliplr),
    ):
        for got, given in zip(moved(preset, size=size), example(size), strict=True):
            np.testing.assert_array_equal(got, flip(np.asarray(given)))


def test_quarter_turns_are_exact_and_all_four_come():
    seen = set()
    preset = with_preset(quarter_turns=True)
    for key in range(20):
        result = moved(preset, key)
        turns = [
            k
            for k in range(4)
            if np.array_equal(result[0], np.rot90(np.asarray(example()[0]), k))
        ]
        assert len(turns) == 1
        for got, given in zip(result, example(), strict=True):
            np.testing.assert_array_equal(got, np.rot90(np.asarray(given), turns[0]))
        seen |= set(turns)
    assert seen == {0, 1, 2, 3}


def test_images_that_are_not_square_are_not_turned_by_quarters():
    size = (20, 33)
    for key in range(6):
        got = moved(with_preset(quarter_turns=True), key, size)
        np.testing.assert_array_equal(got[1], labels(size))


def test_an_image_of_the_labels_stays_equal_to_them_under_every_draw():
    # Linear sampling reads the 3 x 3 pixels around the nearest one. Where these
    # agree, grey values made of the labels must come out as the nearest label;
    # `where` carries that property along.
    image, cells, _ = example()
    lowest, highest = (f(labels(), 3) for f in (minimum_filter, maximum_filter))
    inner = jnp.asarray(lowest == highest)
    move = jax.jit(lambda key: augment.transform(key, image, cells, inner, Preset()))
    for key in range(20):
        picture, moved_cells, moved_inner = move(jax.random.key(key))
        assert moved_inner.sum() > 100
        difference = picture[..., 1] - moved_cells / labels().max()
        assert float(jnp.abs(difference[moved_inner]).max()) < 1e-6


def test_labels_and_where_end_where_the_image_ends():
    # Turned by 15 degrees and made smaller: corners show what lies outside.
    preset = with_preset(affine=1.0, degrees=15.0, zoom=(0.6, 0.6))
    image, cells, where = moved(preset, 3)
    assert not where[0, 0] and not where[-1, -1] and where[SIZE // 2, SIZE // 2]
    assert not cells[~where].any()
    share = float(where.mean())
    assert abs(share - 0.36) < 0.05  # 0.6 squared
    # The image is reflected, so that no artificial edge appears.
    assert float(image[..., 0][~where].min()) > 0


def test_padding_stays_padding():
    image, cells, where = example()
    where = where.at[:, 20:].set(False)
    preset = with_preset(flip_columns=1.0)
    got = augment.transform(jax.random.key(0), image, cells, where, preset)[2]
    np.testing.assert_array_equal(got, np.asarray(where)[:, ::-1])


@pytest.mark.parametrize("name", ["default", "study"])
def test_ids_are_never_renumbered(name):
    before = set(np.unique(labels()))
    function = jax.jit(augment.augmentation(name))
    for key in range(8):
        cells = function(jax.random.key(key), *example())[1]
        assert cells.dtype == jnp.int32
        assert set(np.unique(cells)) <= before


def test_large_ids_survive():
    image, cells, where = example()
    cells = jnp.where(cells > 0, cells + 2**24, 0)
    got = augment.transform(jax.random.key(5), image, cells, where, Preset())[1]
    assert set(np.unique(got)) <= set(np.unique(cells))


def test_a_zoom_above_one_enlarges():
    disk = np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2)) < 6
    for zoom in (0.8, 1.25):
        preset = with_preset(affine=1.0, degrees=0.0, zoom=(zoom, zoom))
        example = (
            jnp.asarray(disk, jnp.float32)[..., None],
            jnp.asarray(disk, jnp.int32),
        )
        got = augment.transform(jax.random.key(0), *example, jnp.asarray(disk), preset)
        area = got[1].sum() / disk.sum()
        # Areas of small disks are good to a ring of half a pixel.
        assert abs(area - zoom**2) < 0.15


def test_draws_follow_the_preset():
    keys = jax.random.split(jax.random.key(0), 400)
    preset = Preset(quarter_turns=False, flip_rows=0.0, flip_columns=0.0)
    draw = jax.vmap(lambda key: augment.draw_matrix(key, preset, square=True))
    matrices = np.asarray(draw(keys))
    still = (matrices == np.eye(2)).all((1, 2))
    # 0.75 of the draws turn; four standard errors.
    assert abs(still.mean() - 0.25) < 4 * np.sqrt(0.75 * 0.25 / 400)
    angles = np.rad2deg(np.arctan2(matrices[~still, 1, 0], matrices[~still, 0, 0]))
    zooms = 1 / np.sqrt(np.linalg.det(matrices[~still]))
    assert np.abs(angles).max() <= 15 and angles.min() < -12 and angles.max() > 12
    assert zooms.min() >= 0.9 and zooms.max() <= 1.1 and np.ptp(zooms) > 0.15
    flips = Preset(quarter_turns=False, affine=0.0)
    draw = jax.vmap(lambda key: augment.draw_matrix(key, flips, square=True))
    signs = np.asarray(draw(keys))[:, [0, 1], [0, 1]]
    assert (np.abs((signs < 0).mean(0) - 0.5) < 4 * np.sqrt(0.25 / 400)).all()


# --- light ------------------------------------------------------------------------------


def test_light_is_changed_within_the_preset_and_clipped():
    image = jnp.linspace(0, 1, 64).reshape(8, 8, 1)
    preset = with_preset(photometric=1.0, brightness=0.3, contrast=0.3)
    for key in range(20):
        got = augment.relight(jax.random.key(key), image, preset)
        assert got.min() >= 0 and got.max() <= 1
        # One straight line for all pixels that are not clipped.
        inner = (got > 0) & (got < 1)
        slope, offset = np.polyfit(np.asarray(image[inner]), np.asarray(got[inner]), 1)
        assert 0.7 - 1e-4 <= slope <= 1.3 + 1e-4 and abs(offset) <= 0.3 + 1e-4
    still = augment.relight(jax.random.key(0), image, STILL)
    np.testing.assert_array_equal(still, image)


def test_noise_has_the_deviation_asked_for_and_is_clipped():
    image = jnp.full((64, 64, 1), 0.5)
    noisy = augment.add_noise(jax.random.key(0), image, 0.05)
    # Standard error of a standard deviation: s / sqrt(2n), times four.
    assert abs(float(noisy.std()) - 0.05) < 4 * 0.05 / np.sqrt(2 * 64 * 64)
    bright = augment.add_noise(jax.random.key(0), jnp.ones((64, 64, 1)), 0.05)
    assert bright.max() == 1
    np.testing.assert_array_equal(augment.add_noise(jax.random.key(0), image, 0), image)


# --- warps ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["elastic", "grid"])
def test_a_warp_moves_picture_and_cells_together(kind):
    preset = with_preset(**{kind: 1.0})
    image, cells, where = moved(preset, 4)
    # The second channel is the label map as grey values, interpolated linearly:
    # inside blocks both say the same.
    grey = np.asarray(image[..., 1]) * labels().max()
    lowest, highest = minimum_filter(cells, 3), maximum_filter(cells, 3)
    flat = (lowest == highest) & np.asarray(where)
    assert flat.sum() > 50
    assert np.median(np.abs(grey - cells)[flat]) < 1e-2
    assert np.mean(np.asarray(cells) != labels()) > 0.05


def test_warps_come_as_often_as_asked():
    preset = with_preset(elastic=0.3, grid=0.5)
    draw = jax.jit(jax.vmap(lambda key: augment.draw_warp(key, (16, 16), preset)))
    still = np.stack(np.indices((16, 16)))
    places = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    untouched = np.mean(np.all(places == still, axis=(1, 2, 3)))
    assert untouched == pytest.approx(0.7 * 0.5, abs=0.07)


def test_blur_is_drawn_and_keeps_the_mean():
    image = example()[0]
    preset = with_preset(blur=0.5, blur_sigma=2.0)
    soften = jax.jit(lambda key: augment.soften(key, image, preset))
    found = [np.asarray(soften(key)) for key in jax.random.split(jax.random.key(0), 40)]
    kept = np.mean([np.allclose(x, image, atol=1e-6) for x in found])
    assert 0.25 < kept < 0.75
    for blurred in found:
        assert blurred.mean() == pytest.approx(float(image.mean()), rel=0.01)


# --- the whole --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "study"])
def test_the_same_key_gives_the_same_picture_under_jit_vmap_and_pmap(name):
    function = augment.augmentation(name)
    keys = jax.random.split(jax.random.key(1), 4)
    batch = [jnp.stack([x] * 4) for x in example()]
    results = [
        [
            jnp.stack(x)
            for x in zip(*(function(k, *example()) for k in keys), strict=True)
        ],
        jax.vmap(function)(keys, *batch),
        jax.jit(jax.vmap(function))(keys, *batch),
        jax.pmap(function)(keys, *batch),
    ]
    for image, cells, where in results[1:]:
        # Fusing differs, the picture does not: the last digits of coordinates.
        chex.assert_trees_all_close(image, results[0][0], atol=2e-5)
        np.testing.assert_array_equal(cells, results[0][1])
        np.testing.assert_array_equal(where, results[0][2])


def test_an_example_does_not_depend_on_the_size_of_its_batch():
    function = jax.jit(jax.vmap(augment.augmentation("default")))
    key = jax.random.key(2)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(6))
    batch = [jnp.stack([x] * 6) for x in example()]
    large = function(keys, *batch)
    small = function(keys[2:4], *(x[2:4] for x in batch))
    for got, whole in zip(small, large, strict=True):
        chex.assert_trees_all_close(got, whole[2:4], atol=2e-5)


def test_different_keys_give_different_pictures():
    function = jax.jit(augment.augmentation("default"))
    pictures = {
        np.asarray(function(jax.random.key(k), *example())[0]).tobytes()
        for k in range(8)
    }
    assert len(pictures) == 8


def test_warps_are_the_same_under_jit_and_vmap_but_for_roundings():
    # Equalising makes a rounded level visible.
    function = augment.augmentation("imsahlo")
    keys = jax.random.split(jax.random.key(1), 4)
    batch = [jnp.stack([x] * 4) for x in example()]
    batched = jax.jit(jax.vmap(function))(keys, *batch)
    single = jax.jit(function)
    for i, key in enumerate(keys):
        image, cells, where = single(key, *example())
        assert np.mean(np.abs(batched[0][i] - image) > 1e-3) < 0.01
        assert np.mean(batched[1][i] != cells) < 0.005
        assert np.mean(batched[2][i] != where) < 0.005


@pytest.mark.parametrize("name", ["default", "study", "imsahlo"])
def test_sizes_types_and_range_stay(name):
    image, cells, where = augment.augmentation(name)(
        jax.random.key(0), *example((20, 33))
    )
    assert image.shape == (20, 33, 2) and image.dtype == jnp.float32
    assert cells.shape == where.shape == (20, 33) and where.dtype == bool
    assert image.min() >= 0 and image.max() <= 1


# --- volumes ----------------------------------------------------------------------------


def volume(depth=2):
    """Slices that are all different, with their labels as a second channel."""
    image, cells, where = example((16, 16))
    cells = jnp.stack([jnp.roll(cells, 4 * k, 0) for k in range(depth)])
    grey = jnp.stack([jnp.roll(image[..., 0], k, 1) for k in range(depth)])
    image = jnp.stack([grey, cells / cells.max()], -1).astype(jnp.float32)
    return image, cells, jnp.stack([where] * depth)


def test_all_slices_of_a_volume_move_alike():
    given, key = volume(), jax.random.key(3)
    preset = with_preset(affine=1.0, degrees=30.0, zoom=(0.9, 1.1), quarter_turns=True)
    got = jax.jit(augment.transform_volume, static_argnums=4)(key, *given, preset)
    slice_by_slice = jax.jit(augment.transform, static_argnums=4)
    for depth in range(2):
        alone = slice_by_slice(key, *(x[depth] for x in given), preset)
        for one, other in zip(alone, got, strict=True):
            np.testing.assert_allclose(one, other[depth], atol=1e-5)


def test_the_order_of_the_slices_is_turned_round():
    given = volume()
    got = augment.transform_volume(
        jax.random.key(0), *given, with_preset(flip_rows=1.0)
    )
    for one, other in zip(got, given, strict=True):
        np.testing.assert_array_equal(one, other[::-1, ::-1])


def test_the_default_preset_takes_volumes_and_keeps_sizes_types_and_range():
    given = volume()
    got = augment.augmentation("default", rank=3)(jax.random.key(1), *given)
    for one, other in zip(got, given, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
    assert 0 <= float(got[0].min()) and float(got[0].max()) <= 1
    assert set(np.unique(got[1])) <= set(np.unique(given[1]))


def test_presets_that_work_on_single_images_are_refused_for_volumes():
    with pytest.raises(ValueError, match="'imsahlo' blurs.*choose default, study"):
        augment.augmentation("imsahlo", rank=3)


def test_none_is_no_augmentation_and_other_names_are_refused():
    assert augment.augmentation("none") is None
    with pytest.raises(ValueError, match=r"'strong' is unknown; known are \['default'"):
        augment.augmentation("strong")
