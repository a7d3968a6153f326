"""What goes wrong for reasons a user can mend: one line, no traceback.

Standard library only, so that the command line can refuse a request before
any heavy import. Every message says what was found, what is needed and what
to type.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The request or the data are wrong; nothing was started (exit code 2)."""

    exit_code = 2


class Diverged(UserError):
    """Training met a loss or a state that is not finite (exit code 3)."""

    exit_code = 3


class Stopped(UserError):
    """The machine or the data failed while running (exit code 1)."""

    exit_code = 1


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """` (did you mean a, b?)` with the known names closest to `name`, or ``."""
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def some(items: Iterable[object], limit: int = 5) -> str:
    """At most `limit` items separated by commas, then `and N more`."""
    items = [str(item) for item in items]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
