"""Where the files of a published data set lie, which users fetch by hand.

People unpack archives one level too high or too low: the folder given is tried,
then its only sub-folder, then those of the published names.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fluojax.data.published import Published
from fluojax.errors import UserError, some


def default_folder(published: Published) -> Path:
    """Where tfds expects files that it does not fetch itself."""
    home = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    return home / "downloads" / "manual" / published.name


def find_root(published: Published, config: str, given: str | Path | None) -> Path:
    """The folder that holds the files of a configuration.

    Args:
      published: the data set.
      config: one of its configurations.
      given: where to look; None for the default of tfds.

    Raises:
      UserError: what was looked for, where, what is there, and the instructions.
    """
    start = Path(given or default_folder(published)).expanduser()
    names = (published.name, *published.folders)
    searched = list(dict.fromkeys(_candidates(start, names)))
    trees = published.configs[config].trees
    for root in searched:
        if any(all((root / part).exists() for part in tree) for tree in trees):
            return root
    wanted = " or ".join(", ".join(tree) for tree in trees)
    raise UserError(
        f"tfds:{published.name}/{config}: looked for {wanted} in "
        f"{some(searched)}; {_what_is_there(searched)}\n{published.instructions}"
    )


def _candidates(start: Path, names: tuple[str, ...], depth: int = 2) -> Iterator[Path]:
    """The folder itself, its only sub-folder, those of the names; and below them."""
    yield start
    folders = _folders(start)
    only = folders if len(folders) == 1 else []
    named = [start / name for name in names if name in {f.name for f in folders}]
    for folder in [*only, *named]:
        if depth:
            yield from _candidates(folder, names, depth - 1)


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return []
    hidden = (".", "__MACOSX")
    paths = (p for p in folder.iterdir() if not p.name.startswith(hidden))
    return sorted(paths, key=lambda p: p.name)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _what_is_there(searched: list[Path]) -> str:
    start = searched[0]
    if not start.is_dir():
        return f"{start} is no folder"
    told = []
    for folder in searched:
        names = [p.name + "/" * p.is_dir() for p in _visible(folder)]
        told.append(f"found in {folder}: {some(names) or 'nothing'}")
    archives = [
        p.name
        for folder in searched
        for p in _visible(folder)
        if p.suffix.lower() in (".zip", ".tar", ".gz", ".tgz") and p.is_file()
    ]
    if archives:
        told.append(f"{some(archives)}: there, but not unpacked; unpack it")
    return "; ".join(told)


def fingerprint(root: Path) -> str:
    """Twelve hexadecimal digits that change when a file below `root` changes."""
    lines = []
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(folder, name)
            if path.is_file():
                stat = path.stat()
                relative = path.relative_to(root).as_posix()
                lines.append(f"{relative}|{stat.st_size}|{stat.st_mtime_ns}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:12]
