"""`fluojax predict`: files in, label images, tables and overlays out.

Outputs of an image are written under temporary names and renamed, the record
of the call (predict.json) says with which settings, and an image that is
finished under the same settings is skipped: a killed call is continued by the
same command.
"""

import glob
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fluojax import __version__, runs
from fluojax import config as configs
from fluojax.console import Console, duration
from fluojax.data import pictures, read
from fluojax.data.layouts import OUTPUT_ENDINGS
from fluojax.data.pairing import (
    MASK_ENDINGS,
    MASK_FOLDERS,
    list_files,
)
from fluojax.data.pixel_size import pixel_size_um
from fluojax.errors import UserError, some
from fluojax.files import to_json, write_atomic
from fluojax.inference import files, outlines, prediction, tables
from fluojax.inference.augmented import Tta
from fluojax.inference.postprocess import instances_from_probs
from fluojax.jobs import predict_large
from fluojax.jobs.predict_large import ENDINGS, RANGE


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Files, folders and globs as a list of images; our own outputs are left out.

    Raises:
      UserError: nothing is found, or two images would write the same outputs.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found += [p for p in list_files(path) if _is_image(p, path)]
        elif path.exists() or path.is_symlink():
            found.append(path)
        else:
            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                raise UserError(f"{argument}: no such file or folder, and no match")
            found += [p for p in map(Path, matches) if p.is_file() and _is_image(p)]
    images = list(dict.fromkeys(found))
    if not images:
        raise UserError(
            f"no images in {some(arguments)}; readable are .tif .tiff .png .jpg .npy"
        )
    stems: dict[str, Path] = {}
    for image in images:
        other = stems.setdefault(image.stem, image)
        if other != image:
            raise UserError(
                f"{other} and {image} would both write {image.stem}_masks.tif; predict "
                "them into two --out folders"
            )
    return images


def _is_image(path: Path, root: Path | None = None) -> bool:
    """By its name: no mask, none of our outputs, not in a folder of masks."""
    own = path.stem.endswith((*MASK_ENDINGS, *OUTPUT_ENDINGS))
    folders = path.relative_to(root).parts[:-1] if root else ()
    masks = any(part.lower() in MASK_FOLDERS for part in folders)
    return path.suffix.lower() in read.IMAGE_SUFFIXES and not own and not masks


@dataclass(frozen=True)
class Call:
    """What one call predicts with, and what it writes where."""

    run: runs.Run
    network: prediction.Network
    out: Path
    save: tuple[str, ...]
    tile: int | None | str
    pixel_size_um: float | None
    tta: Tta = "off"
    shard: tuple[int, int] = (1, 1)
    shapes: bool = False
    memory: int = prediction.MEMORY

    def settings(self) -> dict[str, Any]:
        """What decides the outputs; results of other settings do not mix."""
        config = self.run.config
        return {
            "run": self.run.folder.name,
            "checkpoint": self.run.step,
            "threshold": self.run.threshold,
            "postprocess": configs.postprocess_settings(config),
            "tile": self.tile,
            "tta": self.tta,
            "shapes": self.shapes,
            "save": sorted(self.save),
            "pixel_size_um": self.pixel_size_um,
            "data_options": asdict(config.data_options),
        }


