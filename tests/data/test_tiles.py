import numpy as np
import pytest
from scipy import ndimage

from fluojax.data.tiles import tile_groups


def field(seed, shape=(96, 128)):
    """A smooth random picture with a little noise."""
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    smooth = 100 + 60 * rough / rough.std()
    return (smooth + rng.normal(0, 0.3, shape)).clip(0, 255)


def quarters(picture):
    """Its four tiles of half the size."""
    rows, columns = (n // 2 for n in picture.shape)
    return [
        picture[r : r + rows, c : c + columns] for r in (0, rows) for c in (0, columns)
    ]


def members(groups):
    told = {}
    for name, group in groups.items():
        told.setdefault(group, set()).add(name)
    return sorted(sorted(names) for names in told.values())


def test_the_tiles_of_a_field_are_found_and_strangers_are_not():
    pictures = {}
    for letter, seed in (("a", 0), ("b", 1)):
        for number, tile in enumerate(quarters(field(seed))):
            pictures[f"{letter}{number}"] = tile
    pictures["stranger"] = field(2)[:48, :64]
    pictures["other size"] = field(0)[:48, :60]
    groups = tile_groups(pictures)
    assert members(groups) == [
        ["a0", "a1", "a2", "a3"],
        ["b0", "b1", "b2", "b3"],
        ["other size"],
        ["stranger"],
    ]
    assert groups["a3"] == "a0"


def test_the_order_of_the_pictures_does_not_matter():
    tiles = {str(number): tile for number, tile in enumerate(quarters(field(3)))}
    backwards = dict(reversed(tiles.items()))
    assert tile_groups(tiles) == tile_groups(backwards)
    assert set(tile_groups(tiles).values()) == {"0"}


def test_a_field_taken_twice_is_one_group():
    picture = field(4)
    noise = np.random.default_rng(5).normal(0, 6, picture.shape)
    groups = tile_groups({"first": picture, "second": picture + noise, "x": field(6)})
    assert members(groups) == [["first", "second"], ["x"]]


def test_a_step_of_brightness_is_no_continuation():
    left, right = np.hsplit(field(7), 2)
    assert members(tile_groups({"a": left, "b": right})) == [["a", "b"]]
    assert members(tile_groups({"a": left, "b": right + 60})) == [["a"], ["b"]]


def test_both_must_be_the_best_for_each_other():
    left, right = np.hsplit(field(8), 2)
    other = np.hsplit(field(9), 2)[0].copy()
    # It ends as the left half does, less exactly.
    ramp = np.linspace(0, 1, 8)
    noise = np.random.default_rng(0).normal(0, 2, (len(other), 1))
    other[:, -8:] = (left[:, -1:] + noise) * ramp + other[:, -8:] * (1 - ramp)
    assert members(tile_groups({"b": right, "c": other})) == [["b", "c"]]
    groups = tile_groups({"a": left, "b": right, "c": other})
    assert members(groups) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("shape", [(1, 9), (2, 2), (9, 1)])
def test_flat_and_tiny_pictures_are_alone(shape):
    pictures = {name: np.full(shape, 7.0) for name in "ab"}
    assert tile_groups(pictures) == {"a": "a", "b": "b"}
