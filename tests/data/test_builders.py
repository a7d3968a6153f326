import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

from fluojax.catalog import CATALOG  # noqa: E402
from fluojax.config import DataOptions  # noqa: E402
from fluojax.data import builders, cache, fnc_synth, lesion3d_synth  # noqa: E402
from fluojax.data.folder import read_folder  # noqa: E402
from fluojax.data.published_sets import SETS, read_published  # noqa: E402
from fluojax.data.record import Record  # noqa: E402
from fluojax.errors import UserError  # noqa: E402
from tests.data import published_files  # noqa: E402


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


def test_generated_volumes_are_built_and_mapped_where_memory_is_short(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FLUOJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 10**5)
    config = lesion3d_synth.CONFIGS["smoke"]._replace(
        counts={"train": 2, "val": 1, "test": 1}
    )
    monkeypatch.setitem(lesion3d_synth.CONFIGS, "smoke", config)
    first = builders.load("lesion3d_synth/smoke", data_dir=tmp_path)
    assert first.reference == "instances" and first.scaling == "fixed"
    expected = {split: lesion3d_synth.records(split, config) for split in config.counts}
    assert_same_splits(first.splits, expected)
    # The second call reads neither the generator nor the records.
    monkeypatch.setattr(builders, "read", lambda *a, **k: 1 / 0)
    again = builders.load("lesion3d_synth/smoke", data_dir=tmp_path)
    assert_same_splits(again.splits, expected)


def test_unknown_names_are_refused_with_those_known(tmp_path):
    with pytest.raises(UserError, match="tfds:mnist is unknown.*tfds:fnc_synth"):
        builders.load("mnist", data_dir=tmp_path)
    with pytest.raises(UserError, match="configurations are full, demo, smoke"):
        builders.load("fnc_synth/huge", data_dir=tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_a_published_set_is_built_and_read_back_exactly(name, tmp_path, windows):
    root = published_files.WRITERS[name](tmp_path / "files", windows)
    got = builders.load(name, data_dir=tmp_path / "built", manual_dir=root)
    config = next(iter(SETS[name].configs))
    expected = read_published(SETS[name], config, root)
    assert_same_splits(got.splits, expected.splits)
    assert (got.name, got.scaling) == (expected.name, expected.scaling)
    assert got.reference == expected.reference
    assert set(got.notes) == set(expected.notes)
    # The second call reads what the first one wrote, notes included.
    again = builders.load(
        f"{name}/{config}", data_dir=tmp_path / "built", manual_dir=root
    )
    assert_same_splits(again.splits, expected.splits)
    assert again.notes == got.notes


def test_who_comes_second_reads_what_the_first_has_built(tmp_path, windows):
    root = published_files.fnc_v2(tmp_path / "files", windows)
    options = {"config": "yellow", "data_dir": tmp_path / "built"}
    first, second = (builders.BUILDERS["fnc_v2"](**options) for _ in range(2))
    expected = builders.prepare(first, manual_dir=root)
    shutil.rmtree(root)
    assert_same_splits(builders.prepare(second, manual_dir=root), expected)
    assert second.info.metadata["objects"] == first.info.metadata["objects"] > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_told_with_the_remedy(tmp_path, windows):
    root = published_files.bbbc039(tmp_path / "files", windows)
    (tmp_path / "built").mkdir(mode=0o500)
    with pytest.raises(UserError, match="TFDS_DATA_DIR=DIR"):
        builders.load("bbbc039", data_dir=tmp_path / "built", manual_dir=root)


def test_a_file_in_the_place_of_a_folder_is_told_with_the_remedy(tmp_path, windows):
    root = published_files.bbbc039(tmp_path / "files", windows)
    (tmp_path / "built").write_text("x")
    with pytest.raises(UserError, match="TFDS_DATA_DIR=DIR"):
        builders.load("bbbc039", data_dir=tmp_path / "built", manual_dir=root)


def test_unlabelled_images_are_a_split_of_the_builder(tmp_path, windows):
    root = published_files.fnc_v2(tmp_path / "files", windows)
    builder = tfds.builder(
        "fnc_v2/yellow", data_dir=tmp_path / "built", file_format="array_record"
    )
    splits = builders.prepare(builder, manual_dir=root)
    (alone,) = splits["unlabelled"]
    assert alone.id == "yellow/unlabelled/400" and not alone.has_labels
    assert builder.info.metadata["objects"] > 0


def test_other_files_of_a_published_set_are_built_anew(tmp_path, windows):
    root = published_files.fnc_v2(tmp_path / "files", windows)
    options = {"data_dir": tmp_path / "built", "manual_dir": root}
    before = builders.load("fnc_v2/red", **options).splits["test"][0]
    path = root / "red/test/ground_truths/masks/4.png"
    mask = np.zeros((96, 64), np.uint8)
    mask[3:9, 3:9] = 255
    published_files.save(path, mask)
    after = builders.load("fnc_v2/red", **options).splits["test"][0]
    assert before.instances.max() > 1
    np.testing.assert_array_equal(after.instances, mask // 255)


def test_a_split_without_any_readable_image_is_left_out_of_a_build(tmp_path, windows):
    root = published_files.fnc_v2(tmp_path / "files", windows)
    options = {"data_dir": tmp_path / "built", "manual_dir": root}
    (root / "red/test/images/4.png").write_text("no picture")
    dataset = builders.load("fnc_v2/red", **options)
    assert not dataset.splits["test"] and dataset.splits["train"]
    assert any("red/test/images/4.png: not an image" in n for n in dataset.notes)
    (root / "red/trainval/images/2.png").write_text("no picture")
    with pytest.raises(UserError, match="fnc_v2/red: no picture can be used"):
        builders.load("fnc_v2/red", **options)


def test_following_the_instructions_makes_the_build_succeed(tmp_path, windows):
    place = tmp_path / "manual"
    place.mkdir()
    options = {"data_dir": tmp_path / "built", "manual_dir": place}
    with pytest.raises(UserError) as caught:
        builders.load("fnc_v2/yellow", **options)
    files = published_files.fnc_v2(tmp_path / "files", windows)
    for line in str(caught.value).splitlines():
        path = line.split()[0] if line.split() else ""
        if path.startswith("DIR/yellow/") and path.endswith(".png"):
            folder = Path(path.removeprefix("DIR/")).parent
            shutil.copytree(files / folder, place / folder)
    assert builders.load("fnc_v2/yellow", **options).splits["test"]


def test_the_catalogue_names_every_builder():
    named = {name for name in CATALOG["data"] if name.startswith("tfds:")}
    assert named == {f"tfds:{name}" for name in builders.BUILDERS}


def test_building_needs_no_tensorflow(tmp_path, windows, disk):
    root = disk.images_masks(tmp_path / "cells", windows[:2])
    nuclei = published_files.bbbc039(tmp_path / "nuclei", windows)
    code = f"""
import sys

class Hidden:
    # The usual finders, which know neither TensorFlow nor OpenCV nor nibabel.
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        known = name.split(".")[0] not in ("tensorflow", "cv2", "nibabel")
        return self.finder.find_spec(name, path, target) if known else None

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
from fluojax.data import builders
splits = builders.prepare(builders.Folder(root={str(root)!r}, data_dir={str(tmp_path)!r}))
more = builders.load("bbbc039", data_dir={str(tmp_path)!r}, manual_dir={str(nuclei)!r})
hidden = {{"tensorflow", "cv2", "nibabel"}} & set(sys.modules)
print(sum(map(len, splits.values())), sum(map(len, more.splits.values())), hidden)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-3:] == ["2", "4", "set()"]


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
