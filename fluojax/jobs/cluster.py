"""Joining the other processes of a cluster job."""

import os

import jax


def join_cluster() -> None:
    """Joins the other processes of a Slurm job step, Open MPI call or TPU pod.

    A lone machine never calls `jax.distributed.initialize`, which would refuse.
    """
    tasks = [
        os.environ.get(n, "1") for n in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    ]
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if any(n.isdigit() and int(n) > 1 for n in tasks) or len(hosts) > 1:
        jax.distributed.initialize()
