"""A trained network as a compiled-anywhere program, and back.

A `.jaxexport` file is StableHLO as `jax.export` serialises it, weights
included, for CPU, CUDA and TPU, free in batch and size. Beside it lies a
`.json` of the same name with what using it needs: the header of `exported` and
the checksum of the program. Neither holds code of ours, so the program runs
where only jax is installed:

    program = jax.export.deserialize(bytearray(open("model.jaxexport", "rb").read()))
    logits = program.call(images)  # [B, *S, C] in [0, 1], sizes multiples of divisor
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluojax.errors import UserError
from fluojax.exported import checked, header_of
from fluojax.files import to_json, write_atomic
from fluojax.inference import prediction, tiling
from fluojax.models import main_output
from fluojax.runs import Run

SUFFIX = ".jaxexport"
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclass(frozen=True)
class Program:
    """A network without its source.

    Attributes:
      call: `[B, *S, C]` float32 in [0, 1] to logits `[B, *S, K]`.
      divisor: the sizes S are multiples of it.
      min_size: and at least this.
      halo: see `models.create_model`.
    """

    call: Any
    divisor: int
    min_size: int
    halo: int | None

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of a batch.

        Raises:
          ValueError: a size that the program does not take, by its name.
        """
        names = ("depth", "rows", "columns")[-(images.ndim - 2) :]
        for name, size in zip(names, images.shape[1:-1], strict=True):
            if size % self.divisor or size < self.min_size:
                raise ValueError(
                    f"program: {name} must be a multiple of {self.divisor} and at "
                    f"least {self.min_size}, got {size}; pad the image"
                )
        return self.call(jnp.asarray(images, jnp.float32))


def write_program(run: Run, path: Path) -> None:
    """Writes the program of a run and the JSON beside it, atomically.

    Raises:
      UserError: flatbuffers, which the format needs, is not installed, or the
        network cannot be written down for free sizes.
    """
    _flatbuffers()
    model, variables = run.model, run.variables

    def logits(images: jax.Array) -> jax.Array:
        return main_output(model.apply(variables, images, train=False))

    least = -(-model.min_size // model.divisor)
    names = "dhw"[-run.rank :]
    sizes = ", ".join(f"{model.divisor}*{name}" for name in names)
    shape = jax.export.symbolic_shape(
        f"b, {sizes}, {run.channels}",
        constraints=[f"{name} >= {least}" for name in names],
    )
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        with _without_paths():
            program = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(image)
    except Exception as error:  # whatever a network does with its sizes
        raise UserError(
            f"--to jax: {run.config.model} computes with sizes that must be known "
            f"({type(error).__name__}); use --to safetensors"
        ) from error
    data = bytes(program.serialize())
    facts = {
        **header_of(run),
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        "input": f"[b, {sizes}, {run.channels}] float32 in [0, 1]",
        "output": f"[b, {sizes}, {program.out_avals[0].shape[-1]}] float32 logits",
        "divisor": model.divisor,
        "min_size": model.min_size,
        "halo": model.halo,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    write_atomic(path, data)
    write_atomic(path.with_suffix(".json"), to_json(facts))


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
    """Operations of a program name the files they come from; not their folders."""
    options = {
        "jax_hlo_source_file_canonicalization_regex": ".*/",
        "jax_traceback_in_locations_limit": 1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    try:
        for name, value in options.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def read_program(path: str | Path) -> tuple[Run, prediction.Network]:
    """What `write_program` wrote: a run without source, and its network.

    The network takes images of any size: they are padded as the model pads them.

    Raises:
      UserError: no such file, damaged, or not for this kind of device.
    """
    path = Path(path)
    header = _read_header(path)
    config, facts = checked(path.with_suffix(".json"), header)
    program = Program(
        _read_calls(path, header),
        *(header[name] for name in ("divisor", "min_size", "halo")),
    )
    run = Run(folder=path.parent, config=config, model=None, variables=None, **facts)

    def logits(images: jax.Array) -> np.ndarray:
        parts = [
            tiling.predict_whole(program, image, divisor=program.divisor)
            for image in np.asarray(images)
        ]
        return np.stack(parts)

    network = prediction.Network(
        logits=logits,
        scaling=config.scaling,
        divisor=program.divisor,
        halo=program.halo,
        min_size=program.min_size,
        crop=config.crop,
        contrast=config.contrast,
        rank=run.rank,
    )
    return run, network


def _read_header(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    try:
        header = json.loads(beside.read_text(encoding="utf-8"))
        sizes = [header[name] for name in ("divisor", "min_size")]
        halo = header["halo"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{beside}: not readable ({error!r}); it belongs beside {path.name}"
        ) from error
    known = all(isinstance(size, int) and size >= 1 for size in sizes)
    if not known or not (halo is None or (isinstance(halo, int) and halo >= 0)):
        raise UserError(f"{beside}: damaged: divisor, min_size, halo {sizes}, {halo}")
    return header


def _read_calls(path: Path, header: dict[str, Any]) -> Any:
    _flatbuffers()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise UserError(
            f"{path}: damaged, or not the program that {path.stem}.json describes"
        )
    program = jax.export.deserialize(bytearray(data))
    backend = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if backend not in program.platforms:
        raise UserError(
            f"{path}: made for {', '.join(program.platforms)}, not for {backend}"
        )
    return jax.jit(program.call)


def _flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise UserError(
            "programs of jax.export need flatbuffers: pip install flatbuffers"
        ) from error
