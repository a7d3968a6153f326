import threading
import time

import numpy as np
import pytest

from fluojax.data import pipeline
from fluojax.data.record import Record
from fluojax.errors import Stopped, UserError


def record(name, cells, dtype=np.uint8, **options):
    """An image in which every pixel tells where it is."""
    rows, columns = cells.shape
    image = (np.arange(rows)[:, None] * columns + np.arange(columns)) % 251
    return Record(image[..., None].astype(dtype), cells, name, name, **options)


def one_cell(shape=(40, 50), at=(20, 25)):
    cells = np.zeros(shape, np.int32)
    cells[at] = 1
    return cells


def source(count=5, crop=16, share=0.5, shape=(40, 50)):
    records = [record(str(k), one_cell(shape, (k, k))) for k in range(count)]
    return pipeline.make_source(records, "percentile", crop, share)


# --- batches --------------------------------------------------------------------------


def test_crops_of_volumes_are_cubes_around_a_cell_and_padded_where_it_ends():
    cells = np.zeros((12, 9, 6), np.int32)
    cells[10, 2, 3] = 1
    image = np.arange(cells.size, dtype=np.uint16).reshape(*cells.shape, 1)
    data = pipeline.make_source([Record(image, cells, "a", "a")], "fixed", 8, 1.0)
    batch = pipeline.draw_batch(data, 0, 0, range(2), 2)
    assert batch["image"].shape == (2, 8, 8, 8, 1)
    assert batch["instances"].shape == batch["where"].shape == (2, 8, 8, 8)
    # The corner is (4, 0, 0): clipped at the far end, and at the near ones.
    np.testing.assert_array_equal(batch["image"][0, :, :, :6], image[4:, :8])
    np.testing.assert_array_equal(batch["instances"][0, :, :, :6], cells[4:, :8])
    np.testing.assert_array_equal(batch["image"][0, ..., 6, :], image[4:, :8, 5])
    assert batch["where"][0, ..., :6].all() and not batch["where"][0, ..., 6:].any()


def test_a_batch_depends_on_seed_and_step_alone():
    first = pipeline.draw_batch(source(), 7, 3, range(4), 4)
    pipeline.draw_batch(source(), 7, 9, range(4), 4)
    again = pipeline.draw_batch(source(), 7, 3, range(4), 4)
    assert sorted(first) == ["image", "index", "instances", "record", "scale", "where"]
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    for other in ((8, 3), (7, 4)):
        batch = pipeline.draw_batch(source(), *other, range(4), 4)
        assert (batch["image"] != first["image"]).any()


def test_shapes_and_types_of_a_batch():
    batch = pipeline.draw_batch(source(), 0, 0, range(3), 3)
    told = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
    assert told == {
        "image": ((3, 16, 16, 1), "uint8"),
        "instances": ((3, 16, 16), "int32"),
        "where": ((3, 16, 16), "bool"),
        "scale": ((3, 2, 1), "float32"),
        "index": ((3,), "int32"),
        "record": ((3,), "int32"),
    }


def test_any_process_draws_its_part_of_the_batch():
    whole = pipeline.draw_batch(source(), 1, 5, range(8), 8)
    for indices in (range(0, 4), range(4, 8), np.array([6, 1])):
        part = pipeline.draw_batch(source(), 1, 5, indices, 8)
        for name, array in part.items():
            np.testing.assert_array_equal(array, whole[name][list(indices)])


