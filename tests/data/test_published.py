"""The published data sets, read by plain functions from tiny copies."""

import importlib.util

import numpy as np
import pytest

from fluojax.data import atlas_r2, dsb2018, fnc_v1, manual, sources
from fluojax.data.published import Report, read_entries
from fluojax.data.published_sets import SETS, read_published
from fluojax.data.splits import hash_share
from fluojax.errors import UserError
from tests.data import published_files as files


@pytest.fixture
def places(tmp_path, windows):
    """A function that writes a layout and returns its folder."""
    return lambda name: files.WRITERS[name](tmp_path / name, windows)


def read(name, config, root):
    """Entries with their records by id, and the report."""
    root = manual.find_root(SETS[name], config, root)
    report = Report()
    entries = SETS[name].find_records(root, config, report)
    found = {e.id: (e, r) for e, r in read_entries(SETS[name], entries, report)}
    return found, report


def splits(found):
    told = {}
    for id, (entry, _) in found.items():
        told.setdefault(entry.split, set()).add(id)
    return told


def same_cells(record, window):
    """Whether a record's objects are those of the window, whatever their numbers."""
    both = np.unique(
        np.stack([record.instances.ravel(), window.instances.ravel()]), axis=1
    )
    counts = {int(a.max()) for a in (record.instances, window.instances)}
    return len(counts) == 1 and both.shape[1] == counts.pop() + 1


# --- Fluorescent Neuronal Cells ---------------------------------------------------


def test_fnc_v1_tests_on_the_list_of_its_authors(places, windows):
    found, report = read("fnc_v1", "authors", places("fnc_v1"))
    assert splits(found)["test"] == set(files.FNC_V1[:2])
    assert len(splits(found)["val"]) == 1 and len(splits(found)["train"]) == 2
    assert not report.left_out
    for (entry, record), window in zip(found.values(), windows, strict=True):
        np.testing.assert_array_equal(record.image, window.image)
        expected = 0 if entry.id == files.FNC_V1[3] else (window.instances > 0).sum()
        assert (record.instances > 0).sum() == expected, entry.id
        assert record.kind == "binary" and record.group == fnc_v1.animal_of(entry.id)


@pytest.mark.parametrize(
    "name, animal",
    [
        ("Mar19bS1C4R2_LHr_200x_y", "Mar19b"),
        ("MAR38S1C3R1_DML_20_o", "MAR38"),
        ("37_y", "37_y"),
    ],
)
def test_the_animal_is_in_the_name_or_the_image_is_alone(name, animal):
    assert fnc_v1.animal_of(name) == animal


def test_fnc_v1_by_animal_shares_no_animal_between_splits(tmp_path, windows):
    image = windows[0].image[:8, :8]
    for animal in range(12):
        for section in range(4):
            name = f"Mar{animal}bS{section}C1R1_y.png"
            files.save(tmp_path / "all_images/images" / name, image)
            files.save(tmp_path / "all_masks/masks" / name, image[..., 0] * 0)
    entries = SETS["fnc_v1"].find_records(tmp_path, "by_animal", Report())
    groups = {}
    for entry in entries:
        groups.setdefault(entry.group, set()).add(entry.split)
    assert all(len(split) == 1 for split in groups.values())
    # 70 of 283 images, and whole animals of four: 12 of 48.
    assert sum(entry.split == "test" for entry in entries) == 12
    assert {"train", "val"} <= {entry.split for entry in entries}


def test_resizing_changes_the_size_and_counts_the_objects_lost(
    places, windows, monkeypatch
):
    root = places("fnc_v1")
    specks = np.zeros(files.SIZE, np.uint8)
    specks[4:12, 4:12], specks[30, 30], specks[40, 2] = 255, 255, 255
    files.save(root / f"all_masks/masks/{files.FNC_V1[1]}.png", specks)
    monkeypatch.setattr(fnc_v1, "SIZE", (24, 32))
    found, report = read("fnc_v1", "imsahlo_512x768", root)
    record = found[files.FNC_V1[1]][1]
    assert record.image.shape == (24, 32, 3) and record.image.dtype == np.uint8
    assert record.instances.max() == 1 and (record.instances > 0).sum() == 16
    # A pixel of four is not half of one.
    lost = report.tally["objects lost by resizing to 24x32"]
    whole, _ = read("fnc_v1", "authors", root)
    kept = sum(int(r.instances.max()) for _, r in found.values())
    assert kept + lost == sum(int(r.instances.max()) for _, r in whole.values())
    assert lost >= 2
    assert f"{lost} objects lost by resizing to 24x32" in report.lines()


