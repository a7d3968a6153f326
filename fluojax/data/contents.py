"""What the files of a folder hold, read in parallel; reasons where they fail."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from fluojax.config import DataOptions
from fluojax.data import masks, pictures, read
from fluojax.data.cache import Keep, in_memory
from fluojax.data.layouts import Pair, record_id, split_of
from fluojax.data.pairing import Found
from fluojax.errors import UserError

Progress = Callable[[int, int], None]


def silent(done: int, of: int) -> None:
    """No progress is told."""


class Content(NamedTuple):
    """What the files of a pair hold; no plane where there is no mask."""

    pair: Pair
    picture: np.ndarray
    plane: np.ndarray | None
    remarks: tuple[str, ...]


def read_contents(
    found: Found,
    options: DataOptions,
    problems: list[str],
    keep: Keep = in_memory,
    progress: Progress = silent,
) -> list[Content]:
    """What can be read; why the rest cannot is added to `problems`.

    Arrays pass through `keep`; `progress(done, of)` follows every pair.
    """
    pairs = list(found.pairs)
    if options.unlabelled == "use":
        for image in found.images_without_mask:
            name = image.relative_to(found.root).as_posix()
            split = split_of(PurePosixPath(name))
            pairs.append(Pair(image, (), record_id(found.root, image), split))
    results: list[Content | str] = []
    with ThreadPoolExecutor() as pool:
        for result in pool.map(lambda p: _read_pair(p, found, options, keep), pairs):
            results.append(result)
            progress(len(results), len(pairs))
    problems += [text for text in results if isinstance(text, str)]
    return [result for result in results if not isinstance(result, str)]


def _read_pair(
    pair: Pair, found: Found, options: DataOptions, keep: Keep
) -> Content | str:
    """The contents, or the reason why there are none."""
    try:
        picture, remarks = _read_picture(pair, options)
        plane = None
        if pair.masks:
            plane = _read_masks(pair, options)
            remarks += read.mask_conversions(pair.masks[0])
            masks.refuse_other_size(pair.image, pair.masks[0], picture, plane)
        plane = None if plane is None else keep(plane)
        return Content(pair, keep(picture), plane, tuple(dict.fromkeys(remarks)))
    except UserError as error:
        return str(error).replace(f"{found.root}/", "")


def _read_picture(pair: Pair, options: DataOptions) -> tuple[np.ndarray, list[str]]:
    """The image, of one file or of one file per channel, and remarks on it."""
    several = bool(pair.channels)
    planes, remarks = [], []
    for path in (pair.image, *pair.channels):
        array, axes = read.read_image(path, max_pixels=options.max_pixels)
        remarks += read.conversions(path)
        if pictures.has_alpha(array, axes):
            remarks.append("alpha dropped")
        planes.append(
            pictures.as_picture(
                path,
                array,
                axes,
                channel=None if several else options.channel,
                z=options.z,
                given_axes=options.axes,
            )
        )
    if not several:
        return planes[0], remarks
    sizes = {plane.shape[:2] for plane in planes}
    if len(sizes) > 1:
        raise read.UnreadableFile(f"{pair.image}: its channels differ in size: {sizes}")
    picture = np.concatenate(planes, axis=-1)
    return pictures.one_channel(pair.image, picture, options.channel), remarks


def _read_masks(pair: Pair, options: DataOptions) -> np.ndarray:
    if not pair.per_cell:
        (path,) = pair.masks
        if read.file_type(path) == "jpeg":
            values = len(np.unique(read.read_image(path)[0]))
            raise read.UnreadableFile(
                f"{path}: JPEG blurs labels: {values} different values; save masks "
                "as PNG or TIFF"
            )
        plane = masks.read_mask_plane(path, max_pixels=options.max_pixels)
        if options.mask_kind != "binary":
            masks.refuse_fractions(path, plane)
        return plane
    return masks.read_cell_masks(pair.masks, max_pixels=options.max_pixels)
