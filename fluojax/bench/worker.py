"""A process of its own for the peers, so that no thread pool meets another.

It obeys one JSON line at a time on its standard input and waits on a read while
it is not timed. jax is never imported here.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fluojax.bench import peers, timing


class PeerError(Exception):
    """A contender could not be built or run; the text is its error."""


class Peers:
    """Client of the process; a context manager."""

    def __init__(self, threads: int):
        command = [sys.executable, "-m", "fluojax.bench.worker", str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="fluojax-bench-")

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
        self._folder.cleanup()

    def give(self, arrays) -> None:
        """The arrays of the next row."""
        path = Path(self._folder.name) / "arrays.npz"
        np.savez(path, **arrays)
        self._ask(do="arrays", path=str(path))

    def first(self, kind: str, name: str) -> tuple[timing.First, list[np.ndarray]]:
        """Builds a contender; its first call and its result."""
        path = Path(self._folder.name) / "result.npz"
        told = self._ask(do="first", kind=kind, name=name, path=str(path))
        with np.load(path) as result:
            return timing.First(*told), [result[key] for key in result.files]

    def trial(self, kind: str, name: str, at_least_s: float) -> float:
        return self._ask(do="trial", kind=kind, name=name, at_least_s=at_least_s)

    def _ask(self, **request: Any) -> Any:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PeerError("its process ended")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["answer"]


class _Server:
    """The other end of `Peers`: one method per request."""

    def __init__(self):
        self._given: dict[str, np.ndarray] = {}
        self._calls: dict[tuple[str, str], peers.Call] = {}

    def answer(self, request: dict[str, Any]) -> Any:
        return getattr(self, request.pop("do"))(**request)

    def arrays(self, path: str) -> None:
        with np.load(path) as file:
            self._given = dict(file)
        self._calls = {}

    def first(self, kind: str, name: str, path: str) -> timing.First:
        _, build = peers.contenders(kind)[name]
        call = self._calls[kind, name] = build(self._given)
        result: list[Any] = []
        told = timing.first(lambda: result.append(call()))
        as_numpy = getattr(call, "numpy", lambda out: out)
        arrays = as_numpy(result[0])
        arrays = arrays if isinstance(arrays, tuple) else (arrays,)
        np.savez(path, **{str(i): array for i, array in enumerate(arrays)})
        return told

    def trial(self, kind: str, name: str, at_least_s: float) -> float:
        return timing.trial(self._calls[kind, name], at_least_s)


def serve(threads: int) -> None:
    """Answers requests until the input ends."""
    if not peers.missing({"torch"}):
        import torch

        torch.set_num_threads(threads)
    server = _Server()
    # What packages print must not get between the answers.
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer = {"answer": server.answer(json.loads(line))}
        except Exception as error:  # a contender's failure is its own
            text = " ".join(str(error).split())[:200]
            answer = {"error": f"{type(error).__name__}: {text}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
