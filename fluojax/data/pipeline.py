"""Batches as a pure function of (seed, step).

Records are decoded once and stay in memory. A batch is drawn by a counter-based
generator keyed by (seed, step, global index), so that any process can compute
any part of any batch: there is no iterator state to save, to lose or to repeat.
"""

import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fluojax.data.contrast import Contrast, prepared
from fluojax.data.record import Record
from fluojax.data.scaling import Scaling
from fluojax.errors import Stopped, UserError

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """Training records ready to be cropped.

    Attributes:
      records: labelled records, one dtype and channel number.
      scales: `[N, 2, C]` offset and gain of each image.
      cells: per record, the flat positions of cell pixels sorted by cell, and
        where each cell starts among them.
      crop: side of the squares (of volumes the cubes) that leave, in pixels.
      foreground_crops: probability that a crop is centred on a pixel of a cell.
    """

    records: list[Record]
    scales: np.ndarray
    cells: list[tuple[np.ndarray, np.ndarray]]
    crop: int
    foreground_crops: float


def make_source(
    records: list[Record],
    scaling: Scaling,
    crop: int,
    foreground_crops: float,
    contrast: Contrast = "none",
) -> Source:
    """Labelled records in one type with their scales; constant images are left out.

    Their images are those of `contrast.prepared`: equalised once, if at all.

    Raises:
      UserError: no record has labels, or every image is constant.
    """
    records = [r for r in records if r.has_labels]
    if not records:
        raise UserError("training: no labelled image in the train split")
    records = [r for r in records if r.image.min() < r.image.max()]
    if not records:
        raise UserError("training: every image of the train split is constant")
    images, scales = zip(
        *(prepared(r.image, scaling, contrast) for r in records), strict=True
    )
    records = [_with_image(r, i) for r, i in zip(records, images, strict=True)]
    dtype = common_dtype(records)
    records = [_with_image(r, r.image.astype(dtype, copy=False)) for r in records]
    cells = [cell_positions(r.instances) for r in records]
    return Source(records, np.stack(scales), cells, crop, foreground_crops)


def cell_positions(instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of cell pixels by cell; cell k has [starts[k-1], starts[k])."""
    positions = np.flatnonzero(instances)
    ids = instances.ravel()[positions]
    order = np.argsort(ids, kind="stable")
    starts = np.searchsorted(ids[order], np.arange(1, instances.max(initial=0) + 2))
    # Half the memory: in dense data these are as large as the images.
    small = np.int32 if instances.size < 2**31 else np.int64
    return positions[order].astype(small), starts


def common_dtype(records: list[Record]) -> np.dtype:
    """uint8 or uint16 if all images fit, else float32: one type, one compilation."""
    types = {r.image.dtype for r in records}
    if types <= {np.dtype(np.uint8), np.dtype(bool)}:
        return np.dtype(np.uint8)
    if types <= {np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(bool)}:
        return np.dtype(np.uint16)
    return np.dtype(np.float32)


def _with_image(record: Record, image: np.ndarray) -> Record:
    if image is record.image:
        return record
    return dataclasses.replace(record, image=image)


def draw_batch(
    source: Source, seed: int, step: int, indices: range | np.ndarray, batch_size: int
) -> Batch:
    """The examples `indices` of the global batch of `step`.

    Every epoch visits each record once, in an order of its own. Returns arrays
    with a leading axis of `len(indices)`:

      image `[n, *S, C]` values of the file, S = crop along each axis, scale
      `[n, 2, C]`, instances `[n, *S]` int32, where `[n, *S]` bool (False where
      an image smaller than the crop was padded), index `[n]` int32 (position in
      the global batch), record `[n]` int32.
    """
    parts = [_draw_one(source, seed, step, int(i), batch_size) for i in indices]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _draw_one(source: Source, seed: int, step: int, index: int, size: int) -> Batch:
    position = step * size + index
    number = epoch_order(seed, position // len(source.records), len(source.records))[
        position % len(source.records)
    ]
    record = source.records[number]
    rng = np.random.Generator(
        np.random.Philox(key=[seed, 1], counter=[0, 0, step, index])
    )
    window = _window(record.instances.shape, source.cells[number], source, rng)
    image, instances, where = cut(record.image, record.instances, window, source.crop)
    return {
        "image": image,
        "instances": instances,
        "where": where,
        "scale": source.scales[number],
        "index": np.int32(index),
        "record": np.int32(number),
    }


@functools.lru_cache(maxsize=64)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation of `count` records that depends on seed and epoch alone."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[0, 0, 0, epoch]))
    order = rng.permutation(count)
    order.setflags(write=False)  # it is shared by all who ask
    return order


def _window(shape: tuple[int, ...], cells, source: Source, rng: np.random.Generator):
    """First corner of a crop: around a pixel of a random cell, or anywhere."""
    biased, cell, *place = rng.random(2 + len(shape))
    positions, starts = cells
    count = len(starts) - 1
    room = [max(n - source.crop, 0) for n in shape]
    if biased < source.foreground_crops and count:
        first, last = starts[int(cell * count) :][:2]
        centre = np.unravel_index(
            positions[first + int(place[0] * (last - first))], shape
        )
        corner = [c - source.crop // 2 for c in centre]
    else:
        corner = [int(u * (n + 1)) for u, n in zip(place, room, strict=True)]
    return tuple(int(np.clip(c, 0, n)) for c, n in zip(corner, room, strict=True))


def cut(image: np.ndarray, instances: np.ndarray, corner, crop: int):
    """A square or cube; what lies outside the image is reflected and marked."""
    view = tuple(slice(start, start + crop) for start in corner)
    where = np.ones(instances[view].shape, bool)
    return enlarged(image[view], instances[view], where, crop)


def enlarged(
    image: np.ndarray, instances: np.ndarray, where: np.ndarray, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All three with sides of at least `least`, added at the high ends.

    The image is reflected there, instances are 0 and `where` False.
    """
    missing = [(0, max(least - n, 0)) for n in instances.shape]
    if any(after for _, after in missing):
        image = np.pad(image, [*missing, (0, 0)], mode="symmetric")
        instances = np.pad(instances, missing)
        where = np.pad(where, missing)
    return image, instances, where


def prefetch(
    draw: Callable[[int], Batch], start: int, stop: int, *, patience_s: float = 300.0
) -> Iterator[Batch]:
    """`draw(step)` for start <= step < stop, computed two steps ahead by a thread.

    An exception of `draw` is raised in the caller, at the step it belongs to.

    Raises:
      Stopped: no batch came within `patience_s` seconds.
    """
    ready: queue.Queue = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def work():
        for step in range(start, stop):
            try:
                item = draw(step)
            except BaseException as error:  # handed over, not swallowed
                item = error
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if stopped.is_set() or isinstance(item, BaseException):
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            try:
                item = ready.get(timeout=patience_s)
            except queue.Empty:
                raise Stopped(
                    f"reading data: nothing came for {patience_s:g} s; is the storage "
                    "reachable? Run the same command again to continue"
                ) from None
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
