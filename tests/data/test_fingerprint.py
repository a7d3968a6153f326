import json

import numpy as np
import pytest

from fluojax.data import fingerprint
from fluojax.data.record import Dataset, Record


def record(cells, name="a", **options):
    cells = np.asarray(cells, np.int32)
    image = np.arange(cells.size, dtype=np.uint16).reshape(*cells.shape, 1)
    return Record(image, cells, name, name, **options)


def squares(side, count, size=64):
    """`count` squares in a row, two pixels apart."""
    cells = np.zeros((size, size), np.int32)
    for k in range(count):
        left = k * (side + 2)
        cells[:side, left : left + side] = k + 1
    return cells


def dataset(**splits):
    return Dataset("x", {"train": [], "val": [], "test": [], **splits})


def test_numbers_by_hand():
    facts = fingerprint.fingerprint(
        dataset(
            train=[record(squares(8, 3)), record(squares(8, 1), "b")],
            test=[record(np.zeros((32, 64)), "c")],
        )
    )
    assert facts.images == {"train": 2, "val": 0, "test": 1}
    assert facts.sizes == {"64x64": 2, "32x64": 1}
    assert facts.dtypes == {"uint16": 3} and facts.channels == 1
    assert facts.cells == 4 and facts.cells_per_image == (1.0, 3)
    assert facts.images_without_cells == 1 and facts.cell_area == 64
    assert facts.cell_diameter == pytest.approx(2 * np.sqrt(64 / np.pi))
    shares = [3 * 64 / 4096, 64 / 4096, 0]
    assert facts.foreground == pytest.approx((np.mean(shares), 0, shares[0]))
    # 6 x 9.03 = 54.2, the next multiple of 32 is 64; 2^21 / 64^2 > 32.
    assert facts.crop == 64 and facts.batch_size == 32
    assert facts.moment_scales == (1.0, 1.1, 2.3)
    mean = np.mean(shares)
    assert facts.pos_weight == pytest.approx(np.sqrt((1 - mean) / mean))


@pytest.mark.parametrize(
    ("diameter", "crop", "batch"),
    [
        (0, 64, 32),
        (10, 64, 32),
        (11, 96, 32),
        (40, 256, 32),
        (60, 384, 14),
        (500, 512, 8),
    ],
)
def test_suggestions_follow_the_documented_rule(diameter, crop, batch):
    assert fingerprint.suggest_crop(diameter) == crop
    assert fingerprint.suggest_batch(crop) == batch


def test_suggestions_come_from_the_training_images():
    facts = fingerprint.fingerprint(
        dataset(train=[record(squares(4, 4))], test=[record(squares(30, 1), "b")] * 9)
    )
    assert facts.cell_area == 16 or facts.cell_diameter > 4
    expected = fingerprint.median_diameter([record(squares(4, 4))])
    assert facts.crop == fingerprint.suggest_crop(expected)
    assert facts.moment_scales == (1.0, 1.0, 1.1)


def test_images_without_labels_do_not_count_as_empty():
    plain = record(np.zeros((8, 8)), "p", has_labels=False)
    facts = fingerprint.fingerprint(dataset(train=[record(squares(8, 2)), plain]))
    assert facts.images_without_cells == 0 and facts.images["train"] == 2


def test_a_data_set_without_any_cell_has_finite_numbers():
    facts = fingerprint.fingerprint(dataset(train=[record(np.zeros((8, 8)))]))
    assert facts.cells == 0 and facts.crop == 64 and facts.pos_weight == 100
    assert np.isfinite(facts.cell_diameter) and facts.moment_scales == (1, 1, 1)
    assert fingerprint.median_diameter([]) == 0


@pytest.mark.parametrize(
    ("cells", "touching"),
    [
        ([[1, 2, 0]], 2),
        ([[1, 0, 2]], 0),
        ([[1, 0], [0, 2]], 2),
        ([[0, 1], [2, 0]], 2),
        ([[1], [2], [3]], 3),
        ([[1, 1], [1, 1]], 0),
        ([[1, 2, 0, 3]], 2),
    ],
)
def test_touching_cells_by_hand(cells, touching):
    assert fingerprint.touching_cells(np.array(cells, np.int32)) == touching


def test_the_text_names_every_fact_and_the_numbers_are_plain_data():
    facts = fingerprint.fingerprint(dataset(train=[record(squares(8, 3))]))
    text = "\n".join(facts.lines())
    for word in ("1 train", "64x64", "uint16", "3 in all", "foreground", "crop 64"):
        assert word in text
    json.dumps(facts.as_dict())


def test_volumes_have_balls_and_touch_over_corners():
    cells = np.zeros((8, 9, 10), np.int32)
    cells[:2, :2, :2], cells[2:4, 2:4, 2:4], cells[6:, 6:, 6:8] = 1, 2, 3
    facts = fingerprint.fingerprint(dataset(train=[record(cells)]))
    assert facts.sizes == {"8x9x10": 1} and facts.cells == 3
    assert facts.touching == pytest.approx(2 / 3)
    # Volumes of 8, 8 and 12 voxels: the ball of 8 has the diameter 2.48.
    assert facts.cell_diameter == pytest.approx((6 * 8 / np.pi) ** (1 / 3))
    assert fingerprint.median_diameter([record(cells)]) == facts.cell_diameter