def test_fnc_v2_keeps_the_folders_as_splits(places, windows):
    root = places("fnc_v2")
    found, report = read("fnc_v2", "yellow", root)
    assert splits(found)["test"] == {"yellow/test/3"}
    assert splits(found)["unlabelled"] == {"yellow/unlabelled/400"}
    trainval = {f"yellow/trainval/{number}" for number in range(3)}
    assert splits(found)["train"] | splits(found)["val"] == trainval
    val = {id for id in trainval if hash_share(id, salt="0") < 0.20}
    assert splits(found)["val"] == val and 0 < len(val) < 3
    assert f"{len(val)} of 3 images of trainval" in report.notes[0]
    alone = found["yellow/unlabelled/400"][1]
    assert not alone.has_labels and not alone.instances.any()
    assert (found["yellow/test/3"][1].instances > 0).sum() == (
        windows[3].instances > 0
    ).sum()
    assert not (root / "exploded").exists()  # nothing was unpickled


def test_fnc_v2_reports_a_mask_without_image_and_reads_two_sizes(places):
    root = places("fnc_v2")
    found, report = read("fnc_v2", "green", root)
    assert len(found) == 2
    assert report.left_out == [
        "green/trainval/ground_truths/masks/128.png: no image of this name"
    ]
    found, _ = read("fnc_v2", "red", root)
    assert {r.image.shape for _, r in found.values()} == {(48, 64, 3), (96, 64, 3)}


# --- nuclei -----------------------------------------------------------------------


def test_sbsst265_splits_by_its_table(places, windows):
    found, report = read("sbsst265", "csv", places("sbsst265"))
    assert splits(found)["test"] == {"Normal_0"}
    assert splits(found)["train"] | splits(found)["val"] == {
        "Neuroblastoma_0",
        "Neuroblastoma_1",
    }
    assert report.left_out == [
        "rawimages/Stranger_0.tif: no row in image_description.csv"
    ]
    for name, number in (
        ("Neuroblastoma_0", 0),
        ("Neuroblastoma_1", 1),
        ("Normal_0", 2),
    ):
        record = found[name][1]
        assert record.image.shape == (48, 64, 1) and record.image.dtype == np.uint8
        assert record.instances.max() == windows[number].instances.max()
        assert same_cells(record, windows[number])


def test_labels_that_fill_eight_bits_are_told(places):
    root = places("sbsst265")
    labels = np.zeros(files.SIZE, np.uint8)
    labels[:2, :2], labels[9:12, 9:12] = 3, 255
    files.save(root / "dataset/groundtruth/Normal_0.tif", labels)
    found, report = read("sbsst265", "csv", root)
    assert found["Normal_0"][1].instances.max() == 2
    assert any("ids may have wrapped" in line for line in report.lines())


def test_sbsst265_all_is_one_test_split(places):
    found, _ = read("sbsst265", "all", places("sbsst265"))
    assert set(splits(found)) == {"test"} and len(found) == 4


def test_a_table_without_its_columns_is_refused(places):
    root = places("sbsst265")
    table = root / "dataset/image_description.csv"
    table.write_text("Image_Name,Split\na,b\n")
    with pytest.raises(UserError, match="separated by semicolons"):
        read("sbsst265", "csv", root)


