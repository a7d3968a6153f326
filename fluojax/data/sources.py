"""From the `data` field of an experiment to a `Dataset`."""

import importlib.util
from pathlib import Path

from fluojax.config import DEFAULT_DATA_OPTIONS as DEFAULT
from fluojax.config import DataOptions
from fluojax.data import fnc_synth, lesion3d_synth
from fluojax.data.cache import Keep, cached
from fluojax.data.contents import Progress, silent
from fluojax.data.folder import read_folder
from fluojax.data.pairing import find_pairs, folder_fingerprint
from fluojax.data.published_sets import SETS, config_of, read_published
from fluojax.data.record import Dataset
from fluojax.errors import UserError

GENERATED = {"fnc_synth": fnc_synth, "lesion3d_synth": lesion3d_synth}


def load_dataset(
    data: str,
    options: DataOptions = DEFAULT,
    *,
    data_dir: str | Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """A generated set (`fnc_synth[/CONFIG]`), `tfds:NAME[/CONFIG]`, or a folder.

    Published data sets are read from their files where tfds is not installed.

    Args:
      data: what to read.
      options: how a folder is read.
      data_dir: where the files of a published data set are; None for the default
        of tfds.
      progress: `f(done, of)`, called as the images of a folder are read.

    Raises:
      UserError: unknown name, or a folder that cannot be trained on.
    """
    name, _, config = data.partition("/")
    if name in GENERATED:
        return GENERATED[name].dataset(config or "full")
    if data.startswith("tfds:"):
        return _load_named(data.removeprefix("tfds:"), data_dir)
    if "://" in data:
        raise UserError(f"data: {data}: folders of this machine only; copy it first")
    return _load_folder(Path(data), options, progress)


def _load_folder(root: Path, options: DataOptions, progress: Progress) -> Dataset:
    """In memory, or mapped from the cache where that would be too much."""

    def key() -> str:
        found = find_pairs(root, options)
        return f"{root.resolve().name}-{folder_fingerprint(found, options)}"

    def read(keep: Keep) -> Dataset:
        return read_folder(root, options, keep=keep, progress=progress)[0]

    name = key()
    return cached(name, read, still=lambda: key() == name)


def _load_named(name: str, manual_dir: str | Path | None) -> Dataset:
    base, _, config = name.partition("/")
    if base in SETS and importlib.util.find_spec("tensorflow_datasets") is None:
        return read_published(SETS[base], config_of(SETS[base], config), manual_dir)
    from fluojax.data import builders

    return builders.load(name, manual_dir=manual_dir)


def is_named(data: str) -> bool:
    """Whether `data` names a data set of ours rather than a folder."""
    return data.startswith("tfds:") or data.partition("/")[0] in GENERATED