def predict_files(
    run_folder: Path,
    arguments: Sequence[str],
    out: Path,
    *,
    save: Sequence[str] = ("masks", "cells", "overlay"),
    tile: int | None | str = "auto",
    threshold: float | None = None,
    pixel_size_um: float | None = None,
    tta: Tta = "off",
    shard: tuple[int, int] = (1, 1),
    shapes: bool = False,
    overwrite: bool = False,
    overrides: Mapping[str, Any] | None = None,
    memory: int = prediction.MEMORY,
    console: Console,
) -> int:
    """Predicts every image; returns 0, or 4 if some failed or had to be mended.

    With `shard` (k, n) it takes every n-th image from the k-th on and writes
    records of its own; whoever finds those of all n complete writes the common
    ones. Maps of an image that would take more than `memory` bytes go to files
    (`predict_large`); the labels are the same.

    Raises:
      UserError: no run, no image, or `out` holds results of other settings.
    """
    number_of, shards = shard
    images = find_images(arguments)[number_of - 1 :: shards]
    run = runs.with_overrides(runs.open_run(run_folder, threshold=threshold), overrides)
    network = runs.network_of(run)
    call = Call(
        run, network, out, tuple(save), tile, pixel_size_um, tta, shard, shapes, memory
    )
    done = _finished(call, overwrite)
    rows, failures = dict(done), {}
    began = time.monotonic()
    for number, path in enumerate(images, start=1):
        if path.stem in done and _complete(out, path.stem, save):
            continue
        try:
            rows[path.stem] = _predict_one(call, path)
        except UserError as error:
            failures[path.name] = str(error)
            console.line(f"skipped {error}")
        _write_record(call, rows, failures)
        shown = {"images": f"{number}/{len(images)}", "image": path.name}
        console.progress(number, shown, last=number == len(images))
    _write_record(call, rows, failures)
    write_atomic(out / _named("counts.csv", shard), _counts(rows))
    if shards > 1:
        _merge(call, console)
    notes = {row["image"]: row["note"] for row in rows.values() if row["note"]}
    for name, note in notes.items():
        console.line(f"{name}: {note}")
    _note_nothing_found(rows, run, console)
    holes = sum(row["holes"] for row in rows.values())
    if holes and "rois" in save:
        console.line(f"{holes} cells have holes, which ImageJ's ROIs leave out")
    cells = sum(row["count"] for row in rows.values())
    console.line(
        f"{len(images)} images, {cells:,} cells, {len(failures)} failed, "
        f"{duration(time.monotonic() - began)} -> {out}"
    )
    return 4 if failures or notes else 0


def _predict_one(call: Call, path: Path) -> dict[str, Any]:
    """Writes the outputs of one image; its row of counts.csv and its range."""
    picture, note = _read(call, path)
    if call.pixel_size_um is None:
        call = replace(call, pixel_size_um=pixel_size_um(path))
    if predict_large.is_large(picture, call.memory):
        return predict_large.predict(call, path, picture) | {"note": note}
    probs = prediction.probabilities(
        call.network, picture, tile=call.tile, tta=call.tta
    )
    post = configs.postprocess_options(call.run.config, call.pixel_size_um)
    instances = instances_from_probs(probs, threshold=call.run.threshold, **post)
    count = int(instances.max(initial=0))
    spacing = call.pixel_size_um
    table = tables.cell_table(
        instances, picture, probs, pixel_size_um=spacing, shapes=call.shapes
    )
    caption = f"{path.stem}: {count} cells"
    drawn = outlines.outlines(instances) if {"rois", "geojson"} & {*call.save} else []
    contents = {
        "masks": lambda: files.labels_tiff_bytes(instances, spacing),
        "cells": lambda: tables.cells_csv(path.stem, table),
        "rois": lambda: outlines.rois_zip_bytes(drawn),
        "geojson": lambda: outlines.geojson(drawn, table),
        "overlay": lambda: files.overlay_png_bytes(picture, instances, caption),
        "probs": lambda: files.probs_tiff_bytes(probs, spacing),
    }
    for kind in call.save:
        write_atomic(call.out / (path.stem + ENDINGS[kind]), contents[kind]())
    return {
        "image": path.name,
        "count": count,
        "true_count": "",
        "foreground_share": float((instances > 0).mean()),
        "max_probability": float(probs.max()),
        "note": note,
        "holes": sum(bool(outline.holes) for outline in drawn),
        "range": [float(x) for x in np.percentile(picture, RANGE)],
    }


