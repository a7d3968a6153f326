"""Benchmarks as lines for people, JSON for machines, and two runs compared."""

import json
from pathlib import Path
from typing import Any

from fluojax.bench.run import OURS, Timing
from fluojax.errors import UserError

SLOWER, FASTER = 1.10, 0.90
_COLUMNS = "{:<30} {:<14} {:>9} {:>9} {:>9} {:>8} {:>8}  {}"

HEAD = _COLUMNS.format(
    "row",
    "contender",
    "min ms",
    "median",
    "first s",
    "rise MB",
    "plan MB",
    "ours / peer",
)


def line(timing: Timing) -> str:
    """One contender of one row; ratios below 1 mean that we are ahead."""
    if not timing.trials:
        return f"{timing.row:<30} {timing.contender:<14} {timing.state}"
    ordered = sorted(timing.trials)
    remark = ""
    if timing.ratio is not None:
        median, low, high = timing.interval
        remark = f"{timing.ratio:.2f} (median {median:.2f}, {low:.2f}-{high:.2f})"
    elif timing.images is not None:
        remark = f"{timing.images / timing.minimum:.1f} images/s"
    elif timing.bound_bytes is not None:
        remark = f"{timing.bound_bytes / timing.minimum / 1e9:.1f} GB/s of its bound"
    return _COLUMNS.format(
        timing.row,
        timing.contender,
        f"{1e3 * ordered[0]:.3f}",
        f"{1e3 * ordered[len(ordered) // 2]:.3f}",
        f"{timing.first_s:.2f}",
        f"{timing.bytes / 1e6:.0f}",
        "" if timing.planned_bytes is None else f"{timing.planned_bytes / 1e6:.0f}",
        remark,
    )


def as_json(conditions: dict[str, Any], timings: list[Timing]) -> dict[str, Any]:
    return {
        "conditions": conditions,
        "rows": [
            {**t._asdict(), "min_s": min(t.trials, default=None)} for t in timings
        ],
    }


def load(path: str) -> dict[str, Any]:
    """An earlier run.

    Raises:
      UserError: the file is not there or is no benchmark.
    """
    try:
        old = json.loads(Path(path).read_text(encoding="utf-8"))
        old["conditions"], old["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--compare: {path} is no result of `fluojax bench --json` "
            f"({type(error).__name__})"
        ) from None
    return old


def check_comparable(old: dict[str, Any], now: dict[str, Any], force: bool) -> None:
    """Refuses other devices or thread counts.

    Raises:
      UserError: they differ and `force` is not given.
    """
    for key in ("devices", "threads"):
        before = old["conditions"].get(key)
        if before != now[key] and not force:
            raise UserError(
                f"--compare: {key} were {before}, are {now[key]}; times do not "
                "compare, --force does it all the same"
            )


def compared(old: dict[str, Any], timings: list[Timing]) -> list[str]:
    """new / old of the minima of our rows, marked where they moved."""
    before = {
        row["row"]: row["min_s"] for row in old["rows"] if row["contender"] == OURS
    }
    lines = []
    for timing in timings:
        earlier = before.get(timing.row)
        if timing.contender != OURS or not earlier:
            continue
        change = timing.minimum / earlier
        mark = "slower" if change > SLOWER else "faster" if change < FASTER else ""
        lines.append(f"{timing.row:<30} new / old {change:.2f}  {mark}".rstrip())
    return lines
