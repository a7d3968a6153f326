"""`fnc_synth`: generated images like those of Fluorescent Neuronal Cells.

Object scores on it count against connected components of the mask, as they do
on the real collection: some cells touch, and a perfect mask would reach only
F1 0.89 against the instances. Where half of the cells touch another one
(`fnc_synth/crowded`) they count against the instances.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from fluojax.data import blobs
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError, nearest

# Images per split of each size of the data set.
CONFIGS = {
    "full": {"train": 200, "val": 40, "test": 60},
    "demo": {"train": 64, "val": 16, "test": 20},
    "smoke": {"train": 8, "val": 4, "test": 4},
    "crowded": {"train": 200, "val": 40, "test": 60},
}
# Of `blobs.sample`, where a configuration differs in more than its size.
OPTIONS: dict[str, dict[str, Any]] = {"crowded": {"touching": 0.5, "density": 3.0}}


def record(seed: int, split: str, **options) -> Record:
    """One generated image; `options` are those of `blobs.sample`."""
    sample = blobs.sample(seed, **options)
    name = f"{split}/{seed:06d}"
    return Record(sample.image, sample.instances, name, name)


def records(split: str, count: int, **options) -> list[Record]:
    """The first `count` images of a split; splits never share a seed."""
    seeds: Iterable[int] = list(blobs.SPLITS[split])[:count]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda seed: record(seed, split, **options), seeds))


def reference(config: str) -> Literal["components", "instances"]:
    """What object scores count against."""
    return "instances" if config == "crowded" else "components"


def dataset(config: str = "full", **options) -> Dataset:
    """The generated data set in one of its configurations.

    Raises:
      UserError: unknown configuration.
    """
    if config not in CONFIGS:
        raise UserError(
            f"data: fnc_synth/{config} is unknown{nearest(config, CONFIGS)}; known are "
            + ", ".join(f"fnc_synth/{name}" for name in CONFIGS)
        )
    options = OPTIONS.get(config, {}) | options
    splits = {
        split: records(split, count, **options)
        for split, count in CONFIGS[config].items()
    }
    return Dataset("fnc_synth", splits, scaling="fixed", reference=reference(config))
