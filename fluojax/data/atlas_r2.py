"""ATLAS R2.0: T1-weighted MRI of the head with lesions of strokes, in 3-D.

Its terms forbid passing it on: users register and fetch it themselves. Subjects
are the groups; 80 of 100 train, the others validate. The published test part has
no masks and is the split "unlabelled".
"""

import re
from pathlib import Path

import numpy as np

from fluojax.data import masks
from fluojax.data.published import (
    UNLABELLED,
    Config,
    Entry,
    Published,
    Report,
    held_out,
    unlabelled,
)
from fluojax.data.read import UnreadableFile
from fluojax.data.record import Record
from fluojax.errors import UserError

VAL_SHARE = 0.20
FLAT = ("Images", "Masks")
_IMAGE = re.compile(r"_T1w\.nii(\.gz)?$", re.IGNORECASE)
_MASK = re.compile(r"T1lesion_mask\.nii(\.gz)?$", re.IGNORECASE)
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_SESSION = re.compile(r"ses-[A-Za-z0-9]+")


def find_records(root: Path, config: str, report: Report) -> list[Entry]:
    """Volumes of `Training` (or the flat `Images`) and, without masks, `Testing`."""
    flat = not (root / "Training").is_dir()
    top = root if flat else root / "Training"
    images = _by_scan(top, _IMAGE)
    labels = _by_scan(top, _MASK)
    for scan in sorted(images.keys() - labels.keys()):
        report.leave_out(images[scan], root, "no mask of this subject and session")
    for scan in sorted(labels.keys() - images.keys()):
        report.leave_out(labels[scan], root, "no image of this subject and session")
    scans = [scan for scan in images if scan in labels]
    val = held_out({subject for subject, _ in scans}, VAL_SHARE)
    report.notes.append(f"validation: {len(val)} subjects by a hash of their names")
    entries = []
    for subject, session in scans:
        split = "val" if subject in val else "train"
        image, mask = images[subject, session], labels[subject, session]
        entries.append(_entry(root, image, (mask,), split, subject, config))
    for (subject, _), image in _by_scan(root / "Testing", _IMAGE).items():
        entries.append(_entry(root, image, (), UNLABELLED, subject, config))
    return entries


def _by_scan(folder: Path, ending: re.Pattern) -> dict[tuple[str, str], Path]:
    """Files by subject and session, in the order of their paths.

    Raises:
      UserError: two files of one scan.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*"), key=lambda p: p.as_posix()):
        subject = _SUBJECT.search(path.name)
        if path.name.startswith(".") or not ending.search(path.name) or not subject:
            continue
        session = _SESSION.search(path.name)
        scan = subject.group(), session.group() if session else ""
        if scan in found:
            raise UserError(
                f"{folder}: {found[scan].name} and {path.name} are the same scan twice; "
                "keep one of each"
            )
        found[scan] = path
    return found


def _entry(root, image: Path, labels, split: str, subject: str, config: str) -> Entry:
    id = re.sub(r"\.nii(\.gz)?$", "", image.relative_to(root).as_posix())
    return Entry(root, image, labels, id, split, subject, config)


def read_record(entry: Entry, report: Report) -> Record:
    """`[D, H, W, 1]` float32 and the 26-connected components of the lesions.

    Raises:
      UnreadableFile: a file is damaged, or image and mask do not lie on each other.
    """
    volume, affine, spacing = read_volume(entry.image)
    picture = volume.astype(np.float32)[..., None]
    if not np.isfinite(picture).all():
        raise UnreadableFile(f"{entry.image}: NaN or infinite voxels")
    if not entry.masks:
        return unlabelled(entry, picture, spacing)
    (path,) = entry.masks
    mask, other, _ = read_volume(path)
    masks.refuse_other_size(entry.image, path, picture, mask)
    if not np.allclose(affine, other, atol=1e-3):
        raise UnreadableFile(
            f"{path}: lies elsewhere in space than {entry.image.name} (affines differ)"
        )
    instances = masks.to_instances(np.rint(mask), "binary")
    return Record(
        picture, instances, entry.id, entry.group, kind="binary", spacing=spacing
    )


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """A NIfTI file as `[Z, Y, X]`, its affine, and millimetres per voxel alike.

    Raises:
      UnreadableFile: damaged, or no volume.
    """
    try:
        import nibabel
    except ImportError as error:
        raise UnreadableFile(
            f'{path}: NIfTI needs nibabel: pip install "fluojax[train]"'
        ) from error
    try:
        image = nibabel.load(path)
        volume = np.asarray(image.dataobj)
        spacing = image.header.get_zooms()
    except Exception as error:  # nibabel and gzip raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableFile(f"{path}: damaged NIfTI: {reason}") from error
    if volume.ndim != 3 or volume.dtype.kind not in "buif":
        raise UnreadableFile(
            f"{path}: shape {volume.shape} of {volume.dtype}; one volume is needed"
        )
    return volume.T, image.affine, tuple(float(s) for s in spacing[::-1])


PUBLISHED = Published(
    name="atlas_r2",
    title="ATLAS R2.0: lesions of strokes in T1-weighted MRI",
    configs={
        "full": Config(1, (("Training",), FLAT), {"train + val": 655, UNLABELLED: 300})
    },
    find_records=find_records,
    read_record=read_record,
    dtype="float32",
    scaling="percentile",
    reference="components",
    folders=("ATLAS_2",),
    where=(
        "https://fcon_1000.projects.nitrc.org/indi/retro/atlas.html (or ICPSR 36684), "
        "after registration"
    ),
    files="the archive of release 2.0, encrypted; the password comes by mail",
    tree="""
DIR/ATLAS_2/Training/R001/sub-r001s001/ses-1/anat/
    sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz
    sub-r001s001_ses-1_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask.nii.gz
DIR/ATLAS_2/Testing/R005/...               (optional, without masks)
     or flat: DIR/Images/*_T1w.nii.gz and DIR/Masks/*_T1lesion_mask.nii.gz
""",
    licence=(
        "by the terms of the INDI page, not to be passed on; Liew et al., Scientific "
        "Data 9, 320 (2022), doi 10.1038/s41597-022-01401-7"
    ),
    rank=3,
)
