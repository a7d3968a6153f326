"""`metrics.jsonl` and TensorBoard events of a run.

One JSON object per line with "step", "split" and numbers. Lines hold nothing
that depends on the clock, so that an interrupted run ends with the file of an
undisturbed one.
"""

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fluojax.files import write_atomic
from fluojax.train import parallel


class Journal:
    """Appends to `metrics.jsonl`; a full disk costs lines, never the run."""

    def __init__(self, workdir: Path, *, start: int, say: Callable[[str], None]):
        """Cuts lines beyond step `start` and a torn last line."""
        self._path = workdir / "metrics.jsonl"
        self._say = say
        self._broken = False
        self._board = None
        self._silent = not parallel.is_first()
        if self._silent:
            return
        lines = [line for line in read_journal(self._path) if line["step"] <= start]
        if self._path.exists():
            write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        self._board = _tensorboard(workdir / "tb")

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """One line; values that are not finite are written as null."""
        if self._silent:
            return
        numbers = {name: _number(value) for name, value in values.items()}
        line = json.dumps({"step": step, "split": split, **numbers})
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            self._drop_dead_board()
            if self._board is not None:
                for name, value in numbers.items():
                    if value is not None:
                        self._board.add_scalar(f"{split}/{name}", value, step)
        except OSError as error:
            if not self._broken:
                self._say(f"metrics.jsonl: not written: {error.strerror or error}")
            self._broken = True

    def close(self) -> None:
        self._drop_dead_board()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()

    def _drop_dead_board(self) -> None:
        """The library writes in a thread, which a full disk or the clock may end.

        Its queue would then be filled and never emptied, and wait at exit.
        """
        if self._board is None:
            return
        events = self._board.file_writer.event_writer
        if not events._worker.is_alive():
            events._event_queue.cancel_join_thread()
            self._board = None
            self._say("TensorBoard: its writer ended; metrics.jsonl goes on alone")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Whole lines of `metrics.jsonl`; [] where there is none."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _number(value: Any) -> float | int | None:
    value = value.item() if hasattr(value, "item") else value
    return value if math.isfinite(value) else None


def _tensorboard(folder: Path):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    try:
        # A queue without limit: no call waits for a thread that has ended.
        return SummaryWriter(str(folder), max_queue=0, write_to_disk=True)
    except OSError:
        return None
