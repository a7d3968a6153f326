"""Two processes on one machine, as Slurm would start them."""

import json
import os
import signal

import numpy as np
import pytest

from fluojax.train.journal import read_journal
from tests.faults.process import finish, start, train, wait_for

pytestmark = pytest.mark.faults
JOB = os.getpid()  # jax takes its port from the job: runs side by side differ


def slurm(job, process):
    """What srun sets for each of two tasks; the job decides the port."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    }


def both(folder, workdir, job):
    return [
        start(folder, workdir, devices=2, env=slurm(job, process))
        for process in range(2)
    ]


def losses(workdir):
    lines = read_journal(workdir / "metrics.jsonl")
    return [(x["step"], x["split"]) for x in lines], [x["loss"] for x in lines]


def test_they_train_as_one_and_one_of_them_writes(folder, tmp_path):
    for process in both(folder, tmp_path / "two", JOB):
        finish(process)
    train(folder, tmp_path / "one", devices=4)
    keys, values = losses(tmp_path / "two")
    wanted_keys, wanted = losses(tmp_path / "one")
    assert keys == wanted_keys
    np.testing.assert_allclose(values, wanted, rtol=1e-3)
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["processes"] == 2
    assert len(results["devices"]) == 4


@pytest.mark.slow
def test_sigterm_to_one_saves_in_both_and_they_continue(folder, tmp_path):
    workdir = tmp_path / "run"
    processes = both(folder, workdir, JOB + 1)
    wait_for(workdir, "5.sha256", processes[0])
    processes[1].send_signal(signal.SIGTERM)
    first, second = (finish(process, code=75) for process in processes)
    saved = (workdir / "checkpoints" / "LATEST").read_text().strip()
    for output in (first, second):
        assert f"interrupted at step {saved} of 30" in output
    for process in both(folder, workdir, JOB + 2):
        finish(process)
    assert (workdir / "results.json").exists()
