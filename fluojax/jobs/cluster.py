"""Joining the other processes of a cluster job."""

import os

import jax

from fluojax.console import Console


def join_cluster(console: Console) -> None:
    """Joins the other processes of a Slurm job step, Open MPI call or TPU pod.

    A lone machine never calls `jax.distributed.initialize`, which would refuse.
    """
    step = os.environ.get("SLURM_STEP_NUM_TASKS")
    if step is None and _number("SLURM_NTASKS") > 1:
        console.line(
            f"note   Slurm gave {_number('SLURM_NTASKS')} tasks, this was started as a "
            "single process; use srun fluojax train ..."
        )
    several = max(_number("SLURM_STEP_NUM_TASKS"), _number("OMPI_COMM_WORLD_SIZE")) > 1
    pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if several or pod:
        jax.distributed.initialize()


def _number(name: str) -> int:
    text = os.environ.get(name, "1")
    return int(text) if text.isdigit() else 1
