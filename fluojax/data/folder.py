"""A folder of images and masks as a `Dataset`: contents, kinds, records.

Nothing is guessed silently: every decision is a note, every file that cannot be
used is a problem with its reason.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import masks
from fluojax.data.cache import Keep, in_memory
from fluojax.data.contents import Content, Progress, read_contents, silent
from fluojax.data.layouts import TEST_IMAGES, Pair
from fluojax.data.pairing import PAIRS_ARE, Found, find_pairs
from fluojax.data.record import Dataset, Record
from fluojax.data.splits import split_records
from fluojax.errors import UserError, some

Records = list[tuple[Record, str | None]]


def read_folder(
    root: str | Path,
    options: DataOptions = DEFAULT,
    *,
    strict: bool = True,
    keep: Keep = in_memory,
    progress: Progress = silent,
) -> tuple[Dataset, list[str]]:
    """Everything a folder holds, and the problems met, one line each.

    With `strict`, problems are refused as training must refuse them (files that
    cannot be used are left out with `options.skip_bad`); without, the readable
    images come back all the same. Arrays pass through `keep` as they are decoded,
    and `progress(done, of)` follows every pair.

    Raises:
      UserError: nothing can be read; with `strict`, for any problem.
    """
    notes: list[str] = []
    problems: list[str] = []
    records = read_records(root, options, notes, problems, keep, progress)
    if problems and strict and not options.skip_bad:
        raise UserError(
            f"{root}: {len(problems)} problems: {_listed(problems)}; mend them, or "
            "leave these files out with --skip-bad"
        )
    if problems and strict:
        notes.append(f"left out: {_listed(problems)}")
    fatal = _judge([record for record, _ in records], notes)
    if fatal and strict:
        raise UserError(f"{root}: {_listed(fatal)}")
    splits = split_records([r for r, _ in records], [s for _, s in records], notes)
    if strict and not fatal and not any(r.instances.any() for r in splits["train"]):
        if splits["train"]:
            raise UserError(f"{root}: the masks of train are empty: nothing to learn")
    return Dataset(Path(root).name, splits, notes=tuple(notes)), problems + fatal


def read_records(
    root: str | Path,
    options: DataOptions,
    notes: list[str],
    problems: list[str],
    keep: Keep = in_memory,
    progress: Progress = silent,
) -> Records:
    """Records with the split that their folder names; notes and problems are added.

    Raises:
      UserError: nothing can be read.
    """
    found = find_pairs(root, options)
    notes.append(f"layout: {found.layout}, {len(found.pairs)} pairs")
    problems += _leftovers(found, options, notes)
    contents = read_contents(found, options, problems, keep, progress)
    if not contents:
        raise UserError(f"{root}: no readable pair: {_listed(problems)}")
    notes += _counted((r, c.pair.id) for c in contents for r in c.remarks)
    return _records(contents, options, notes, problems, keep)


def _listed(lines: list[str]) -> str:
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    return "; ".join(lines[:5]) + more


def _counted(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """`remark in N images: a, b, ...` for each kind of remark."""
    names: dict[str, list[str]] = {}
    for remark, name in remarks:
        names.setdefault(remark, []).append(name)
    return [f"{r} in {len(n)} images: {some(n)}" for r, n in names.items()]


def _leftovers(found: Found, options: DataOptions, notes: list[str]) -> list[str]:
    images, masks = found.images_without_mask, found.masks_without_image
    line = (
        f"{len(found.pairs) + len(images)} images, "
        f"{sum(len(p.masks) for p in found.pairs) + len(masks)} masks, "
        f"{len(found.pairs)} pairs"
    )
    for kind, paths in (
        ("images without mask", images),
        ("masks without image", masks),
    ):
        if paths:
            names = some(path.relative_to(found.root) for path in paths)
            line += f"; {len(paths)} {kind}: {names}"
    due = [path for path in images if path.parent.name.lower() != TEST_IMAGES]
    many = len(due) > 0.1 * (len(found.pairs) + len(due))
    if many and options.unlabelled == "skip":
        return [f"{line}; {PAIRS_ARE}"]
    if images or masks:
        notes.append(line)
    return []


def _decide_kind(
    planes: dict[str, np.ndarray], options: DataOptions, notes: list[str]
) -> masks.MaskKind:
    """One kind for the whole folder: a file with a single cell looks binary."""
    if options.mask_kind != "auto":
        return options.mask_kind
    filled = {name: plane for name, plane in planes.items() if plane.any()}
    clear = {
        n for n, p in filled.items() if masks.single_valued(p) or masks.looks_soft(p)
    }
    values = {int(filled[name].max()) for name in clear}
    # Beside full masks, one that never comes near the full value is a smear of
    # soft edges and not a picture with dozens of cells.
    full = not values.isdisjoint((255, 65535))
    faint = [n for n in filled if n not in clear and full and _is_faint(filled[n])]
    one_value = len(values) == 1 or values <= {1, 255, 65535}
    if not filled or len(clear) + len(faint) < len(filled) or not one_value:
        most = max(
            (len(np.unique(p)) - (p == 0).any() for p in filled.values()), default=0
        )
        notes.append(f"masks: read as instances, up to {most} values in a file")
        return "instances"
    if faint:
        notes.append(
            f"{len(faint)} masks stay below half of the full value, cut at half of "
            f"their own maximum: {some(faint)}"
        )
    return "binary"


def _is_faint(plane: np.ndarray) -> bool:
    return plane.dtype.kind == "u" and plane.max() < np.iinfo(plane.dtype).max / 2


def _records(
    contents: list[Content],
    options: DataOptions,
    notes: list[str],
    problems: list[str],
    keep: Keep,
) -> Records:
    """Records with the split that their folder names."""
    planes = {
        c.pair.id: c.plane
        for c in contents
        if c.plane is not None and not c.pair.per_cell
    }
    kind = _decide_kind(planes, options, notes) if planes else "instances"
    records, remarks = [], []
    for pair, picture, plane, _ in contents:
        group = _group(pair.id, options)
        if plane is None:
            empty = keep(np.zeros(picture.shape[:2], np.int32))
            record = Record(picture, empty, pair.id, group, has_labels=False)
        else:
            this = "instances" if pair.per_cell else kind
            instances = keep(masks.to_instances(plane, this))
            record = Record(picture, instances, pair.id, group, kind=this)
            if this == "instances":
                problem, more = _label_remarks(pair, plane, instances)
                remarks += [(remark, pair.id) for remark in more]
                if problem:
                    problems.append(problem.format(pair.masks[0].name))
                    continue
        records.append((record, pair.split))
    notes += _counted(remarks)
    if kind == "binary":
        notes.append(_binary_note(planes, [r for r, _ in records]))
    return records


def _label_remarks(
    pair: Pair, plane: np.ndarray, instances: np.ndarray
) -> tuple[str, list[str]]:
    """What is odd about a label image: a reason to refuse it, and remarks."""
    count = int(instances.max(initial=0))
    if pair.per_cell:
        hidden = len(pair.masks) > count
        return "", ["masks of cells that are empty or hidden by others"] * hidden
    remarks = []
    if int(plane.max(initial=0)) != count:
        remarks.append("labels with gaps, relabelled 1..N,")
    if plane.dtype == np.uint8 and plane.max() == 255:
        remarks.append("labels up to 255 in 8 bits (higher ones may have wrapped)")
    pieces = masks.count_pieces(instances)
    if count >= 20 and pieces > 5 * count:
        text = f"{{}}: {count} values in {pieces} pieces; a picture rather than a mask?"
        return text, []
    if pieces > count:
        remarks.append("labels in several pieces, each kept as one cell,")
    return "", remarks


def _binary_note(planes: dict[str, np.ndarray], records: list[Record]) -> str:
    values = sorted({int(p.max()) for p in planes.values() if p.any()})
    per_image = np.mean([r.instances.max(initial=0) for r in records if r.has_labels])
    return (
        f"masks hold 0 and {some(values)}: read as binary; cells found by connected "
        f"components, {per_image:.1f} per image; touching cells are merged; for "
        "separate cells save labels 1..N"
    )


def _group(name: str, options: DataOptions) -> str:
    if not options.group:
        return name
    try:
        match = re.search(options.group, name)
    except re.error as error:
        raise UserError(f"data_options.group: {options.group!r}: {error}") from error
    return match.group(0) if match else name


def _judge(records: list[Record], notes: list[str]) -> list[str]:
    """Notes about contents, and what no leaving out of files can mend."""
    fatal = []
    channels = Counter(r.image.shape[-1] for r in records)
    if len(channels) > 1:
        table = some(f"{n} images with {c}" for c, n in sorted(channels.items()))
        fatal.append(f"channel numbers differ: {table}; choose one with --channel N")
    dtypes = Counter(str(r.image.dtype) for r in records)
    if len(dtypes) > 1:
        told = " and ".join(f"{d} ({n} files)" for d, n in dtypes.most_common())
        notes.append(f"mixed types: {told}")
    constant = [r.id for r in records if r.image.min() == r.image.max()]
    if constant:
        notes.append(
            f"{len(constant)} constant images, skipped in training: {some(constant)}"
        )
    shares = {r.id: float((r.instances > 0).mean()) for r in records if r.has_labels}
    empty = [name for name, share in shares.items() if share == 0]
    if len(empty) == len(shares):
        fatal.append("every mask is empty: nothing to learn")
    elif empty:
        notes.append(f"{len(empty)} images without cells: {some(empty)}")
    full = [name for name, share in shares.items() if share > 0.5]
    if full:
        notes.append(
            f"more than 50 % foreground in {len(full)} images, inverted? {some(full)}"
        )
    return fatal