def test_dsb2018_configurations_part_by_looks(places, windows):
    root = places("dsb2018")
    fluo, _ = read("dsb2018", "fluo", root)
    stained, _ = read("dsb2018", "stained", root)
    everything, _ = read("dsb2018", "all", root)
    assert set(fluo) == {"stage1_train/aa", "stage1_train/bb"}
    assert set(stained) == {"stage1_train/cc"}
    assert len(everything) == 5
    assert splits(everything)["unlabelled"] == {"stage1_test/ee"}
    assert {r.image.shape[-1] for _, r in fluo.values()} == {1}
    assert {r.image.shape[-1] for _, r in everything.values()} == {3}
    for name, number in (("aa", 0), ("bb", 1), ("cc", 2), ("dd", 3)):
        assert same_cells(everything[f"stage1_train/{name}"][1], windows[number])


def test_run_lengths_and_mask_files_give_the_same_objects(tmp_path, windows):
    by_runs, told = read("dsb2018", "all", files.dsb2018(tmp_path / "a", windows))
    by_files, silent = read(
        "dsb2018", "all", files.dsb2018(tmp_path / "b", windows, table=False)
    )
    assert "masks: from the run lengths of stage1_train_labels.csv" in told.notes
    assert not any("run lengths" in note for note in silent.notes)
    for id, (_, record) in by_runs.items():
        np.testing.assert_array_equal(record.instances, by_files[id][1].instances)


def test_run_lengths_that_contradict_the_files_are_not_used(tmp_path, windows):
    root = files.dsb2018(tmp_path, windows)
    table = root / "stage1_train_labels.csv"
    table.write_text(table.read_text().replace("aa,", "aa,1 2 "))
    found, report = read("dsb2018", "fluo", root)
    assert "masks: from their files, which stage1_train_labels.csv contradicts" in (
        report.notes
    )
    assert same_cells(found["stage1_train/aa"][1], windows[0])


@pytest.mark.parametrize("row", ["1 2 3", "x 2", "0 5", "3070 9"])
def test_bad_run_lengths_are_refused_by_name(row):
    with pytest.raises(UserError, match="stage1_train_labels.csv"):
        dsb2018.instances_of_runs([row], files.SIZE)


