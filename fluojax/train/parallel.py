"""The only module that knows about devices.

State leaves carry no device axis: they are replicated over the local devices
(`replicate`), and a batch has leaves `[devices, examples per device, ...]`
(`shard`). Leaving `jax.pmap` would change this module alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fluojax.errors import UserError

AXIS = "batch"


def train_step(step: Callable) -> Callable:
    """`step(state, batch)` over all devices; the old state is given up."""
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=0,
    )


def compiler(step: Callable) -> Callable[[Any, Any], tuple[Callable, int]]:
    """`f(state, batch)` -> the compiled step and its bytes per device.

    Compiles when first called, for the shapes it is given then. With several
    processes the step is left to compile when it first runs, and the bytes are 0:
    their programs cannot be lowered by hand.
    """
    done: list[tuple[Callable, int]] = []

    def compile_step(state: Any, batch: Any) -> tuple[Callable, int]:
        if not done:
            done.append(_compile(step, state, batch) if alone() else (step, 0))
        return done[0]

    return compile_step


def _compile(step: Callable, state: Any, batch: Any) -> tuple[Callable, int]:
    compiled = step.lower(state, batch).compile()
    use = compiled.memory_analysis()
    if use is None:
        return compiled, 0
    held = use.argument_size_in_bytes + use.output_size_in_bytes
    return compiled, held - use.alias_size_in_bytes + use.temp_size_in_bytes


def memory_limit() -> int | None:
    """Bytes that a device may use, None where it does not say (CPUs)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")


def check_memory(need: int, batch_size: int) -> None:
    """Refuses a step that needs more than the device has, before it runs."""
    limit = memory_limit()
    if limit is None or need <= limit:
        return
    devices = jax.device_count()
    fits = max(int(batch_size * limit / need) // devices, 1) * devices
    raise UserError(
        f"the step needs {need / 1e9:.1f} GB per device, {limit / 1e9:.1f} GB are "
        f"there; by the compiler's estimate --batch-size {fits} fits; also a smaller "
        "--crop, or --set remat=true. If another process holds memory: JAX reserves "
        "75 % by default, see XLA_PYTHON_CLIENT_MEM_FRACTION"
    )


def eval_step(step: Callable) -> Callable:
    """`step(variables, batch)`; results keep the device axis of the batch."""
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=0)


def replicated() -> NamedSharding:
    """One copy on each local device."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any) -> Any:
    """The tree on every local device, in memory of its own.

    Before the first step, always: a state that lies elsewhere would compile the
    step twice. The copy is needed: on CPUs `device_put` lets all devices share
    the memory of one aligned NumPy array, and a step that donates its state
    then writes into it once per device.
    """
    sharding = replicated()
    placed = jax.device_put(tree, sharding)
    return jax.jit(_copy, out_shardings=sharding)(placed)


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def fetch(tree: Any) -> Any:
    """NumPy copies of replicated arrays; they survive the next, donating step."""
    return jax.tree.map(lambda x: np.array(x.addressable_data(0), copy=True), tree)


def shard(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`[n, ...]` as `[local devices, n / devices, ...]`."""
    devices = jax.local_device_count()
    return {k: v.reshape(devices, -1, *v.shape[1:]) for k, v in batch.items()}


def local_indices(batch_size: int) -> range:
    """The part of the global batch that belongs to this process."""
    share = batch_size // jax.process_count()
    return range(jax.process_index() * share, (jax.process_index() + 1) * share)


def alone() -> bool:
    """Whether this is the only process."""
    return jax.process_count() == 1


def is_first() -> bool:
    """Whether this process writes files."""
    return jax.process_index() == 0


def from_first(number: int) -> int:
    """The number that the first process gives, in every process."""
    if alone():
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def wait_for_all(name: str) -> None:
    """Until every process has come here."""
    if not alone():
        multihost_utils.sync_global_devices(name)


def preempted(step: int) -> bool:
    """Whether the processes agreed to stop after this step (SIGTERM to any)."""
    return multihost_utils.reached_preemption_sync_point(step)


def check_batch_size(batch_size: int) -> None:
    """Refuses a global batch that the devices cannot share equally."""
    devices = jax.device_count()
    if batch_size % devices:
        below = batch_size // devices * devices
        sizes = [n for n in (below, below + devices) if n]
        raise UserError(
            f"batch_size {batch_size} is not divisible by {devices} devices; nearest: "
            + ", ".join(f"--batch-size {n}" for n in sizes)
        )
