import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

from fluojax.config import DataOptions  # noqa: E402
from fluojax.data import builders, fnc_synth  # noqa: E402
from fluojax.data.folder import read_folder  # noqa: E402
from fluojax.data.record import Record  # noqa: E402
from fluojax.errors import UserError  # noqa: E402


def assert_same(got: Record, expected: Record):
    for field in dataclasses.fields(Record):
        a, b = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b and type(a) is type(b), field.name


def assert_same_splits(got, expected):
    assert set(got) == set(expected)
    for name, part in expected.items():
        ordered = sorted(part, key=lambda record: record.id)
        assert [r.id for r in got[name]] == [r.id for r in ordered]
        for a, b in zip(got[name], ordered, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_record_survives_the_features_exactly(tmp_path, dtype, channels):
    rng = np.random.default_rng(0)
    image = (rng.random((5, 7, channels)) * 200).astype(dtype)
    instances = rng.integers(0, 2**31 - 1, (5, 7)).astype(np.int32)
    given = Record(
        image, instances, "führe/a b", "grüppe", False, "binary", (0.25, 0.5)
    )
    features = builders.features(dtype, channels)
    stored = features.serialize_example(builders.to_example(given, dtype))
    got = features.deserialize_example_np(stored)
    assert_same(builders.to_record(got), given)


def test_a_folder_is_built_and_read_back_exactly(tmp_path, windows, disk):
    root = disk.images_masks(tmp_path / "cells", windows)
    disk.write(root / "images/img0.png", disk.grey(windows[0]).astype(np.uint16) * 9)
    builder = builders.Folder(root=root, data_dir=tmp_path / "built")
    splits = builders.prepare(builder)
    expected = read_folder(root)[0].splits
    wide = {
        name: [dataclasses.replace(r, image=r.image.astype(np.uint16)) for r in part]
        for name, part in expected.items()
    }
    # One type for all files, the widest; and a test split that is not there.
    assert_same_splits(splits, wide)
    assert splits["test"] == [] and splits["train"] and splits["val"]


def test_a_changed_folder_has_another_name_and_gives_the_new_masks(
    tmp_path, windows, disk
):
    root, built = disk.images_masks(tmp_path / "cells", windows), tmp_path / "built"
    first = builders.Folder(root=root, data_dir=built)
    before = builders.prepare(first)
    same = builders.Folder(root=root, data_dir=built)
    assert same.builder_config.name == first.builder_config.name
    path = root / "masks/img2.tif"
    new = np.zeros((48, 64), np.uint16)
    new[5:9, 5:9] = 1
    disk.write(path, new)
    os.utime(path, ns=(1, 1))
    second = builders.Folder(root=root, data_dir=built)
    assert second.builder_config.name != first.builder_config.name
    after = {r.id: r for part in builders.prepare(second).values() for r in part}
    np.testing.assert_array_equal(after["images/img2"].instances, new)
    old = {r.id: r for part in before.values() for r in part}
    assert old["images/img2"].instances.max() > 1
    binary = builders.Folder(
        root=root, options=DataOptions(mask_kind="binary"), data_dir=built
    )
    assert binary.builder_config.name != second.builder_config.name


def test_the_generated_data_set_is_built_and_read_back_exactly(tmp_path, monkeypatch):
    draw = fnc_synth.records
    monkeypatch.setattr(
        fnc_synth, "records", lambda split, n: draw(split, n, size=(16, 16))
    )
    dataset = builders.load("fnc_synth/smoke", data_dir=tmp_path)
    assert dataset.scaling == "fixed" and dataset.reference == "components"
    counts = fnc_synth.CONFIGS["smoke"]
    assert_same_splits(
        dataset.splits, {s: draw(s, n, size=(16, 16)) for s, n in counts.items()}
    )
    # The second call reads what the first one wrote.
    monkeypatch.setattr(fnc_synth, "records", lambda split, n: 1 / 0)
    again = builders.load("fnc_synth/smoke", data_dir=tmp_path)
    assert_same_splits(again.splits, dataset.splits)


def test_unknown_names_are_refused_with_those_known(tmp_path):
    with pytest.raises(UserError, match="tfds:mnist is unknown; known are tfds:fnc_s"):
        builders.load("mnist", data_dir=tmp_path)
    with pytest.raises(UserError, match="configurations are full, demo, smoke"):
        builders.load("fnc_synth/huge", data_dir=tmp_path)


def test_building_needs_no_tensorflow(tmp_path, windows, disk):
    root = disk.images_masks(tmp_path / "cells", windows[:2])
    code = f"""
import sys

class Hidden:
    # The usual finders, which know of no TensorFlow.
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        known = name.split(".")[0] != "tensorflow"
        return self.finder.find_spec(name, path, target) if known else None

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
from fluojax.data import builders
splits = builders.prepare(builders.Folder(root={str(root)!r}, data_dir={str(tmp_path)!r}))
print(sum(map(len, splits.values())), "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-2:] == ["2", "False"]


def test_without_tfds_the_message_says_what_to_install():
    code = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda n, *a: None if n == "tensorflow_datasets" else find(n, *a)
import fluojax.data.folder, fluojax.data.pipeline
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError
try:
    load_dataset("tfds:fnc_synth/smoke")
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert 'pip install "fluojax[train]"' in done.stdout, done.stderr[-2000:]
    assert "--data FOLDER" in done.stdout
