"""Records as tfds stores them, in array_record files and without TensorFlow."""

import importlib.util

import numpy as np

from fluojax.data.record import Record
from fluojax.errors import UserError

if importlib.util.find_spec("tensorflow_datasets") is None:
    raise UserError(
        'tfds data need tensorflow-datasets: pip install "fluojax[train]"; without it '
        "use --data fnc_synth or --data FOLDER"
    )

import tensorflow_datasets as tfds  # noqa: E402


def features(
    dtype: np.dtype, channels: int, rank: int = 2
) -> tfds.features.FeaturesDict:
    """The record as tfds features, for images of one type and spatial rank."""
    spatial = (None,) * rank
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(
                shape=(*spatial, channels), dtype=np.dtype(dtype), encoding="zlib"
            ),
            "instances": tfds.features.Tensor(
                shape=spatial, dtype=np.int32, encoding="zlib"
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


class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Array records by default: the tfds default needs TensorFlow."""

    def __init__(self, *, file_format: str = "array_record", **kwargs):
        super().__init__(file_format=file_format, **kwargs)
