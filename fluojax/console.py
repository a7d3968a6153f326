"""What a person or a log file reads while a command runs.

Standard library only. On a terminal, progress is one line that is rewritten at
most four times a second; elsewhere it is a `key=value` line at steps 1, 2, 5,
10, 20, 50 and then every 30 seconds. A closed pipe silences the console and
never stops the work.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

_EARLY = frozenset({1, 2, 5, 10, 20, 50})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """Lines for people; a copy without control characters goes to `log`."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None):
        self._stream = stream if stream is not None else sys.stdout
        self._quiet = quiet
        self._log: Path | None = None
        self._last = 0.0
        self._open_line = 0
        self._terminal = self._stream.isatty()

    def log_to(self, path: Path) -> None:
        """Appends every later line to this file as well."""
        self._log = path

    def line(self, text: str) -> None:
        """One line of its own."""
        self._end_progress()
        self._put(text + "\n")
        self._append(text)

    def progress(self, step: int, values: dict[str, object], *, last: bool = False):
        """The state of a long job; shown when due, always when `last`."""
        now = time.monotonic()
        if self._terminal:
            if last or now - self._last >= 0.25:
                self._last = now
                self._rewrite("  ".join(f"{k} {v}" for k, v in values.items()))
        elif last or step in _EARLY or now - self._last >= 30:
            self._last = now
            text = " ".join(f"{k}={_one_word(v)}" for k, v in values.items())
            self._put(text + "\n")
            self._append(text)

    def _rewrite(self, text: str) -> None:
        width = max(shutil.get_terminal_size().columns - 1, 10)
        text = text[:width]
        self._put("\r" + text.ljust(self._open_line))
        self._open_line = len(text)

    def _end_progress(self) -> None:
        if self._open_line:
            self._put("\n")
            self._open_line = 0

    def _put(self, text: str) -> None:
        if self._quiet:
            return
        try:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            # An ASCII terminal gets question marks.
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):  # nobody listens any more
            self._quiet = True

    def _append(self, text: str) -> None:
        if self._log is None:
            return
        try:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(_CONTROL.sub("", text) + "\n")
        except OSError as error:
            self._log = None
            self._put(f"log.txt: not written any more: {error.strerror}\n")


def reading(console: Console) -> Callable[[int, int], None]:
    """`f(done, of)` that tells how far a long reading of files has come."""
    began = time.monotonic()

    def progress(done: int, of: int) -> None:
        if time.monotonic() - began > 2:
            console.progress(done, {"reading": f"{done}/{of} images"}, last=done == of)

    return progress


def _one_word(value: object) -> str:
    return str(value).replace(" ", "_")


def duration(seconds: float) -> str:
    """`41 s`, `18 min`, `2.5 h`; never negative."""
    seconds = max(seconds, 0.0)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
