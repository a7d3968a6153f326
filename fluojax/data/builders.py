"""tfds builders; needs tensorflow-datasets and array_record, not TensorFlow.

Every builder writes the record of `record.py` with zlib-coded tensors into
array_record files; `prepare` builds on first use and reads them back, `load` does
so by name.
"""

import contextlib
import fcntl
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import fnc_synth, lesion3d_synth, manual
from fluojax.data.cache import Keep, cached, in_memory, kept
from fluojax.data.folder import read_folder
from fluojax.data.pairing import Found, find_pairs, folder_fingerprint
from fluojax.data.pipeline import common_dtype
from fluojax.data.published import UNLABELLED, Published
from fluojax.data.published_sets import SETS, as_dataset, config_of
from fluojax.data.record import Dataset, Record
from fluojax.data.storage.builders import PUBLISHED_BUILDERS
from fluojax.data.storage.records import (
    ArrayRecordBuilder,
    features,
    tfds,
    to_example,
    to_record,
)
from fluojax.errors import UserError, nearest


class FncSynth(ArrayRecordBuilder):
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
        options = fnc_synth.OPTIONS.get(self.builder_config.name, {})
        for record in fnc_synth.records(split, count, **options):
            yield record.id, to_example(record, np.uint8)


class Lesion3dSynth(ArrayRecordBuilder):
    """Generated heads with lesions; see `fluojax.data.lesions`."""

    name = "lesion3d_synth"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name) for name in lesion3d_synth.CONFIGS
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Generated heads with lesions of very unequal size, in 3-D.",
            features=features(np.uint8, 1, rank=3),
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        counts = lesion3d_synth.CONFIGS[self.builder_config.name].counts
        return {split: self._generate_examples(split) for split in counts}

    def _generate_examples(self, split: str) -> Iterator:
        config = lesion3d_synth.CONFIGS[self.builder_config.name]
        for record in lesion3d_synth.records(split, config):
            yield record.id, to_example(record, np.uint8)


class Folder(ArrayRecordBuilder):
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


BUILDERS = {cls.name: cls for cls in (FncSynth, Lesion3dSynth, *PUBLISHED_BUILDERS)}


def prepare(
    builder: tfds.core.DatasetBuilder,
    *,
    manual_dir: Path | None = None,
    leave: tuple[str, ...] = (),
) -> dict[str, list[Record]]:
    """Builds on first use and reads every split; see `read`."""
    build(builder, manual_dir)
    return read(builder, leave=leave)


def build(builder: tfds.core.DatasetBuilder, manual_dir: Path | None = None) -> None:
    """Builds on first use."""
    download = tfds.download.DownloadConfig(manual_dir=manual_dir)
    with _alone(Path(builder.data_path).parent):
        if Path(builder.data_path).exists():
            # Perhaps another process has built it while this one waited.
            builder.info.read_from_directory(builder.data_path)
        # tfds prints that it downloads something of unknown size.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=download)


def read(
    builder: tfds.core.DatasetBuilder,
    *,
    leave: tuple[str, ...] = (),
    keep: Keep = in_memory,
) -> dict[str, list[Record]]:
    """Every split of a built data set but those to `leave`, in the order of the ids.

    "train", "val" and "test" are always there, if need be empty. Arrays pass
    through `keep`.
    """
    splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
    for split in builder.info.splits.keys() - set(leave):
        source = builder.as_data_source(split=split)
        found = [kept(to_record(source[i]), keep) for i in range(len(source))]
        splits[split] = sorted(found, key=lambda record: record.id)
    return splits


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other processes of this machine wait until the first one has built.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}; name another place for what tfds builds: "
            "TFDS_DATA_DIR=DIR fluojax ..."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
) -> Dataset:
    """`NAME` or `NAME/CONFIG` of our builders as a `Dataset`.

    Args:
      name: of a builder, and a configuration if not the first one.
      data_dir: where tfds keeps what it builds; None for its default.
      manual_dir: where the files of a published data set are; None for the
        default of tfds.

    Raises:
      UserError: unknown name or configuration, or files that are not there.
    """
    base, _, config = name.partition("/")
    if base not in BUILDERS:
        raise UserError(
            f"data: tfds:{base} is unknown{nearest(base, BUILDERS)}; known are "
            + ", ".join(f"tfds:{known}" for known in sorted(BUILDERS))
        )
    if base in SETS:
        return _load_published(SETS[base], config, data_dir, manual_dir)
    try:
        builder = BUILDERS[base](config=config or "full", data_dir=data_dir)
    except ValueError as error:
        known = [c.name for c in BUILDERS[base].BUILDER_CONFIGS]
        raise UserError(
            f"data: tfds:{name}: configurations are {', '.join(known)}"
        ) from error
    build(builder)
    reference = "instances"
    if base == FncSynth.name:
        reference = fnc_synth.reference(builder.builder_config.name)

    def dataset(keep: Keep) -> Dataset:
        splits = read(builder, keep=keep)
        return Dataset(base, splits, scaling="fixed", reference=reference)

    return cached(_key(builder), dataset, still=lambda: True)


def _key(builder: tfds.core.DatasetBuilder) -> str:
    """Names what was built: its place, and the time of it."""
    place = Path(builder.data_path)
    stamp = f"{place}|{(place / 'dataset_info.json').stat().st_mtime_ns}"
    digest = hashlib.sha256(stamp.encode("utf-8")).hexdigest()[:12]
    return f"tfds-{builder.name}-{builder.builder_config.name}-{digest}"


def _load_published(published: Published, config: str, data_dir, manual_dir) -> Dataset:
    config = config_of(published, config)
    root = manual.find_root(published, config, manual_dir)
    # tfds reuses what it has built of a name, also when the files are others now.
    home = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    home = home / "fluojax" / manual.fingerprint(root)
    builder = BUILDERS[published.name](config=config, data_dir=home)
    build(builder, root)
    images = {name: info.num_examples for name, info in builder.info.splits.items()}
    lines, objects = (builder.info.metadata[k] for k in ("lines", "objects"))

    def dataset(keep: Keep) -> Dataset:
        splits = read(builder, leave=(UNLABELLED,), keep=keep)
        return as_dataset(published, config, splits, images, lines, objects)

    return cached(_key(builder), dataset, still=lambda: True)
