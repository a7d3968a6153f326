"""A real training process, killed, stopped, damaged and raced.

"Same" means: final parameters bit-equal and `metrics.jsonl` equal to those of
an undisturbed run on as many CPU devices.
"""

import functools
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.process import finish, outcome, start, train, wait_for

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def quiet_run(folder, tmp_path_factory):
    """Folders of undisturbed runs by number of devices."""
    known = {}

    def of(devices):
        if devices not in known:
            known[devices] = tmp_path_factory.mktemp(f"quiet{devices}") / "run"
            train(folder, known[devices], devices)
        return known[devices]

    return of


@pytest.fixture(scope="module")
def undisturbed(quiet_run):
    """Outcomes of undisturbed runs by number of devices."""
    return functools.cache(lambda devices: outcome(quiet_run(devices)))


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
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


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_ctrl_c_and_usr1_save_too(folder, tmp_path, number):
    workdir = tmp_path / "run"
    process = start(folder, workdir)
    wait_for(workdir, "5.sha256", process)
    process.send_signal(number)
    finish(process, code=75)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_and_keeps_what_was_saved(folder, tmp_path):
    workdir = tmp_path / "run"
    # Steps without end, so that the second signal finds the run at work.
    process = start(folder, workdir, num_steps="100000", save_every="5")
    wait_for(workdir, "5.sha256", process)
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode in (75, 130)
    assert "resuming from step" in train(folder, workdir, num_steps="30")


def test_one_flipped_bit_is_found_and_the_run_ends_the_same(
    folder, tmp_path, quiet_run, undisturbed
):
    workdir = tmp_path / "run"
    shutil.copytree(quiet_run(1), workdir)
    (workdir / "results.json").unlink()
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
    folder, tmp_path, quiet_run
):
    workdir = tmp_path / "run"
    shutil.copytree(quiet_run(1), workdir)
    before = (workdir / "results.json").read_bytes()
    assert "nothing to do" in train(folder, workdir)
    assert (workdir / "results.json").read_bytes() == before
    output = train(folder, workdir, code=2, seed="1", learning_rate="0.5")
    assert "learning_rate: 0.001 -> 0.5, seed: 0 -> 1" in output
    assert "another --workdir" in output
    # More steps are a continuation.
    assert "resuming from step 30" in train(folder, workdir, num_steps="35")


@pytest.mark.slow
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
