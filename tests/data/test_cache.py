import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from fluojax.config import DataOptions
from fluojax.data import cache, pipeline
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six pairs of 20 x 24 pixels; the cache below `tmp_path` takes 2,000 bytes."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "cells" / kind).mkdir(parents=True)
    for k in range(6):
        labels = np.zeros((20, 24), np.uint16)
        labels[3:9, 2:7], labels[12:15, 9:20] = 1, 2
        image = rng.integers(0, 200, (20, 24)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "cells" / "images" / f"{k}.tif", image)
        tifffile.imwrite(tmp_path / "cells" / "masks" / f"{k}.tif", labels)
    monkeypatch.setenv("FLUOJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 2000)
    return tmp_path / "cells"


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


def all_records(dataset):
    return [record for part in dataset.splits.values() for record in part]


def same(one, two):
    assert [r.id for r in all_records(one)] == [r.id for r in all_records(two)]
    for a, b in zip(all_records(one), all_records(two), strict=True):
        assert {**vars(a), "image": 0, "instances": 0} == {
            **vars(b), "image": 0, "instances": 0
        }  # fmt: skip
        np.testing.assert_array_equal(a.image, b.image, strict=True)
        np.testing.assert_array_equal(a.instances, b.instances, strict=True)
    assert (one.notes, one.scaling, one.name) == (two.notes, two.scaling, two.name)


def test_small_folders_stay_in_memory_and_leave_nothing(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT_BYTES", 10**6)
    dataset = load_dataset(str(folder))
    assert not any(is_mapped(r.image) for r in all_records(dataset))
    assert not (folder.parent / "cache").exists()


def test_large_folders_are_decoded_once_and_mapped_with_equal_records(
    folder, monkeypatch
):
    mapped = load_dataset(str(folder))
    for record in all_records(mapped):
        assert is_mapped(record.image) and is_mapped(record.instances)
    # The second time no image is opened.
    monkeypatch.setattr("fluojax.data.read.read_image", lambda *a, **k: 1 / 0)
    same(load_dataset(str(folder)), mapped)
    monkeypatch.undo()
    same(load_dataset(str(folder)), mapped)
    source = pipeline.make_source(mapped.splits["train"], "fixed", 8, 0.5)
    assert any(is_mapped(r.image) for r in source.records)
    assert pipeline.draw_batch(source, 0, 0, range(2), 2)["image"].shape[0] == 2


def test_a_changed_file_is_decoded_anew(folder):
    before = load_dataset(str(folder))
    path = folder / "images" / "3.tif"
    tifffile.imwrite(path, np.full((20, 24), 7, np.uint8))
    os.utime(path, ns=(1, 1))
    after = load_dataset(str(folder))
    changed = [r for r in all_records(after) if r.id == "images/3"]
    assert (changed[0].image == 7).all()
    assert all((r.image != 7).any() for r in all_records(before))
    options = DataOptions(mask_kind="binary")
    assert all_records(load_dataset(str(folder), options))[0].kind == "binary"


def test_a_file_that_changes_while_it_is_read_is_not_kept(folder):
    def touch(done, of):
        os.utime(folder / "images" / "0.tif", ns=(done, done))

    load_dataset(str(folder), progress=touch)
    assert not list((folder.parent / "cache" / "data").glob("*/index.json"))


def test_progress_follows_every_pair(folder):
    told = []
    load_dataset(str(folder), progress=lambda done, of: told.append((done, of)))
    assert told == [(k, 6) for k in range(1, 7)]


KILLED = """
import os, signal, sys
from fluojax.data import cache
from fluojax.data.sources import load_dataset
cache.LIMIT_BYTES = 2000
def stop(*_):
    print("storing", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
cache.write_atomic = stop
load_dataset(sys.argv[1])
"""


def test_what_a_killed_process_left_is_never_read_and_removed(folder):
    root = folder.parent / "cache" / "data"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True
    )
    assert done.stdout == "storing\n" and done.returncode == -9, done.stderr
    assert [p.suffix for p in root.iterdir()] == [".part"]
    dataset = load_dataset(str(folder))
    assert all(is_mapped(r.image) for r in all_records(dataset))
    assert len(list(root.iterdir())) == 1 and not list(root.glob("*.part"))


def test_a_living_process_keeps_what_it_is_writing(folder):
    spill = cache.Spill(folder.parent / "cache" / "data" / "other", 10)
    kept = spill(np.arange(100))
    load_dataset(str(folder))
    assert spill.folder.is_dir()
    np.testing.assert_array_equal(kept, np.arange(100))
    spill.close()
    assert not spill.folder.exists()


def test_no_room_is_one_line(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left.*FLUOJAX_CACHE=DIR"):
        load_dataset(str(folder))
    assert not list(Path(folder.parent / "cache" / "data").iterdir())
