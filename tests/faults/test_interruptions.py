"""A real training process, killed, stopped, damaged and raced.

"Same" means: final parameters bit-equal and `metrics.jsonl` equal to those of
an undisturbed run on as many CPU devices. The model sees 16-pixel crops for 30
steps and saves every 5.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fluojax.runs import open_run
from fluojax.train.checkpoint import leaves_by_name
from fluojax.train.journal import read_journal

pytestmark = pytest.mark.faults
SETTINGS = {
    "data_options.mask_kind": "instances",
    "model_options.base_features": "4",
    "crop": "16",
    "batch_size": "4",
    "num_steps": "30",
    "eval_every": "10",
    "save_every": "5",
    "log_every": "5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six 24-pixel images with one to three cells."""
    root = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4 if split == "train" else 2):
            labels = np.zeros((24, 24), np.uint8)
            for k in range(1 + number % 3):
                row, column = rng.integers(0, 17, 2)
                labels[row : row + 7, column : column + 6] = k + 1
            image = (50 + 150 * (labels > 0) + rng.integers(0, 30, labels.shape)).astype(
                np.uint8
            )
            for kind, array in (("images", image), ("masks", labels)):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                np.save(root / split / kind / f"{number}.npy", array)
    return root


def command(folder, workdir, **settings):
    words = [sys.executable, "-m", "fluojax", "train", "--model", "cresunet"]
    words += ["--data", str(folder), "--workdir", str(workdir)]
    for key, value in {**SETTINGS, **settings}.items():
        words += ["--set", f"{key}={value}"]
    return words


def start(folder, workdir, devices=1, **settings):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
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


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """Outcomes of quiet runs by number of devices."""
    known = {}

    def of(devices):
        if devices not in known:
            workdir = tmp_path_factory.mktemp(f"quiet{devices}") / "run"
            train(folder, workdir, devices)
            known[devices] = outcome(workdir)
        return known[devices]

    return of


@pytest.mark.parametrize("devices", [1, 4])
def test_killed_in_training_and_in_a_save_it_ends_the_same(
    folder, tmp_path, undisturbed, devices
):
    wanted = undisturbed(devices)
    workdir = tmp_path / "run"
    rng = random.Random(devices)
    # First at some moment of training, then in the middle of a save.
    for pattern in ("5.sha256", "*.orbax-checkpoint-tmp*"):
        process = start(folder, workdir, devices)
        wait_for(workdir, pattern, process)
        time.sleep(rng.random() * 0.02)
        process.kill()
        process.communicate()
        assert not (workdir / "results.json").exists()
    output = train(folder, workdir, devices)
    assert "resuming from step" in output
    assert outcome(workdir) == wanted


def test_sigterm_saves_and_the_same_command_continues(folder, tmp_path, undisturbed):
    workdir = tmp_path / "run"
    process = start(folder, workdir)
    wait_for(workdir, "5.sha256", process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=75)
    assert "state saved; run the same command again to continue" in output
    saved = (workdir / "checkpoints" / "LATEST").read_text().strip()
    assert f"interrupted at step {saved} of 30" in output
    assert f"resuming from step {saved}" in train(folder, workdir)
    variables, journal, scores, _ = outcome(workdir)
    assert (variables, journal, scores) == undisturbed(1)[:3]


def test_ctrl_c_saves_too(folder, tmp_path):
    workdir = tmp_path / "run"
    process = start(folder, workdir)
    wait_for(workdir, "5.sha256", process)
    process.send_signal(signal.SIGINT)
    finish(process, code=75)


def test_one_flipped_bit_is_found_and_the_run_ends_the_same(
    folder, tmp_path, undisturbed
):
    workdir = tmp_path / "run"
    process = start(folder, workdir)
    wait_for(workdir, "10.sha256", process)
    process.kill()
    process.communicate()
    newest = max(int(p.stem) for p in (workdir / "checkpoints").glob("*.sha256"))
    files = (workdir / "checkpoints" / str(newest) / "state").rglob("*")
    largest = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 16
    largest.write_bytes(data)
    output = train(folder, workdir)
    assert f"checkpoint {newest}:" in output
    assert "failed its checksum; using step" in output
    variables, journal, scores, _ = outcome(workdir)
    assert (variables, journal, scores) == undisturbed(1)[:3]


def test_a_second_process_is_turned_away(folder, tmp_path):
    workdir = tmp_path / "run"
    first = start(folder, workdir)
    wait_for(workdir, "5.sha256", first)
    output = train(folder, workdir, code=2)
    assert "locked by a running process" in output
    finish(first)


def test_a_finished_run_is_left_alone_and_another_experiment_refused(
    folder, tmp_path
):
    workdir = tmp_path / "run"
    train(folder, workdir, num_steps="5")
    before = (workdir / "results.json").read_bytes()
    assert "nothing to do" in train(folder, workdir, num_steps="5")
    assert (workdir / "results.json").read_bytes() == before
    output = train(folder, workdir, code=2, seed="1", learning_rate="0.5")
    assert "learning_rate: 0.001 -> 0.5, seed: 0 -> 1" in output
    assert "another --workdir" in output
    # More steps are a continuation.
    assert "resuming from step 5" in train(folder, workdir, num_steps="10")


def test_four_devices_may_continue_what_one_began(folder, tmp_path, undisturbed):
    workdir = tmp_path / "run"
    process = start(folder, workdir)
    wait_for(workdir, "10.sha256", process)
    process.send_signal(signal.SIGTERM)
    finish(process, code=75)
    train(folder, workdir, devices=4)
    found, wanted = outcome(workdir)[1][-1], undisturbed(1)[1][-1]
    assert found["loss"] == pytest.approx(wanted["loss"], abs=0.05)


def test_a_loss_that_is_not_finite_stops_the_run(folder, tmp_path):
    workdir = tmp_path / "run"
    output = train(
        folder, workdir, code=3, learning_rate="1e30", clip_norm="none",
        optimizer="sgd", schedule="constant",
    )  # fmt: skip
    assert "not finite since step" in output
    assert "learning rate 1e+30" in output
    assert "batch saved as diverged_" in output
    assert len(list(Path(workdir).glob("diverged_*.npz"))) == 1
    assert not (workdir / "results.json").exists()
    assert not list((workdir / "checkpoints").glob("*.sha256"))
