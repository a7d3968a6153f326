"""`lesion3d_synth`: generated heads with lesions, in 3-D.

Object scores on it count against the lesions given, between which a voxel is
always free.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fluojax.data import lesions
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError, nearest


class Config(NamedTuple):
    """Volumes per split, their voxels, and the side of a voxel."""

    counts: dict[str, int]
    size: tuple[int, int, int]
    spacing_mm: float


CONFIGS = {
    "full": Config({"train": 200, "val": 40, "test": 60}, (96, 112, 96), 1.0),
    "demo": Config({"train": 64, "val": 16, "test": 20}, (48, 56, 48), 2.0),
    "smoke": Config({"train": 8, "val": 4, "test": 4}, (32, 36, 32), 3.0),
}


def record(seed: int, split: str, config: Config) -> Record:
    """One generated volume."""
    drawn = lesions.sample(seed, size=config.size, spacing_mm=config.spacing_mm)
    name = f"{split}/{seed:06d}"
    spacing = (config.spacing_mm,) * 3
    return Record(drawn.image, drawn.instances, name, name, spacing=spacing)


def records(split: str, config: Config) -> list[Record]:
    """The volumes of a split; splits never share a seed."""
    seeds = lesions.SPLITS[split][: config.counts[split]]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda seed: record(seed, split, config), seeds))


def dataset(config: str = "full") -> Dataset:
    """The generated data set in one of its sizes.

    Raises:
      UserError: unknown size.
    """
    if config not in CONFIGS:
        raise UserError(
            f"data: lesion3d_synth/{config} is unknown{nearest(config, CONFIGS)}; "
            "known are " + ", ".join(f"lesion3d_synth/{name}" for name in CONFIGS)
        )
    chosen = CONFIGS[config]
    splits = {split: records(split, chosen) for split in chosen.counts}
    return Dataset("lesion3d_synth", splits, scaling="fixed", reference="instances")