@pytest.mark.parametrize("size", [2, 4, 7])
def test_every_epoch_visits_each_record_once_in_its_own_order(size):
    data, count = source(count=5), 5
    steps = range(3 * count * size // size)
    drawn = np.concatenate(
        [pipeline.draw_batch(data, 3, s, range(size), size)["record"] for s in steps]
    )
    epochs = drawn[: len(drawn) // count * count].reshape(-1, count)
    assert (np.sort(epochs, 1) == np.arange(count)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_order_of_an_epoch_is_stable():
    # Philox is counter-based and its stream is promised by NumPy.
    np.testing.assert_array_equal(
        pipeline.epoch_order(0, 0, 6), pipeline.epoch_order(0, 0, 6)
    )
    orders = {tuple(pipeline.epoch_order(s, e, 6)) for s in range(3) for e in range(3)}
    assert len(orders) > 6


def test_labels_belong_to_the_window_that_was_cut():
    cells = np.arange(1, 2001, dtype=np.int32).reshape(40, 50)
    data = pipeline.make_source([record("a", cells)], "fixed", 16, 0.5)
    batch = pipeline.draw_batch(data, 0, 0, range(20), 20)
    # Label and grey value of a pixel both name its place.
    np.testing.assert_array_equal(
        (batch["instances"] - 1) % 251, batch["image"][..., 0].astype(np.int32)
    )
    assert batch["where"].all()


# --- windows --------------------------------------------------------------------------


def hits(share, count=2000):
    """How many of `count` crops hold the one small cell in a large image."""
    data = pipeline.make_source(
        [record("a", one_cell((200, 200), (100, 100)))], "fixed", 16, share
    )
    batch = pipeline.draw_batch(data, 0, 0, range(count), count)
    return (batch["instances"] > 0).any((1, 2)).mean()


def test_crops_hold_a_cell_as_often_as_asked():
    by_chance = (16 / 185) ** 2  # windows that contain the pixel
    for share in (0.0, 0.3, 1.0):
        expected = share + (1 - share) * by_chance
        # Four standard errors of 2000 draws.
        assert abs(hits(share) - expected) <= 4 * np.sqrt(0.25 / 2000)
    assert hits(1.0) == 1.0


def test_every_cell_is_as_likely_as_any_other_whatever_its_size():
    cells = np.zeros((60, 60), np.int32)
    cells[5, 5], cells[40:55, 40:55] = 1, 2
    data = pipeline.make_source([record("a", cells)], "fixed", 4, 1.0)
    batch = pipeline.draw_batch(data, 0, 0, range(1000), 1000)
    small = (batch["instances"] == 1).any((1, 2)).mean()
    assert abs(small - 0.5) < 4 * np.sqrt(0.25 / 1000)


@pytest.mark.parametrize("crop", [4, 5])
def test_every_window_inside_is_equally_likely(crop):
    cells = np.arange(1, 65, dtype=np.int32).reshape(8, 8)
    data = pipeline.make_source([record("a", cells)], "fixed", crop, 0.0)
    batch = pipeline.draw_batch(data, 0, 0, range(4000), 4000)
    corners, counts = np.unique(batch["instances"][:, 0, 0], return_counts=True)
    places = (8 - crop + 1) ** 2
    assert len(corners) == places
    expected = 4000 / places
    # Five standard deviations: 25 windows are looked at.
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_an_image_without_cells_is_cropped_anywhere():
    data = pipeline.make_source(
        [record("a", np.zeros((20, 20), np.int32))], "fixed", 8, 1.0
    )
    batch = pipeline.draw_batch(data, 0, 0, range(5), 5)
    assert batch["instances"].max() == 0 and batch["where"].all()


@pytest.mark.parametrize("shape", [(10, 50), (50, 10), (3, 5), (1, 1)])
def test_an_image_smaller_than_the_crop_is_reflected_and_marked(shape):
    # Message 15.
    cells = np.ones(shape, np.int32)
    image = np.arange(cells.size).reshape(*shape, 1).astype(np.uint16)
    got, labels, where = pipeline.cut(image, cells, (0, 0), 16)
    rows, columns = (min(n, 16) for n in shape)
    assert got.shape == (16, 16, 1) and labels.shape == where.shape == (16, 16)
    expected = np.zeros((16, 16), bool)
    expected[:rows, :columns] = True
    np.testing.assert_array_equal(where, expected)
    np.testing.assert_array_equal(labels > 0, expected)
    padded = np.pad(
        image[:16, :16, 0], ((0, 16 - rows), (0, 16 - columns)), mode="symmetric"
    )
    np.testing.assert_array_equal(got[..., 0], padded)


def test_an_image_as_large_as_the_crop_is_taken_whole():
    data = source(shape=(16, 16))
    batch = pipeline.draw_batch(data, 0, 0, range(6), 6)
    assert batch["where"].all()
    for image, number in zip(batch["image"], batch["record"], strict=True):
        np.testing.assert_array_equal(image, data.records[number].image)


def test_positions_of_cells_by_hand():
    cells = np.array([[0, 2, 2], [1, 0, 2]], np.int32)
    positions, starts = pipeline.cell_positions(cells)
    np.testing.assert_array_equal(positions, [3, 1, 2, 5])
    np.testing.assert_array_equal(starts, [0, 1, 4])
    positions, starts = pipeline.cell_positions(np.zeros((2, 2), np.int32))
    assert len(positions) == 0 and len(starts) == 1


# --- sources --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "common"),
    [
        ((np.uint8, np.uint8), np.uint8),
        ((np.uint8, bool), np.uint8),
        ((np.uint8, np.uint16), np.uint16),
        ((np.uint16, np.int16), np.float32),
        ((np.uint8, np.float32), np.float32),
    ],
)
def test_all_images_travel_in_one_type(types, common):
    records = [record(str(k), one_cell(), t) for k, t in enumerate(types)]
    assert pipeline.common_dtype(records) == common
    data = pipeline.make_source(records, "fixed", 16, 0.5)
    assert {r.image.dtype for r in data.records} == {np.dtype(common)}


def test_scales_are_those_of_the_type_of_the_file():
    records = [record("a", one_cell()), record("b", one_cell(), np.uint16)]
    data = pipeline.make_source(records, "fixed", 16, 0.5)
    np.testing.assert_allclose(data.scales[:, 1, 0], [1 / 255, 1 / 65535])


def test_unlabelled_and_constant_images_do_not_train():
    flat = Record(np.ones((9, 9, 1), np.uint8), one_cell((9, 9), (1, 1)), "f", "f")
    plain = record("p", np.zeros((9, 9), np.int32), has_labels=False)
    good = record("g", one_cell())
    data = pipeline.make_source([flat, plain, good], "fixed", 8, 0.5)
    assert [r.id for r in data.records] == ["g"]
    with pytest.raises(UserError, match="no labelled image in the train split"):
        pipeline.make_source([plain], "fixed", 8, 0.5)
    with pytest.raises(UserError, match="every image of the train split is constant"):
        pipeline.make_source([flat], "fixed", 8, 0.5)


# --- reading ahead --------------------------------------------------------------------


def workers():
    return [t for t in threading.enumerate() if "work" in t.name]


def stops(within_s=2.0):
    end = time.monotonic() + within_s
    while workers() and time.monotonic() < end:
        time.sleep(0.02)
    return not workers()


def test_batches_come_in_order_and_only_a_few_are_drawn_ahead():
    drawn = []

    def draw(step):
        drawn.append(step)
        return step

    batches = pipeline.prefetch(draw, 3, 40)
    assert [next(batches) for _ in range(4)] == [3, 4, 5, 6]
    time.sleep(0.3)
    assert drawn[-1] <= 10
    batches.close()
    assert stops()
    assert list(pipeline.prefetch(draw, 5, 8)) == [5, 6, 7]
    assert list(pipeline.prefetch(draw, 5, 5)) == []


def test_an_exception_comes_at_the_step_it_belongs_to_and_ends_the_thread():
    def draw(step):
        if step == 2:
            raise OSError("disk gone")
        return step

    batches, seen = pipeline.prefetch(draw, 0, 10), []
    with pytest.raises(OSError, match="disk gone"):
        for step in batches:
            seen.append(step)
    assert seen == [0, 1]
    assert stops()


def test_closing_early_ends_the_thread_also_while_the_queue_is_full():
    batches = pipeline.prefetch(lambda step: step, 0, 10**9)
    next(batches)
    time.sleep(0.2)
    assert workers()
    batches.close()
    assert stops()


def test_a_hang_is_told_after_the_patience():
    release = threading.Event()

    def draw(step):
        if step == 1:
            release.wait(20)
        return step

    batches = pipeline.prefetch(draw, 0, 5, patience_s=1)
    assert next(batches) == 0
    began = time.monotonic()
    with pytest.raises(Stopped) as error:
        next(batches)
    assert 0.9 < time.monotonic() - began < 5
    text = str(error.value)
    assert "nothing came for 1 s" in text and "Run the same command again" in text
    assert error.value.exit_code == 1
    release.set()
    assert stops()