def test_halves_of_one_field_stay_in_one_split(tmp_path, windows):
    root = files.dsb2018(tmp_path, windows, table=False)
    rows, columns = np.mgrid[:48, :128]
    field = 90 + 40 * np.sin(rows / 5) + 30 * np.cos(columns / 7 + rows / 9)
    mask = np.zeros((48, 64), np.uint8)
    mask[field[:, :64].argmax() // 64, field[:, :64].argmax() % 64] = 255
    for name, half in (("ff", field[:, :64]), ("gg", field[:, 64:])):
        folder = root / "stage1_train" / name
        files.save(folder / f"images/{name}.png", files.rgba(half.astype(np.uint8)))
        bright = np.where(half > 140, 255, 0).astype(np.uint8)
        files.save(folder / "masks/1.png", bright)
    found, report = read("dsb2018", "fluo", root)
    halves = [found[f"stage1_train/{name}"][0] for name in ("ff", "gg")]
    assert {entry.group for entry in halves} == {"stage1_train/ff"}
    assert len({entry.split for entry in halves}) == 1
    assert "groups: 2 of 4 pictures are tiles" in report.notes[-1]


def test_bbbc039_tells_nuclei_of_one_value_apart(places):
    found, _ = read("bbbc039", "full", places("bbbc039"))
    assert {name: len(ids) for name, ids in splits(found).items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    record = found["IXM_0"][1]
    assert record.image.dtype == np.uint16 and record.image.max() > 255
    assert record.instances.max() == 4
    assert np.bincount(record.instances.ravel())[1:].tolist() == [64, 64, 80, 100]


# --- volumes ----------------------------------------------------------------------


def test_atlas_r2_is_read_as_depth_rows_columns(places):
    found, report = read("atlas_r2", "full", places("atlas_r2"))
    assert len(splits(found)["unlabelled"]) == 1
    assert len(splits(found)["train"] | splits(found)["val"]) == 3
    assert not report.left_out
    counts = {entry.group: int(r.instances.max()) for entry, r in found.values()}
    assert counts == {
        "sub-r001s001": 2,
        "sub-r001s002": 1,
        "sub-r004s001": 0,
        "sub-r005s001": 0,
    }
    for entry, record in found.values():
        assert record.image.shape == (12, 10, 9, 1), entry.id
        assert record.image.dtype == np.float32
        assert record.spacing == (2.0, 1.0, 1.0)


def test_a_mask_that_lies_elsewhere_is_left_out(places):
    root = places("atlas_r2")
    path = next(root.rglob("*r001s002*lesion_mask.nii.gz"))
    files.volume(path, np.ones((9, 10, 12), np.float32), shift=3.0)
    found, report = read("atlas_r2", "full", root)
    assert len(found) == 3
    assert len(report.left_out) == 1 and "affines differ" in report.left_out[0]


def test_a_flat_folder_of_volumes_is_read_too(places, tmp_path):
    root = places("atlas_r2")
    for folder, end in (("Images", "T1w"), ("Masks", "T1lesion_mask")):
        (tmp_path / "flat" / folder).mkdir(parents=True)
        for path in (root / "ATLAS_2/Training").rglob(f"*{end}.nii.gz"):
            (tmp_path / "flat" / folder / f"1mm_{path.name}").write_bytes(
                path.read_bytes()
            )
    found, report = read("atlas_r2", "full", tmp_path / "flat")
    assert len(found) == 3 and not report.left_out
    groups = {entry.group for entry, _ in found.values()}
    assert groups == {"sub-r001s001", "sub-r001s002", "sub-r004s001"}


def test_a_damaged_volume_is_left_out_with_the_reason(places):
    root = places("atlas_r2")
    path = next(root.rglob("*r001s001*T1w.nii.gz"))
    path.write_bytes(path.read_bytes()[:60])
    found, report = read("atlas_r2", "full", root)
    assert len(found) == 3
    assert "damaged NIfTI" in report.left_out[0] and "\n" not in report.left_out[0]
    assert atlas_r2.PUBLISHED.rank == 3


# --- all of them ------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_what_is_found_depends_on_no_place_and_no_order(
    name, tmp_path, windows, monkeypatch
):
    config = next(iter(SETS[name].configs))
    first, _ = read(name, config, files.WRITERS[name](tmp_path / "a", windows))
    root = files.WRITERS[name](tmp_path / "b/deeper", windows)
    listed = type(root).iterdir
    backwards = lambda path: reversed(sorted(listed(path)))  # noqa: E731
    monkeypatch.setattr(type(root), "iterdir", backwards)
    second, _ = read(name, config, root)
    told = [
        [(id, e.key, e.split, e.group) for id, (e, _) in found.items()]
        for found in (first, second)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("name", SETS)
def test_an_unreadable_mask_is_left_out_and_the_rest_is_read(name, places):
    root = places(name)
    config = next(iter(SETS[name].configs))
    whole, _ = read(name, config, root)
    id, (entry, _) = next(item for item in whole.items() if item[1][0].masks)
    if name == "dsb2018":
        (entry.root / dsb2018.TABLE).unlink()
        next((entry.image.parent.parent / "masks").iterdir()).write_text("no picture")
    else:
        entry.masks[0].write_text("no picture")
    found, report = read(name, config, root)
    assert set(found) == set(whole) - {id}
    assert len([line for line in report.lines() if line.startswith("left out")]) >= 1
    assert not any(str(root) in line for line in report.lines())


@pytest.mark.parametrize("name", SETS)
def test_a_small_copy_tells_both_numbers_of_images(name, places):
    config = next(iter(SETS[name].configs))
    dataset = read_published(SETS[name], config, places(name))
    line = dataset.notes[0]
    assert line.startswith("warning: not the published counts: ")
    for number in SETS[name].configs[config].counts.values():
        assert f"(published {number})" in line
    assert set(dataset.splits) == {"train", "val", "test"}
    assert dataset.splits["train"] and dataset.name == f"{name}/{config}"


def test_two_pictures_that_differ_by_their_suffix_are_refused(places):
    root = places("fnc_v2")
    twin = root / "yellow/trainval/images/1.tif"
    files.save(twin, np.zeros(files.SIZE, np.uint8))
    with pytest.raises(UserError, match="1.png and 1.tif are the same image twice"):
        read("fnc_v2", "yellow", root)


def test_image_and_mask_of_different_size_are_left_out_with_both(places, windows):
    root = places("fnc_v2")
    turned = windows[1].instances.T.astype(np.uint8) * 9
    files.save(root / "yellow/trainval/ground_truths/masks/1.png", turned)
    _, report = read("fnc_v2", "yellow", root)
    assert "48x64" in report.left_out[0] and "64x48" in report.left_out[0]
    assert "transposed" in report.left_out[0]


def test_nothing_readable_is_refused_with_the_reasons(tmp_path, windows):
    root = files.bbbc039(tmp_path, windows)
    for path in (root / "images").iterdir():
        path.write_text("no picture")
    with pytest.raises(UserError, match="no picture can be used.*IXM_0.tif"):
        read_published(SETS["bbbc039"], "full", root)


# --- the folder -------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_a_level_too_high_is_found_by_the_names(name, tmp_path, windows):
    config = next(iter(SETS[name].configs))
    nested = tmp_path / "manual" / SETS[name].folders[0]
    files.WRITERS[name](nested, windows)
    (tmp_path / "manual/notes.txt").write_text("x")
    assert manual.find_root(SETS[name], config, tmp_path / "manual").is_dir()
    (tmp_path / "manual/another").mkdir()
    found = manual.find_root(SETS[name], config, tmp_path / "manual")
    assert found.is_relative_to(nested)


def test_an_only_folder_of_any_name_is_looked_into(tmp_path, windows):
    files.bbbc039(tmp_path / "unpacked/again", windows)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".cache").mkdir()
    found = manual.find_root(SETS["bbbc039"], "full", tmp_path)
    assert found == tmp_path / "unpacked/again"
    (tmp_path / "second").mkdir()
    with pytest.raises(UserError, match="second/, unpacked/"):
        manual.find_root(SETS["bbbc039"], "full", tmp_path)


def test_a_missing_folder_is_told_with_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "yellow.zip").write_text("x")
    with pytest.raises(UserError) as caught:
        manual.find_root(SETS["fnc_v2"], "yellow", tmp_path)
    line, *instructions = str(caught.value).splitlines()
    for part in (
        "looked for yellow/trainval/images",
        str(tmp_path),
        "pictures/",
        "yellow.zip: there, but not unpacked",
    ):
        assert part in line, part
    assert "\n".join(instructions) == SETS["fnc_v2"].instructions


