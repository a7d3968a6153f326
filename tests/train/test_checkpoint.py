"""Checkpoints: whole, verified, or not used."""

import json
import random

import numpy as np
import pytest

from fluojax.errors import Stopped, UserError
from fluojax.train import checkpoint
from fluojax.train.checkpoint import Checkpoints, lock

LIKE = {
    "params": {"conv": {"kernel": np.zeros((3, 3), np.float32)}},
    "step": np.zeros((), np.int32),
}


def arrays(step):
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3) + step
    return {"params": {"conv": {"kernel": kernel}}, "step": np.int32(step) + np.zeros((), np.int32)}  # fmt: skip


@pytest.fixture
def lines():
    return []


@pytest.fixture
def saved(tmp_path, lines):
    """A folder with steps 10 to 50, 20 the best."""
    store = Checkpoints(tmp_path, say=lines.append)
    for step in range(10, 60, 10):
        store.save(step, arrays(step), {"best": 0.5, "at": step}, best=step == 20)
    store.close()
    return tmp_path


def reopened(folder, lines):
    return Checkpoints(folder, say=lines.append)


def test_the_newest_three_and_the_best_are_kept(saved, lines):
    store = reopened(saved, lines)
    assert store.steps() == [50, 40, 30, 20]
    assert store.best_step() == 20
    assert (saved / "LATEST").read_text() == "50\n"
    folders = {p.name for p in saved.iterdir() if p.is_dir()}
    assert folders == {"50", "40", "30", "20"}


def test_arrays_and_progress_come_back_as_they_were(saved, lines):
    step, restored, progress = reopened(saved, lines).restore_latest(LIKE)
    assert step == 50
    np.testing.assert_array_equal(
        restored["params"]["conv"]["kernel"], arrays(50)["params"]["conv"]["kernel"]
    )
    assert restored["step"].dtype == np.int32
    assert progress == {"best": 0.5, "at": 50}


def test_an_empty_folder_restores_nothing(tmp_path, lines):
    assert reopened(tmp_path, lines).restore_latest(LIKE) is None


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("number", range(12))
def test_one_flipped_bit_anywhere_is_found_and_the_step_before_used(
    saved, lines, number
):
    rng = random.Random(number)
    files = [p for p in files_of(saved / "50") if p.stat().st_size]
    path = files[number % len(files)]
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    step, restored, _ = reopened(saved, lines).restore_latest(LIKE)
    assert step == 40
    assert restored["params"]["conv"]["kernel"][0, 0] == 40
    assert "checkpoint 50" in lines[0]
    assert "failed its checksum; using step 40 instead" in lines[0]
    assert (saved / "50.damaged").is_dir()


@pytest.mark.parametrize("how", ["cut", "emptied", "deleted"])
def test_a_file_cut_emptied_or_deleted_is_found(saved, lines, how):
    path = max(files_of(saved / "50"), key=lambda p: p.stat().st_size)
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if how == "cut" else b"")
    assert reopened(saved, lines).restore_latest(LIKE)[0] == 40


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00\x01"])
def test_a_damaged_list_means_the_step_does_not_count(saved, lines, content):
    (saved / "50.sha256").write_text(content)
    assert reopened(saved, lines).restore_latest(LIKE)[0] == 40


def test_a_step_without_list_does_not_count(saved, lines):
    (saved / "50.sha256").unlink()
    store = reopened(saved, lines)
    assert store.restore_latest(LIKE)[0] == 40
    # ... and the step is written again when training reaches it.
    store.save(50, arrays(50), {}, best=False)
    store.close()
    assert reopened(saved, lines).restore_latest(LIKE)[0] == 50


@pytest.mark.parametrize("content", ["", "x", "999", None])
def test_the_pointers_are_no_source_of_truth(saved, lines, content):
    for name in ("LATEST", "BEST"):
        if content is None:
            (saved / name).unlink()
        else:
            (saved / name).write_text(content)
    store = reopened(saved, lines)
    assert store.restore_latest(LIKE)[0] == 50
    assert store.best_step() is None


def test_every_step_damaged_leaves_none(saved, lines):
    for step in (20, 30, 40, 50):
        files_of(saved / str(step))[0].write_bytes(b"x")
    assert reopened(saved, lines).restore_latest(LIKE) is None
    assert "no other is left" in lines[-1]


@pytest.mark.parametrize(
    ("like", "told"),
    [
        ({**LIKE, "extra": np.zeros(1, np.float32)}, "missing: extra"),
        ({"params": LIKE["params"]}, "extra: step"),
        (
            {**LIKE, "params": {"conv": {"kernel": np.zeros((3, 4), np.float32)}}},
            r"of other shape: params/conv/kernel \(3, 3\) instead of \(3, 4\)",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_name(saved, lines, like, told):
    with pytest.raises(UserError, match=told):
        reopened(saved, lines).restore_latest(like)


def test_a_failed_save_is_told_and_the_third_stops_the_run(
    tmp_path, lines, monkeypatch
):
    store = Checkpoints(tmp_path, say=lines.append)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    store.save(1, arrays(1), {}, best=False)
    store.save(2, arrays(2), {}, best=False)
    store.save(3, arrays(3), {}, best=False)
    assert len(lines) == 2
    assert "No space left on device" in lines[0]
    assert "MB free; trying again" in lines[0]
    with pytest.raises(Stopped, match="stopped after 3 failures"):
        store.wait()
    assert store.steps() == []


def test_progress_that_is_not_finite_survives(tmp_path, lines):
    store = Checkpoints(tmp_path, say=lines.append)
    store.save(1, arrays(1), {"scores": {"dice": float("nan")}}, best=True)
    store.close()
    _, _, progress = reopened(tmp_path, lines).restore_latest(LIKE)
    assert np.isnan(progress["scores"]["dice"])


def test_the_list_names_every_file(saved):
    listed = json.loads((saved / "50.sha256").read_text())
    found = {p.relative_to(saved / "50").as_posix() for p in files_of(saved / "50")}
    assert set(listed) == found


def test_a_second_lock_is_refused_and_the_first_is_freed(tmp_path):
    with lock(tmp_path):
        with pytest.raises(UserError, match=r"locked by a running process \(process"):
            with lock(tmp_path):
                pass
    with lock(tmp_path):
        pass
