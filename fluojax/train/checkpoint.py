"""Checkpoints that are either right or not used.

Orbax writes the arrays; around it stand what it does not do: a list of SHA-256
sums per step (Orbax returns wrong numbers for a flipped bit without a word), a
fallback to the step before, our own comparison of names, shapes and dtypes, and
a lock against a second process.

    checkpoints/1200/          Orbax
    checkpoints/1200.sha256    its files and their sums; without it the step does not count
    checkpoints/LATEST, BEST   names of verified steps
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fluojax.errors import Stopped, UserError, some
from fluojax.files import write_atomic
from fluojax.train import parallel

MAX_FAILED_SAVES = 3


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      folder: `RUN/checkpoints`; made if absent.
      keep: newest steps kept beside the best one.
      say: where one line about damages and failed saves goes.
    """

    def __init__(self, folder: Path, *, keep: int = 3, say: Callable[[str], None]):
        self._folder = Path(folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._say = say
        self._failed = 0
        self._finishing: threading.Thread | None = None
        self._error: BaseException | None = None
        self._manager: ocp.CheckpointManager | None = None

    # --- saving ---

    def save(self, step: int, arrays: Any, progress: dict[str, Any], *, best: bool):
        """Starts writing host arrays and JSON; they count once the list is there.

        A save that fails (a full disk) is reported and tried again at the next
        call; the third failure in a row stops the run.
        """
        self.wait()
        if not parallel.is_first():
            return
        if (self._folder / f"{step}.sha256").exists():
            # Only the step restored is saved twice: as the best one, say.
            self._point(step, best)
            return
        shutil.rmtree(self._folder / str(step), ignore_errors=True)
        self._finishing = threading.Thread(
            target=self._save, args=(step, arrays, progress, best), daemon=True
        )
        self._finishing.start()

    def wait(self) -> None:
        """Until the save in progress counts or has failed."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        error, self._error = self._error, None
        if error is None:
            return
        self._failed += 1
        line = f"checkpoint not saved: {error}; {_free(self._folder)} free"
        if self._failed >= MAX_FAILED_SAVES:
            raise Stopped(f"{line}; stopped after {self._failed} failures") from error
        self._say(f"{line}; trying again at the next interval")

    def close(self) -> None:
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _save(self, step: int, arrays: Any, progress: dict, best: bool) -> None:
        try:
            manager = self._open()
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                progress=ocp.args.JsonSave(progress),
            )
            manager.save(step, args=args, force=True)
            manager.wait_until_finished()
            sums = file_sums(self._folder / str(step))
            write_atomic(self._folder / f"{step}.sha256", json.dumps(sums, indent=1))
            self._point(step, best)
            self._drop_old()
            self._failed = 0
        except BaseException as error:  # reported by wait(), in the training thread
            self._error = error

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._manager = _manager(self._folder, cleanup_tmp_directories=True)
        return self._manager

    def _point(self, step: int, best: bool) -> None:
        write_atomic(self._folder / "LATEST", f"{step}\n")
        if best:
            write_atomic(self._folder / "BEST", f"{step}\n")

    def _drop_old(self) -> None:
        steps = self.steps()
        kept = {*steps[: self._keep], self.best_step()}
        for step in steps:
            if step not in kept:
                (self._folder / f"{step}.sha256").unlink(missing_ok=True)
                shutil.rmtree(self._folder / str(step), ignore_errors=True)

    # --- finding and restoring ---

    def steps(self) -> list[int]:
        """Steps that have a list, newest first (not verified yet)."""
        names = (path.stem for path in self._folder.glob("*.sha256"))
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def best_step(self) -> int | None:
        """The step that BEST names, if it still counts."""
        with contextlib.suppress(OSError, ValueError):
            step = int((self._folder / "BEST").read_text())
            return step if step in self.steps() else None
        return None

    def restore_latest(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Newest step whose files verify: (step, NumPy arrays, progress).

        Damaged steps are renamed `<step>.damaged` and reported.

        Raises:
          UserError: the checkpoint belongs to another model.
        """
        for step in self.steps():
            damage = self.damage(step)
            if damage is None:
                return step, *self._read(step, like)
            older = [s for s in self.steps() if s < step and self.damage(s) is None]
            using = f"using step {older[0]} instead" if older else "no other is left"
            self._say(f"checkpoint {step}: {damage}; {using}")
            self._set_aside(step)
        return None

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """One verified step.

        Raises:
          UserError: it is damaged, or belongs to another model.
        """
        damage = self.damage(step)
        if damage is not None:
            raise UserError(f"checkpoint {step}: {damage}; choose another step")
        return self._read(step, like)

    def damage(self, step: int) -> str | None:
        """What is wrong with the files of a step, None if they are as saved."""
        try:
            wanted = json.loads((self._folder / f"{step}.sha256").read_text())
            if not isinstance(wanted, dict) or not wanted:
                return "its list of checksums is damaged"
        except (OSError, ValueError):
            return "its list of checksums is damaged"
        found = file_sums(self._folder / str(step))
        wrong = [name for name, value in wanted.items() if found.get(name) != value]
        return f"{some(wrong, 2)} failed its checksum" if wrong else None

    def _set_aside(self, step: int) -> None:
        target = self._folder / f"{step}.damaged"
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self._folder / str(step)).rename(target)
        (self._folder / f"{step}.sha256").unlink(missing_ok=True)
        for pointer in ("LATEST", "BEST"):
            with contextlib.suppress(OSError):
                if (self._folder / pointer).read_text().strip() == str(step):
                    (self._folder / pointer).unlink()

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore()
        )
        with _manager(self._folder) as manager:
            stored = manager.restore(step, args=args)
        return _fill(like, stored["state"], step), dict(stored["progress"])


def _manager(folder: Path, **options: Any) -> ocp.CheckpointManager:
    """Orbax for this process alone: state is replicated, so one has it all."""
    if not parallel.alone():
        process = jax.process_index()
        options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=process,
            active_processes={process},
            barrier_sync_key_prefix=f"process{process}",
        )
        options["create"] = False
    return ocp.CheckpointManager(
        folder, options=ocp.CheckpointManagerOptions(**options)
    )


def file_sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` by relative POSIX path."""
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sums[path.relative_to(folder).as_posix()] = digest
    return sums


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Leaves by their path, e.g. `params/enc1/conv1/kernel`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in paths}


def _fill(like: Any, stored: Any, step: int) -> Any:
    """The stored leaves in the structure of `like`, compared one by one."""
    have = leaves_by_name(stored)
    want = leaves_by_name(like)
    missing = [name for name in want if name not in have]
    extra = [name for name in have if name not in want]
    other = [
        f"{name} {np.shape(have[name])} instead of {np.shape(leaf)}"
        for name, leaf in want.items()
        if name in have
        and (np.shape(have[name]) != np.shape(leaf) or have[name].dtype != leaf.dtype)
    ]
    if missing or extra or other:
        parts = {"missing": missing, "extra": extra, "of other shape": other}
        told = "; ".join(f"{k}: {some(v)}" for k, v in parts.items() if v)
        raise UserError(f"checkpoint {step} is of another model: {told}")
    leaves = [np.asarray(have[name]) for name in want]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _free(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB"
    return "unknown space"


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps a second process out of a run folder; the kernel frees it on any end.

    Raises:
      UserError: another process holds it.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{workdir}: locked by a running process ({holder}); wait for it, or "
                "choose another --workdir"
            ) from None
        except OSError:
            pass  # file systems without locks: the run goes on unprotected
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
        file.write(f"process {os.getpid()} since {since}\n")
        file.flush()
        yield