def test_the_default_folder_is_that_of_tfds(monkeypatch, tmp_path, windows):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="bbbc039 is no folder"):
        manual.find_root(SETS["bbbc039"], "full", None)
    place = tmp_path / "downloads/manual/bbbc039"
    files.bbbc039(place, windows)
    assert manual.find_root(SETS["bbbc039"], "full", None) == place


@pytest.mark.parametrize("name", SETS)
def test_the_instructions_name_every_part_that_is_opened(name):
    published = SETS[name]
    for number in "12345":
        assert f"\n  {number}. " in published.instructions
    for config in published.configs.values():
        for tree in config.trees:
            for path in tree:
                for part in path.split("/"):
                    assert part in published.tree, (path, part)
    for part in (published.where, published.files, "fluojax check tfds:" + name):
        assert part in published.instructions


def test_without_tfds_a_published_set_is_read_from_its_files(places, monkeypatch):
    find = importlib.util.find_spec
    hide = lambda name, *more: (  # noqa: E731
        None if name == "tensorflow_datasets" else find(name, *more)
    )
    root = places("sbsst265")
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    dataset = sources.load_dataset("tfds:sbsst265/all", data_dir=root)
    assert len(dataset.splits["test"]) == 4 and dataset.reference == "instances"
    with pytest.raises(UserError, match="sbsst265/al is unknown.*configurations are"):
        sources.load_dataset("tfds:sbsst265/al", data_dir=root)
