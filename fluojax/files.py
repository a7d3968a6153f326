"""Writing files so that a killed process never leaves half of one."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def user_cache() -> Path:
    """`~/.cache/fluojax`, below the temporary folder for users without a home."""
    try:
        return Path.home() / ".cache" / "fluojax"
    except RuntimeError:  # HOME is not set and the user id has no name
        return Path(tempfile.gettempdir()) / f"fluojax-{os.getuid()}"


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Writes `data` under a temporary name, syncs it and renames it to `path`.

    Readers see the old file or the new one, never a part. Folders above `path`
    are made. Text is encoded as UTF-8.
    """
    if isinstance(data, str):
        data = data.encode("utf-8")
    with atomic_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """The same for a file that is written piece by piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    """Indented JSON in which numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not (value - value == 0.0):
        return None
    return value
