"""Decoded images on disk, for data sets that would fill the memory.

Below a limit everything stays in memory. Beyond it arrays go to large `.npy`
files as they are decoded and come back memory-mapped, so that a crop reads its
own pages only; the files stay for the next run on the same data. A cache gets
its name last, by one rename: what has no name yet is never read, and what a
killed process left is removed by the next one that writes.
"""

import dataclasses
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError
from fluojax.files import user_cache, write_atomic

LIMIT_BYTES = 2_000_000_000
_INDEX, _LOCK = "index.json", "lock"
_ALIGNED = 64
Keep = Callable[[np.ndarray], np.ndarray]


def in_memory(array: np.ndarray) -> np.ndarray:
    """What is kept is the array itself."""
    return array


def kept(record: Record, keep: Keep) -> Record:
    """The record with its arrays where `keep` puts them."""
    image, instances = keep(record.image), keep(record.instances)
    return dataclasses.replace(record, image=image, instances=instances)


def cache_folder() -> Path:
    """`data` below `FLUOJAX_CACHE`, by default `~/.cache/fluojax`."""
    base = os.environ.get("FLUOJAX_CACHE") or user_cache()
    return Path(base) / "data"


def cached(
    key: str,
    read: Callable[[Keep], Dataset],
    *,
    still: Callable[[], bool],
    limit: int | None = None,
) -> Dataset:
    """What `read` returns, in memory or mapped from the cache.

    Args:
      key: names the files that are read, and the options.
      read: decodes them; passes every array that stays through its argument.
      still: whether the files are, after reading, those that the key names.
      limit: bytes kept in memory; None for `LIMIT_BYTES`.

    Raises:
      UserError: as `read` does, or no room on the disk.
    """
    home = cache_folder() / key
    if (home / _INDEX).is_file():
        return _load(home)
    spill = Spill(home, LIMIT_BYTES if limit is None else limit)
    try:
        dataset = read(spill)
        if not spill.chunks or not still():
            return dataset
        _store(dataset, spill, home)
        return _load(home)
    except OSError as error:
        raise UserError(
            f"{error.filename or home.parent}: {error.strerror or error}; decoded "
            "images need room there, or FLUOJAX_CACHE=DIR names another folder"
        ) from error
    finally:
        spill.close()


class Spill:
    """Keeps arrays in memory up to a limit of bytes, and beyond it in files.

    Attributes:
      folder: where the files are.
      chunks: the files, mapped, each of a quarter of the limit or of one array.
    """

    def __init__(self, home: Path, limit: int):
        self.folder = home.with_name(f"{home.name}.{os.getpid()}.part")
        self.chunks: list[np.memmap] = []
        self._limit = limit
        self._held = 0
        self._filled = 0  # of the last chunk
        self._mutex = threading.Lock()
        self._alive = None

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The array, or its equal in a file where there is no more room."""
        with self._mutex:
            if not self.chunks and self._held + array.nbytes <= self._limit:
                self._held += array.nbytes
                return array
            place = self._reserve(array)
        place[...] = array
        return place

    def place_of(self, array: np.ndarray) -> tuple[int, int]:
        """Number of the chunk that holds an array, and the offset in it.

        An array that is in none of them is written first.
        """
        start = array.__array_interface__["data"][0]
        for number, chunk in enumerate(self.chunks):
            offset = start - chunk.__array_interface__["data"][0]
            if 0 <= offset < chunk.nbytes and array.flags.c_contiguous:
                return number, offset
        with self._mutex:
            place = self._reserve(array)
        place[...] = array
        return self.place_of(place)

    def close(self) -> None:
        """Removes the files, unless the folder has got its name."""
        if self._alive is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._alive.close()

    def _reserve(self, array: np.ndarray) -> np.ndarray:
        if not self.chunks or self._filled + array.nbytes > self.chunks[-1].nbytes:
            self._add_chunk(max(self._limit // 4, array.nbytes, 1))
        start, stop = self._filled, self._filled + array.nbytes
        self._filled = -(-stop // _ALIGNED) * _ALIGNED
        part = np.asarray(self.chunks[-1])[start:stop]
        return part.view(array.dtype).reshape(array.shape)

    def _add_chunk(self, size: int) -> None:
        if self._alive is None:
            _remove_leftovers(self.folder.parent)
            self.folder.mkdir(parents=True)
            self._alive = open(self.folder / _LOCK, "w")
            fcntl.flock(self._alive, fcntl.LOCK_EX)
        path = self.folder / f"{len(self.chunks):05d}.npy"
        chunk = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(size,))
        with open(path, "r+b") as file:
            # A full disk is told here; at a page of the map it would be a crash.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        self.chunks.append(chunk)
        self._filled = 0


def _remove_leftovers(root: Path) -> None:
    """Parts whose writer has died: nobody holds their lock."""
    for part in root.glob("*.part"):
        try:
            with open(part / _LOCK) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(part, ignore_errors=True)
        except FileNotFoundError:
            shutil.rmtree(part, ignore_errors=True)
        except OSError:  # it is being written
            continue


def _store(dataset: Dataset, spill: Spill, home: Path) -> None:
    """Writes what is still in memory and the index, then gives the folder its name."""

    def told(record: Record) -> dict[str, Any]:
        arrays = {"image": record.image, "instances": record.instances}
        return {**vars(record), **{k: described(a) for k, a in arrays.items()}}

    def described(array: np.ndarray) -> list[Any]:
        return [*spill.place_of(array), array.dtype.str, array.shape]

    splits = {k: [told(r) for r in part] for k, part in dataset.splits.items()}
    for chunk in spill.chunks:
        chunk.flush()
    text = json.dumps({**vars(dataset), "splits": splits})
    write_atomic(spill.folder / _INDEX, text)
    try:
        os.replace(spill.folder, home)
    except OSError:
        if not (home / _INDEX).is_file():  # else another process was faster
            raise


def _load(home: Path) -> Dataset:
    index = json.loads((home / _INDEX).read_text(encoding="utf-8"))
    chunks = [np.load(path, mmap_mode="r") for path in sorted(home.glob("*.npy"))]

    def array(number: int, offset: int, dtype: str, shape: list[int]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        part = np.asarray(chunks[number])[offset : offset + size]
        return part.view(dtype).reshape(shape)

    def record(told: dict[str, Any]) -> Record:
        arrays = {k: array(*told[k]) for k in ("image", "instances")}
        return Record(**{**told, **arrays, "spacing": tuple(told["spacing"])})

    splits = {k: [record(r) for r in part] for k, part in index["splits"].items()}
    return Dataset(**{**index, "splits": splits, "notes": tuple(index["notes"])})
