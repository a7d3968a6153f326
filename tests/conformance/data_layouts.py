"""Folders of published layouts and files of odd formats against `expected.json`.

`layouts` and `formats` give one answer per expected record: a function that
fails where a reader of ours says something else.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fluojax.config import DataOptions
from fluojax.data import bbbc039, masks, pictures, read, sbsst265
from fluojax.data.folder import read_folder, read_records
from fluojax.data.manual import find_root
from fluojax.data.pairing import find_pairs
from fluojax.data.published import Report, read_entries
from fluojax.data.published_sets import SETS
from fluojax.data.record import Record
from fluojax.errors import UserError

Answers = dict[str, Callable[[], None]]

# The data set that reads a folder of `layouts` whose name begins so.
READERS = {
    "fnc_v1": "fnc_v1",
    "fnc_v2": "fnc_v2",
    "s_bsst265": "sbsst265",
    "dsb2018": "dsb2018",
    "bbbc039": "bbbc039",
    "atlas_r2": "atlas_r2",
}
# Splits in which the pictures of a published part may be.
TRAINED = ("train", "val")
SPLITS = {
    "train": TRAINED,
    "trainval": TRAINED,
    "Training": TRAINED,
    "Tr": TRAINED,
    "val": ("val",),
    "test": ("test",),
    "Ts": ("test",),
    "unlabelled": ("unlabelled",),
    "Testing": ("unlabelled",),
    "stage1_test": ("unlabelled",),
}


class Read(NamedTuple):
    """What a reader made of one picture."""

    record: Record
    split: str | None
    masks: tuple[str, ...]


class Contents(NamedTuple):
    """What a reader made of a folder; paths are relative to `layouts`."""

    pictures: dict[str, Read]
    lonely: str  # lines that name what was left out


def run(answers: Answers) -> list[str]:
    """The messages of the answers that fail."""
    failures = []
    for name, answer in answers.items():
        try:
            answer()
        except Exception as error:  # any failure belongs to its record
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return failures


# --- layouts ----------------------------------------------------------------------


def layouts(folder: Path) -> Answers:
    """One answer per record and per list of `layouts/expected.json`."""
    answers: Answers = {}
    for key, parts in _expected(folder).items():
        try:
            contents = _contents(folder, key)
        except UserError as error:
            answers[key] = partial(_fail, str(error))
            continue
        for name, answer in _layout_answers(folder, key, parts, contents):
            answers[f"{key}/{name}"] = answer
    return answers


def _fail(reason: str) -> None:
    raise AssertionError(reason)


def _contents(folder: Path, key: str) -> Contents:
    for beginning, name in READERS.items():
        if key.startswith(beginning):
            return _published(folder, key, name)
    return _generic(folder, key)


def _expected(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return {key: value for key, value in told.items() if not key.startswith("_")}


def _published(folder: Path, key: str, name: str) -> Contents:
    """By the configuration that the key names, else by all; the first one counts."""
    published, pictures_, lines = SETS[name], {}, []
    place, _, only = key.partition("/")
    for config in [only] if only else published.configs:
        root = find_root(published, config, folder / place)
        report = Report()
        entries = [
            entry
            for entry in published.find_records(root, config, report)
            if _relative(entry.image, folder) not in pictures_
        ]
        for entry, record in read_entries(published, entries, report):
            files = tuple(_relative(path, folder) for path in entry.masks)
            found = Read(record, entry.split, files)
            pictures_[_relative(entry.image, folder)] = found
        lines += [f"{_relative(root, folder)}/{line}" for line in report.left_out]
    return Contents(pictures_, "\n".join(lines))


def _generic(folder: Path, key: str) -> Contents:
    """Pairs, and the images without mask as unlabelled records."""
    found = find_pairs(folder / key)
    records = read_records(folder / key, DataOptions(unlabelled="use"), [], [])
    by_id = {record.id: (record, split) for record, split in records}
    pictures_ = {}
    for pair in found.pairs:
        files = tuple(_relative(path, folder) for path in pair.masks)
        record, split = by_id.pop(pair.id)
        pictures_[_relative(pair.image, folder)] = Read(record, split, files)
    alone = {_relative(path, folder) for path in found.images_without_mask}
    for path in alone:
        for id, (record, _) in by_id.items():
            if path.startswith(f"{key}/{id}."):
                pictures_[path] = Read(record, None, ())
    lonely = [*alone, *(_relative(p, folder) for p in found.masks_without_image)]
    return Contents(pictures_, "\n".join(lonely))


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _layout_answers(
    folder: Path, key: str, parts: Mapping[str, Any], contents: Contents
) -> Iterator[tuple[str, Callable[[], None]]]:
    images = set()
    for part, told in parts.items():
        if part == "csv_rows":
            yield part, lambda told=told: _check_rows(folder / key, told)
        elif part.endswith(("_without_image", "_without_mask")):
            images.update(told if part.startswith("images") else ())
            yield part, lambda told=told: _check_lonely(told, contents)
        else:
            images.update(expected["image"] for expected in told)
            for expected in told:
                name = f"{part}/{Path(expected['image']).name}"
                yield name, lambda e=expected, p=part: _check(folder, p, e, contents)
    yield "nothing else", lambda: _check_set(images, contents)


def _check(folder: Path, part: str, expected: Mapping, contents: Contents) -> None:
    assert expected["image"] in contents.pictures, "not found"
    record, split, files = contents.pictures[expected["image"]]
    if split is not None:
        assert split in SPLITS.get(part, (split,)), split
    path = folder / expected["image"]
    if ".nii" in path.name:
        assert list(record.image.shape[:-1]) == expected["file_shape"]
    else:
        assert list(read.read_image(path)[0].shape) == expected["file_shape"]
    assert str(record.image.dtype) == expected["dtype"], record.image.dtype
    image = record.image
    # A configuration with pictures in colour stores all of them as colours.
    grey = image.shape[-1] == 3 and (image == image[..., :1]).all()
    channels = 1 if grey and expected["channels"] == 1 else image.shape[-1]
    assert channels == expected["channels"], channels
    assert record.has_labels == bool(expected["has_labels"])
    foreground, count = int((record.instances > 0).sum()), int(record.instances.max())
    assert foreground == expected.get("foreground", 0), foreground
    assert count == expected.get("instances", 0), count
    assert len(np.unique(record.instances[record.instances > 0])) == count
    if "mask" in expected:
        assert files == (expected["mask"],), files


def _check_rows(folder: Path, expected: int) -> None:
    root = find_root(SETS["sbsst265"], "csv", folder)
    assert len(sbsst265.read_table(root / sbsst265.TABLE)) == expected


def _check_lonely(expected: list[str], contents: Contents) -> None:
    missing = [path for path in expected if path not in contents.lonely]
    assert not missing, f"not reported: {missing}"


def _check_set(expected: set[str], contents: Contents) -> None:
    more = contents.pictures.keys() - expected
    assert not more, f"read and not expected: {sorted(more)}"


# --- formats ----------------------------------------------------------------------


def formats(folder: Path, scratch: Path) -> Answers:
    """One answer per file of `formats/expected.json`, and per CZI beside it."""
    expected = _expected(folder)
    answers: Answers = {}
    for name, told in expected.items():
        path = folder / name
        if told["kind"] == "image":
            answers[name] = lambda p=path, e=told: _check_image(p, e)
        elif "error" in told:
            answers[name] = lambda p=path: _check_pair(p, expected, scratch)
        else:
            answers[name] = lambda p=path, e=told: _check_mask(p, e)
    for path in sorted(folder.glob("*.czi")):
        answers[path.name] = lambda p=path: _check_refused(
            lambda: read.read_image(p), p.name, "convert it to TIFF"
        )
    return answers


def _check_image(path: Path, expected: Mapping) -> None:
    if "error" in expected:
        _check_refused(lambda: read.read_image(path), path.name)
        return
    array, axes = read.read_image(path)
    if "shape" in expected:
        assert list(array.shape) == expected["shape"], array.shape
    if "dtype" in expected:
        assert str(array.dtype) == expected["dtype"], array.dtype
    if "axes" in expected:
        assert axes == expected["axes"], axes
    if "max" in expected:
        np.testing.assert_allclose(array.max(), expected["max"], rtol=1e-6)
    if path.name == "palette_image.png":
        assert array.shape[2:] == (3,), array.shape
    if not np.isfinite(array).all():
        make = lambda: pictures.as_picture(path, array, axes)  # noqa: E731
        _check_refused(make, path.name, "NaN or infinite")


def _check_mask(path: Path, expected: Mapping) -> None:
    for key in ("fg", "fg_half"):
        if key in expected:
            found = int((masks.read_mask(path, "binary") > 0).sum())
            assert found == expected[key], (key, found)
    if "fg_gt0" in expected:
        found = int((read.read_mask_array(path)[0] > 0).sum())
        assert found == expected["fg_gt0"], found
    if "bbbc039" in path.name:
        instances = bbbc039.read_nuclei(path)
    else:
        kind = "colours" if "colours" in path.name else "instances"
        instances = masks.read_mask(path, kind)
    if "n" in expected:
        assert instances.max() == expected["n"], instances.max()


def _check_pair(mask: Path, expected: Mapping, scratch: Path) -> None:
    """A mask that only its image shows to be wrong: pairing them is refused."""
    image = next(
        name
        for name, told in expected.items()
        if told["kind"] == "image"
        and "error" not in told
        and len(told.get("shape", ())) == 2
        and name.endswith(".png")
    )
    folder = scratch / mask.stem
    for name, source in (("images", mask.with_name(image)), ("masks", mask)):
        (folder / name).mkdir(parents=True)
        (folder / name / mask.name).write_bytes(source.read_bytes())
    _check_refused(lambda: read_folder(folder), mask.name)


def _check_refused(read_it: Callable[[], object], *parts: str) -> None:
    try:
        read_it()
    except UserError as error:
        text = str(error)
        assert "\n" not in text and all(part in text for part in parts), text
    else:
        raise AssertionError("was read, must be refused")
