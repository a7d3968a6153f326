"""Train, validation and test: as folders say, else by a hash of the group."""

import hashlib

from fluojax.data import masks
from fluojax.data.record import Record

VAL_SHARE = 0.15


def hash_share(group: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the name alone."""
    digest = hashlib.sha256((salt + group).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_records(
    records: list[Record], given: list[str | None], notes: list[str]
) -> dict[str, list[Record]]:
    """Train, val and test: as the folders say, validation by a hash of the group.

    Images without labels are never held out for validation by the hash.
    """
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for record, split in zip(records, given, strict=True):
        splits[split or "train"].append(record)
    if not splits["train"] and (splits["val"] or splits["test"]):
        notes.append("no training images: only val or test folders were found")
        return splits
    if not splits["val"]:
        labelled = [r for r in splits["train"] if r.has_labels]
        rest = [r for r in splits["train"] if not r.has_labels]
        if labelled:
            train, splits["val"] = _held_out(labelled, notes)
            splits["train"] = train + rest
    return splits


def _held_out(
    records: list[Record], notes: list[str]
) -> tuple[list[Record], list[Record]]:
    shares = {r.group: hash_share(r.group) for r in records}
    if len(shares) == 1:
        notes.append(
            "one image or group: cut into strips, the last fifth is validation; "
            "scores on it are optimistic"
        )
        strips = [_strips(r) for r in records]
        return [s[0] for s in strips], [s[1] for s in strips]
    val = {group for group, share in shares.items() if share < VAL_SHARE}
    if not val or len(val) == len(shares):
        val = {min(shares, key=shares.get)}
    notes.append(
        f"validation: {len(val)} of {len(shares)} groups by a hash of their names; "
        "tiles of one field in both parts would leak: name them with "
        "--group REGEX"
    )
    train = [r for r in records if r.group not in val]
    return train, [r for r in records if r.group in val]


def _strips(record: Record) -> tuple[Record, Record]:
    rows = record.image.shape[0]
    cut = max(1, min(rows - 1, round(rows * 0.8))) if rows > 1 else rows
    parts = []
    for name, window in (("top", slice(0, cut)), ("bottom", slice(cut, None))):
        if rows == 1:
            window = slice(None)
        # A component that the cut leaves in two pieces counts as two.
        plane = record.instances[window]
        plane = plane > 0 if record.kind == "binary" else plane
        parts.append(
            Record(
                record.image[window],
                masks.to_instances(plane, record.kind),
                f"{record.id}#{name}",
                record.group,
                record.has_labels,
                record.kind,
                record.spacing,
            )
        )
    return parts[0], parts[1]
