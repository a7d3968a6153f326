"""A real training process on six tiny images, as the tests start it.

The model sees 16-pixel crops for 30 steps and saves every 5.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np

from fluojax.runs import open_run
from fluojax.train.checkpoint import leaves_by_name
from fluojax.train.journal import read_journal

SETTINGS = {
    "data_options.mask_kind": "instances",
    "model_options.features": "[4, 8]",
    "crop": "16",
    "batch_size": "4",
    "num_steps": "30",
    "eval_every": "15",
    "save_every": "5",
    "log_every": "5",
}


def command(folder, workdir, **settings):
    words = [sys.executable, "-m", "fluojax", "train", "--model", "unet"]
    words += ["--data", str(folder), "--workdir", str(workdir)]
    for key, value in {**SETTINGS, **settings}.items():
        words += ["--set", f"{key}={value}"]
    return words


def start(folder, workdir, devices=1, env=None, **settings):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **(env or {})}
    return subprocess.Popen(
        command(folder, workdir, **settings),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def train(folder, workdir, devices=1, code=0, **settings):
    return finish(start(folder, workdir, devices, **settings), code)


def wait_for(workdir, pattern, process, timeout=300):
    """Until a file that matches appears in the checkpoints."""
    limit = time.monotonic() + timeout
    while not list((workdir / "checkpoints").glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.005)


def outcome(workdir):
    run = open_run(workdir)
    leaves = leaves_by_name(run.variables)
    results = json.loads((workdir / "results.json").read_text())
    return (
        {name: np.asarray(x).tobytes() for name, x in leaves.items()},
        read_journal(workdir / "metrics.jsonl"),
        results["scores"],
        {p.name for p in (workdir / "checkpoints").iterdir()},
    )
