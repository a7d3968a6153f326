"""Tiny copies of the layouts in which data sets are published, with their quirks.

Each writer takes a folder and five small records and returns the folder that a
user would name.
"""

import pickle
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from fluojax.data.record import Record

SIZE = (48, 64)
# Two of the authors' test images, one of them of an animal that is also trained on.
FNC_V1 = (
    "39_y",
    "Mar19bS1C1R2_VLPAGr_200x_y",
    "Mar19bS1C2R1_LHl_200x_y",
    "Mar24bS2C1R1_DMl_200x_y",
    "Mar99bS1C1R1_DMl_200x_y",
)
TABLE = (
    "Image_Name;Diagnosis;Train-/Testset split;Mean BG signal",
    "Neuroblastoma_0;Neuroblastoma;train;2,5",
    "Neuroblastoma_1;Neuroblastoma;train;9,1",
    "Normal_0.tif;Normal;Test;11",
    "Normal_7;Normal;test;3,5",
)


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return Path.mkdir, (self.place,)


def save(path: Path, array: np.ndarray, kind: str = "") -> Path:
    """An array as PNG or TIFF, whatever the name says if `kind` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (kind or path.suffix) in (".tif", "tiff"):
        tifffile.imwrite(path, array)
    elif kind == "lzw":
        tifffile.imwrite(path, array, compression="lzw")
    else:
        Image.fromarray(array).save(path, "PNG")
    return path


def full(record: Record, value: int, dtype=np.uint8) -> np.ndarray:
    return np.where(record.instances > 0, value, 0).astype(dtype)


def fnc_v1(root: Path, records: list[Record]) -> Path:
    """Masks of 16 and 8 bits, soft, empty; a TIFF with the name of a PNG."""
    soft = full(records[2], 255)
    soft[0, :3] = (10, 100, 127)
    written = (
        full(records[0], 65535, np.uint16),
        full(records[1], 255),
        soft,
        np.zeros(SIZE, np.uint16),
        full(records[4], 65535, np.uint16),
    )
    for name, record, mask in zip(FNC_V1, records, written, strict=True):
        kind = "tiff" if name == "39_y" else ""
        save(root / f"all_images/images/{name}.png", record.image, kind)
        save(root / f"all_masks/masks/{name}.png", mask, kind)
    (root / "all_images/images/.DS_Store").write_text("x")
    (root / "all_images/images/Thumbs.db").write_text("x")
    return root


def fnc_v2(root: Path, records: list[Record]) -> Path:
    """Three collections; green has a mask too many, red has two sizes."""
    plan = {
        "yellow/trainval": (0, 1, 2),
        "yellow/test": (3,),
        "green/trainval": (0,),
        "green/test": (1,),
        "red/trainval": (2,),
        "red/test": (4,),
    }
    for part, numbers in plan.items():
        for number in numbers:
            image, mask = records[number].image, full(records[number], 255)
            if part == "red/test":
                image, mask = (np.repeat(a, 2, axis=0) for a in (image, mask))
            save(root / part / f"images/{number}.png", image)
            save(root / part / f"ground_truths/masks/{number}.png", mask)
            rle = root / part / f"ground_truths/rle/{number}.pickle"
            rle.parent.mkdir(exist_ok=True)
            rle.write_bytes(pickle.dumps(Bomb(root / "exploded")))
    save(root / "green/trainval/ground_truths/masks/128.png", full(records[3], 255))
    save(root / "yellow/unlabelled/images/400.png", records[4].image)
    return root


def sbsst265(root: Path, records: list[Record]) -> Path:
    """Grey, RGB and LZW; labels of 8 and 16 bits, above 255, one picture unknown."""
    folder = root / "dataset"
    grey = [record.image[..., 0] for record in records]
    labels = [record.instances for record in records]
    high = np.where(labels[1] > 0, labels[1] + 300, 0).astype(np.uint16)
    plan = (
        ("Neuroblastoma_0", grey[0], labels[0].astype(np.uint8), ""),
        ("Neuroblastoma_1", np.stack([grey[1]] * 3, -1), high, ""),
        ("Normal_0", grey[2], labels[2].astype(np.uint16), "lzw"),
        ("Stranger_0", grey[3], labels[3].astype(np.uint16), ""),
    )
    for name, image, mask, kind in plan:
        save(folder / f"rawimages/{name}.tif", image, kind)
        save(folder / f"groundtruth/{name}.tif", mask, kind)
    (folder / "groundtruth_svgs").mkdir()
    (folder / "image_description.csv").write_text("\n".join(TABLE))
    return root


def rgba(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3 + [np.full_like(grey, 255)], axis=-1)


def runs(mask: np.ndarray) -> str:
    """`start length ...` by columns and from 1."""
    flat = np.pad(mask.T.ravel().astype(np.int8), 1)
    starts = np.flatnonzero(np.diff(flat) == 1) + 1
    stops = np.flatnonzero(np.diff(flat) == -1) + 1
    return " ".join(f"{a} {b - a}" for a, b in zip(starts, stops, strict=True))


def dsb2018(root: Path, records: list[Record], table: bool = True) -> Path:
    """Two bright pictures, one stained, one with dark nuclei, one without masks."""
    grey = [
        record.image[..., 0] // 2 + 60 * (record.instances > 0) for record in records
    ]
    stained = np.stack([255 - grey[2], grey[2], 255 - grey[2]], axis=-1)
    pictures = {
        "aa": rgba(grey[0].astype(np.uint8)),
        "bb": rgba(grey[1].astype(np.uint8)),
        "cc": np.dstack([stained, np.full(SIZE, 255)]).astype(np.uint8),
        "dd": rgba((255 - grey[3]).astype(np.uint8)),
    }
    rows = ["ImageId,EncodedPixels"]
    for (name, picture), record in zip(pictures.items(), records, strict=False):
        folder = root / "stage1_train" / name
        save(folder / f"images/{name}.png", picture)
        for cell in range(1, int(record.instances.max()) + 1):
            mask = record.instances == cell  # the names of files run backwards
            save(
                folder / f"masks/{9 - cell}.png",
                np.where(mask, 255, 0).astype(np.uint8),
            )
            rows.append(f"{name},{runs(mask)}")
    save(root / "stage1_test/ee/images/ee.png", rgba(grey[4].astype(np.uint8)))
    if table:
        (root / "stage1_train_labels.csv").write_text("\n".join(rows))
    return root


def bbbc039(root: Path, records: list[Record]) -> Path:
    """12 bits in 16; the red channel of a mask uses a value again."""
    lists = {"training": (0, 1), "validation": (2,), "test": (3,)}
    for name, numbers in lists.items():
        text = "".join(f"IXM_{number}.png\n" for number in numbers)
        (root / "metadata").mkdir(parents=True, exist_ok=True)
        (root / f"metadata/{name}.txt").write_text(text)
    for number, record in enumerate(records[:4]):
        image = record.image[..., 0].astype(np.uint16) * 16
        save(root / f"images/IXM_{number}.tif", image)
        save(root / f"masks/IXM_{number}.png", reused_values())
    return root


def reused_values() -> np.ndarray:
    """Four nuclei with two values: two touch, two others lie apart."""
    red = np.zeros(SIZE, np.uint8)
    red[4:12, 4:12], red[4:12, 12:20] = 1, 2
    red[30:40, 4:12], red[30:40, 40:50] = 1, 2
    green = np.where(red > 0, 7, 0).astype(np.uint8)
    return np.dstack([red, green, 0 * red, np.full_like(red, 255)])


SCAN = "{subject}_ses-1_space-MNI152NLin2009aSym_{end}.nii.gz"


def volume(path: Path, array: np.ndarray, shift: float = 0.0) -> Path:
    """An `[X, Y, Z]` array as NIfTI with voxels of 1 x 1 x 2 mm."""
    import nibabel

    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = shift
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def atlas_r2(root: Path, records: list[Record]) -> Path:
    """Three subjects of two sites, one without lesion, and one of the test part."""
    rng = np.random.default_rng(0)
    plan = {"sub-r001s001": 2, "sub-r001s002": 1, "sub-r004s001": 0}
    for subject, lesions in plan.items():
        folder = root / f"ATLAS_2/Training/R{subject[5:8]}/{subject}/ses-1/anat"
        mask = np.zeros((9, 10, 12), np.float32)
        for lesion in range(lesions):
            mask[2 * lesion + 1, 1:4, 5 * lesion : 5 * lesion + 2] = 1
        scan = SCAN.format(subject=subject, end="T1w")
        volume(folder / scan, rng.random(mask.shape).astype(np.float32))
        label = SCAN.format(subject=subject, end="label-L_desc-T1lesion_mask")
        volume(folder / label, mask)
    folder = root / "ATLAS_2/Testing/R005/sub-r005s001/ses-1/anat"
    scan = SCAN.format(subject="sub-r005s001", end="T1w")
    volume(folder / scan, rng.random((9, 10, 12)).astype(np.float32))
    (root / "ATLAS_2/20211112_ATLAS_2.0_SupplementaryInfo.csv").write_text("x")
    return root


WRITERS = {
    "fnc_v1": fnc_v1,
    "fnc_v2": fnc_v2,
    "sbsst265": sbsst265,
    "dsb2018": dsb2018,
    "bbbc039": bbbc039,
    "atlas_r2": atlas_r2,
}
