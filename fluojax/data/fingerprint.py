"""What a data set looks like in numbers, and the settings that follow."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fluojax.data.record import Dataset, Record


@dataclass(frozen=True)
class Fingerprint:
    """Counts, ranges and suggestions; lengths in pixels, shares in [0, 1]."""

    images: dict[str, int]
    sizes: dict[str, int]
    dtypes: dict[str, int]
    channels: int
    intensity: tuple[float, float, float]  # 1st, 50th, 99.8th percentile (median)
    cells: int
    cells_per_image: tuple[float, int]  # median, maximum
    foreground: tuple[float, float, float]  # mean, lowest, highest
    images_without_cells: int
    cell_area: float  # median
    cell_diameter: float  # median equivalent diameter
    touching: float  # share of cells that touch another one
    crop: int
    batch_size: int
    moment_scales: tuple[float, ...]
    pos_weight: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The fingerprint as text, one fact a line."""
        low, middle, high = self.intensity
        images = ", ".join(f"{n} {split}" for split, n in self.images.items() if n)
        sizes = ", ".join(f"{n} x {size}" for size, n in list(self.sizes.items())[:5])
        more = len(self.sizes) - 5
        return [
            f"images      {images}",
            f"sizes       {sizes}" + (f" and {more} more" if more > 0 else ""),
            f"type        {', '.join(self.dtypes)}, {self.channels} channel(s), "
            f"1/50/99.8 % = {low:g}/{middle:g}/{high:g}",
            f"cells       {self.cells} in all, median {self.cells_per_image[0]:g} and at "
            f"most {self.cells_per_image[1]} per image, "
            f"{self.images_without_cells} images without any",
            f"foreground  {self.foreground[0]:.2%} "
            f"({self.foreground[1]:.2%} to {self.foreground[2]:.2%})",
            f"cell        area {self.cell_area:.0f} px, "
            f"diameter {self.cell_diameter:.1f} px, {self.touching:.0%} touching",
            f"suggested   crop {self.crop}, batch {self.batch_size}, moment scales "
            f"{', '.join(f'{s:g}' for s in self.moment_scales)}, "
            f"pos_weight {self.pos_weight:.1f}",
        ]


def fingerprint(dataset: Dataset) -> Fingerprint:
    """Measures all labelled records.

    The suggestions follow from the training records where there are any, so that
    they are those with which training fills empty fields.
    """
    records = [r for part in dataset.splits.values() for r in part]
    labelled = [r for r in records if r.has_labels] or records
    areas = np.concatenate([cell_areas(r.instances) for r in labelled])
    counts = [int(r.instances.max(initial=0)) for r in labelled]
    shares = np.array([float((r.instances > 0).mean()) for r in labelled])
    touching = sum(touching_cells(r.instances) for r in labelled)
    area = float(np.median(areas)) if areas.size else 0.0
    rank = records[0].instances.ndim
    diameter = equivalent_diameter(area, rank)
    training = [r for r in dataset.splits.get("train", []) if r.has_labels]
    typical = median_diameter(training or labelled)
    crop = suggest_crop(typical, rank)
    mean_share = float(shares.mean())
    return Fingerprint(
        images={name: len(part) for name, part in dataset.splits.items()},
        sizes=image_sizes(records),
        dtypes=_counted(str(r.image.dtype) for r in records),
        channels=records[0].image.shape[-1],
        intensity=intensity_range(records),
        cells=sum(counts),
        cells_per_image=(float(np.median(counts)), max(counts)),
        foreground=(mean_share, float(shares.min()), float(shares.max())),
        images_without_cells=sum(n == 0 for n in counts),
        cell_area=area,
        cell_diameter=diameter,
        touching=touching / max(sum(counts), 1),
        crop=crop,
        batch_size=suggest_batch(crop, rank),
        moment_scales=tuple(round(max(typical / k, 1.0), 1) for k in (16, 8, 4)),
        pos_weight=suggest_pos_weight(mean_share),
    )


def intensity_range(records: list[Record]) -> tuple[float, float, float]:
    """1st, 50th and 99.8th percentile of an image, the median over the images."""
    values = [np.percentile(r.image, (1, 50, 99.8)) for r in records]
    low, middle, high = np.median(values, axis=0)
    return float(low), float(middle), float(high)


def suggest_crop(diameter: float, rank: int = 2) -> int:
    """The next multiple of 32 above six cell diameters.

    Within [64, 512]; of volumes, whose voxels grow with the cube, [32, 96].
    """
    least, most = (64, 512) if rank == 2 else (32, 96)
    return int(np.clip(32 * np.ceil(6 * diameter / 32), least, most))


def suggest_batch(crop: int, rank: int = 2) -> int:
    """2^21 pixels' worth of crops, within [4, 32], of volumes [2, 32]."""
    return int(np.clip(2**21 // crop**rank, 4 if rank == 2 else 2, 32))


def foreground_share(records: list[Record]) -> float:
    """Share of cell pixels, the mean over labelled images; 0 without any."""
    shares = [float((r.instances > 0).mean()) for r in records if r.has_labels]
    return float(np.mean(shares)) if shares else 0.0


def suggest_pos_weight(share: float) -> float:
    """Root of background over foreground, at most 100."""
    return float(min(np.sqrt((1 - share) / max(share, 1e-6)), 100))


def cell_areas(instances: np.ndarray) -> np.ndarray:
    """Pixels (voxels) of each cell 1..N."""
    return np.bincount(instances.ravel())[1:]


def median_diameter(records: list[Record]) -> float:
    """Median equivalent diameter of all cells in px, 0 without cells."""
    areas = [cell_areas(r.instances) for r in records if r.has_labels]
    areas = np.concatenate(areas) if areas else np.zeros(0)
    if not areas.size:
        return 0.0
    return equivalent_diameter(float(np.median(areas)), records[0].instances.ndim)


def equivalent_diameter(size: float, rank: int) -> float:
    """Of the disk of that area or, for rank 3, the ball of that volume."""
    return float(2 * np.sqrt(size / np.pi) if rank == 2 else np.cbrt(6 * size / np.pi))


def touching_cells(instances: np.ndarray) -> int:
    """How many cells share a face, an edge or a corner with another cell."""
    ids = set()
    steps = itertools.product((-1, 0, 1), repeat=instances.ndim)
    for step in (s for s in steps if s > (0,) * instances.ndim):
        ahead, behind = (
            tuple(
                slice(max(sign * k, 0), n + min(sign * k, 0))
                for k, n in zip(step, instances.shape, strict=True)
            )
            for sign in (1, -1)
        )
        a, b = instances[ahead], instances[behind]
        meet = (a != b) & (a > 0) & (b > 0)
        ids.update(np.unique(a[meet]).tolist())
        ids.update(np.unique(b[meet]).tolist())
    return len(ids)


def image_sizes(records: Iterable[Record]) -> dict[str, int]:
    """Images of each size, such as 512x640, the most frequent first."""
    return _counted("x".join(map(str, r.image.shape[:-1])) for r in records)


def _counted(values) -> dict[str, int]:
    return dict(Counter(values).most_common())
