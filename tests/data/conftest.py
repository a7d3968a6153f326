"""Tiny folders in every layout that is read, made of `fnc_synth` windows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from fluojax.data import fnc_synth

COUNT = 5
SIZE = (48, 64)


@pytest.fixture(scope="session")
def windows():
    """Five small records with 2, 4, 2, 3 and 9 cells."""
    return [
        fnc_synth.record(seed, "train", size=SIZE, scale=0.24, density=20.0)
        for seed in range(COUNT)
    ]


def write(path: Path, array: np.ndarray, content: str = "") -> Path:
    """An array as the file that its suffix (or `content`) names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = content or path.suffix.lower()
    if kind in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    elif kind == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(
            path, {".jpg": "JPEG", ".gif": "GIF"}.get(kind, "PNG")
        )
    return path


def grey(record) -> np.ndarray:
    return record.image[..., 0]


def labels(record, dtype=np.uint16) -> np.ndarray:
    return record.instances.astype(dtype)


def binary(record, full=255, dtype=np.uint8) -> np.ndarray:
    return np.where(record.instances > 0, full, 0).astype(dtype)


def soft(record, full=255) -> np.ndarray:
    """A mask with one pixel of half-way values around each cell."""
    inside = record.instances > 0
    near = np.pad(inside, 1)
    near = near[2:, 1:-1] | near[:-2, 1:-1] | near[1:-1, 2:] | near[1:-1, :-2]
    return np.where(inside, full, np.where(near, full // 4, 0)).astype(np.uint8)


def images_masks(root: Path, records, mask=labels, suffix=".tif") -> Path:
    for k, record in enumerate(records):
        write(root / f"images/img{k}.png", grey(record))
        write(root / f"masks/img{k}{suffix}", mask(record))
    return root


def split_folders(root: Path, records) -> Path:
    for k, record in enumerate(records):
        split = ("train", "train", "train", "valid", "test")[k]
        write(root / f"{split}/Images/img{k}.tif", grey(record))
        write(root / f"{split}/Labels/img{k}.npy", labels(record))
    return root


def cellpose(root: Path, records) -> Path:
    for k, record in enumerate(records):
        folder = root / ("test" if k == 0 else "train")
        write(folder / f"img{k}.tif", grey(record))
        write(folder / f"img{k}_masks.tif", labels(record))
        write(folder / f"img{k}_flows.tif", grey(record))
        (folder / f"img{k}_seg.npy").write_bytes(b"\x93NUMPY pickled by Cellpose")
    return root


def suffix_pairs(root: Path, records, image="_img", mask="_mask") -> Path:
    for k, record in enumerate(records):
        write(root / f"img{k}{image}.png", grey(record))
        write(root / f"img{k}{mask}.png", labels(record))
    return root


def per_cell(root: Path, records) -> Path:
    for k, record in enumerate(records):
        grey_rgba = np.stack([grey(record)] * 3 + [np.full(SIZE, 255, np.uint8)], -1)
        write(root / f"img{k}/images/img{k}.png", grey_rgba)
        for cell in range(1, record.instances.max() + 1):
            one = np.where(record.instances == cell, 255, 0).astype(np.uint8)
            write(root / f"img{k}/masks/{cell:03d}.png", one)
    return root


def clutter(root: Path, record) -> None:
    """Files that no reader may take for data."""
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "table.csv", "._img0.png"):
        (root / "images" / name).write_text("not an image")
    write(root / "images/.ipynb_checkpoints/img0-checkpoint.png", grey(record))
    write(root / "__MACOSX/images/img0.png", grey(record))
    (root / "images/folder.png").mkdir()


@pytest.fixture(scope="session")
def disk():
    """The functions above."""
    return SimpleNamespace(
        write=write,
        grey=grey,
        labels=labels,
        binary=binary,
        soft=soft,
        images_masks=images_masks,
        split_folders=split_folders,
        cellpose=cellpose,
        suffix_pairs=suffix_pairs,
        per_cell=per_cell,
        clutter=clutter,
    )