def _read(call: Call, path: Path) -> tuple[np.ndarray, str]:
    """The picture as the network takes it, and what had to be mended."""
    run = call.run
    options = run.config.data_options
    allocate = predict_large.allocator(call.out, call.memory // 8)
    array, axes = read.read_image(
        path, max_pixels=options.max_pixels, allocate=allocate
    )
    note = ""
    if array.dtype.kind == "f":
        array, bad = pictures.mend_not_finite(path, array)
        if bad:
            note = f"{bad} NaN or infinite pixels ({bad / array.size:.2%}) set to the "
            note += "image minimum"
    picture = pictures.as_picture(
        path, array, axes, channel=options.channel, z=options.z,
        given_axes=options.axes,
    )  # fmt: skip
    if picture.shape[-1] != run.channels:
        raise read.UnreadableFile(
            f"{path}: {picture.shape[-1]} channels, the network was trained on "
            f"{run.channels}; choose one with --channel N"
        )
    return picture, note


def _counts(rows: Mapping[str, Mapping[str, Any]]) -> str:
    ordered = (rows[stem] for stem in sorted(rows))
    return tables.counts_csv(
        {name: row[name] for name in tables.COUNT_COLUMNS} for row in ordered
    )


def _complete(out: Path, stem: str, save: Sequence[str]) -> bool:
    return all((out / (stem + ENDINGS[kind])).is_file() for kind in save)


def _finished(call: Call, overwrite: bool) -> dict[str, Any]:
    """Rows of images finished earlier under the same settings."""
    path = call.out / _named("predict.json", call.shard)
    if overwrite or not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        earlier, rows = record["settings"], record["images"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged; --overwrite starts anew") from error
    settings = _plain(call.settings())
    if earlier != settings:
        changed = [k for k in settings if earlier.get(k) != settings[k]]
        raise UserError(
            f"{call.out} holds predictions of other settings ({some(changed)}); "
            "--overwrite, or another --out"
        )
    return rows


def _write_record(call: Call, rows, failures) -> None:
    record = {
        "settings": call.settings(),
        "versions": {"fluojax": __version__},
        "images": dict(sorted(rows.items())),
        "failures": dict(sorted(failures.items())),
    }
    write_atomic(call.out / _named("predict.json", call.shard), to_json(record))


def _named(name: str, shard: tuple[int, int]) -> str:
    """`counts.csv`, or `counts.2-of-5.csv` for a shard."""
    if shard == (1, 1):
        return name
    stem, _, ending = name.partition(".")
    return f"{stem}.{shard[0]}-of-{shard[1]}.{ending}"


def _merge(call: Call, console: Console) -> None:
    """Common records, if those of all shards are there, of these settings."""
    shards = call.shard[1]
    records = []
    for number in range(1, shards + 1):
        path = call.out / _named("predict.json", (number, shards))
        counts = call.out / _named("counts.csv", (number, shards))
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        # Its counts are written last.
        if not counts.is_file() or record["settings"] != _plain(call.settings()):
            return
        records.append(record)
    rows = {stem: row for record in records for stem, row in record["images"].items()}
    failures = {k: v for record in records for k, v in record["failures"].items()}
    _write_record(replace(call, shard=(1, 1)), rows, failures)
    write_atomic(call.out / "counts.csv", _counts(rows))
    console.line(f"all {shards} shards are done: {len(rows)} images in counts.csv")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(to_json(settings))


def _note_nothing_found(rows: Mapping[str, Mapping], run, console: Console) -> None:
    empty = [row for row in rows.values() if row["count"] == 0]
    if not empty:
        return
    best = max(empty, key=lambda row: row["max_probability"])
    low, high = best["range"]
    training = "" if run.intensity is None else ", training {:g}-{:g}"
    training = training.format(*run.intensity or ())
    console.line(
        f"0 cells in {len(empty)} of {len(rows)} images; highest probability "
        f"{best['max_probability']:.2f}, threshold {run.threshold:g}; input 1-99.8 % = "
        f"{low:g}-{high:g}{training}: another normalisation or channel? If cells are visible, lower --threshold"
    )
