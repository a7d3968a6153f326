"""tfds builders; needs tensorflow-datasets and array_record, not TensorFlow.

Every builder writes the record of `record.py` with zlib-coded tensors into
array_record files, and `read` gives it back through a random-access source.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import fnc_synth
from fluojax.data.folder import read_folder
from fluojax.data.pairing import Found, find_pairs, folder_fingerprint
from fluojax.data.pipeline import common_dtype
from fluojax.data.record import Dataset, Record
from fluojax.errors import UserError

if importlib.util.find_spec("tensorflow_datasets") is None:
    raise UserError(
        'tfds data need tensorflow-datasets: pip install "fluojax[train]"; without it '
        "use --data fnc_synth or --data FOLDER"
    )

import tensorflow_datasets as tfds  # noqa: E402


def features(dtype: np.dtype, channels: int) -> tfds.features.FeaturesDict:
    """The record as tfds features, for 2-D images of one type."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(
                shape=(None, None, channels), dtype=np.dtype(dtype), encoding="zlib"
            ),
            "instances": tfds.features.Tensor(
                shape=(None, None), dtype=np.int32, encoding="zlib"
            ),
            "id": tfds.features.Text(),
            "group": tfds.features.Text(),
            "has_labels": np.uint8,
            "kind": tfds.features.Text(),
            "spacing": tfds.features.Tensor(shape=(None,), dtype=np.float32),
        }
    )


def to_example(record: Record, dtype: np.dtype) -> dict:
    """A record as the builders store it."""
    return {
        "image": record.image.astype(dtype),
        "instances": record.instances,
        "id": record.id,
        "group": record.group,
        "has_labels": np.uint8(record.has_labels),
        "kind": record.kind,
        "spacing": np.asarray(record.spacing, np.float32),
    }


def to_record(example: dict) -> Record:
    """The inverse of `to_example`; texts come back from tfds as bytes."""
    return Record(
        image=example["image"],
        instances=example["instances"],
        id=example["id"].decode(),
        group=example["group"].decode(),
        has_labels=bool(example["has_labels"]),
        kind=example["kind"].decode(),
        spacing=tuple(float(s) for s in example["spacing"]),
    )


class _ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Array records by default: the tfds default needs TensorFlow."""

    def __init__(self, *, file_format: str = "array_record", **kwargs):
        super().__init__(file_format=file_format, **kwargs)


class FncSynth(_ArrayRecordBuilder):
    """Generated fluorescence images; see `fluojax.data.blobs`."""

    name = "fnc_synth"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in fnc_synth.CONFIGS]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Generated images like Fluorescent Neuronal Cells (yellow).",
            features=features(np.uint8, 3),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        counts = fnc_synth.CONFIGS[self.builder_config.name]
        return {split: self._generate_examples(split, n) for split, n in counts.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator:
        for record in fnc_synth.records(split, count):
            yield record.id, to_example(record, np.uint8)


class Folder(_ArrayRecordBuilder):
    """A user's folder, named by a fingerprint of its files and options.

    tfds reuses old records of the same name even if the files have changed;
    the fingerprint in the configuration name makes a changed folder a new one.
    """

    name = "fluojax_folder"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def __init__(self, *, root: str, options: DataOptions = DEFAULT, **kwargs):
        found: Found = find_pairs(root, options)
        self._dataset, _ = read_folder(root, options)
        records = [r for part in self._dataset.splits.values() for r in part]
        self._dtype = common_dtype(records)
        self._channels = records[0].image.shape[-1]
        config = tfds.core.BuilderConfig(name=folder_fingerprint(found, options))
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Images and masks of the folder {self._dataset.name}.",
            features=features(self._dtype, self._channels),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            split: self._generate_examples(records)
            for split, records in self._dataset.splits.items()
            if records
        }

    def _generate_examples(self, records: list[Record]) -> Iterator:
        for record in records:
            yield record.id, to_example(record, self._dtype)


BUILDERS = {"fnc_synth": FncSynth}


def prepare(builder: tfds.core.DatasetBuilder) -> dict[str, list[Record]]:
    """Builds on first use and reads every split, in the order of the ids.

    "train", "val" and "test" are always there, if need be empty.
    """
    builder.download_and_prepare()
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for split in builder.info.splits:
        source = builder.as_data_source(split=split)
        found = [to_record(source[i]) for i in range(len(source))]
        splits[split] = sorted(found, key=lambda record: record.id)
    return splits


def load(name: str, *, data_dir: str | Path | None = None) -> Dataset:
    """`NAME` or `NAME/CONFIG` of our builders as a `Dataset`.

    Raises:
      UserError: unknown name or configuration.
    """
    base, _, config = name.partition("/")
    if base not in BUILDERS:
        raise UserError(
            f"data: tfds:{base} is unknown; known are "
            + ", ".join(f"tfds:{known}" for known in sorted(BUILDERS))
        )
    try:
        builder = BUILDERS[base](config=config or "full", data_dir=data_dir)
    except ValueError as error:
        known = [c.name for c in BUILDERS[base].BUILDER_CONFIGS]
        raise UserError(
            f"data: tfds:{name}: configurations are {', '.join(known)}"
        ) from error
    return Dataset(base, prepare(builder), scaling="fixed", reference="components")
