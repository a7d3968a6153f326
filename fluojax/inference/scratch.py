"""Arrays in files instead of memory.

A mapped array is used as any other. The file has no name, so it is gone when
the array is, also after a kill; the pages read and written count as memory of
the process until `release` hands them back to the system.
"""

import math
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

BAND_PIXELS = 4_000_000  # handled at a time


def mapped(folder: Path, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Zeros of any size in a file without name below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(max(size, 1))
        buffer = mmap.mmap(file.fileno(), max(size, 1))
    return np.ndarray(tuple(shape), dtype, buffer)


def release(*arrays: np.ndarray) -> None:
    """Gives back the memory of mapped arrays; their values stay in the file."""
    for array in arrays:
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
            base.madvise(mmap.MADV_DONTNEED)


def bands(shape: Sequence[int], pixels: int = BAND_PIXELS) -> Iterator[slice]:
    """Slices of the first axis that hold about `pixels` pixels each."""
    rows = max(1, pixels // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))
