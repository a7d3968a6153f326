r"""Seeds per hour: separate processes, one after another, over devices, vmapped.

Run:   python experiments/ensemble_speed.py --out runs/ensemble_speed [--devices 4]
       (on a CPU, --devices splits it into so many for the form "devices"; without,
       the accelerators that are there)
Quick: add --seeds 2 --steps 20

Every form trains the same seeds from nothing to results.json in processes of its own,
with a compilation cache that is empty at the start of the form and that its processes
share. "separate" runs one process after another, "pinned" as many at a time as there
are CPU cores, each held on a core of its own (Linux).
"""

import argparse
import os
import queue
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fluojax.config import Experiment, Term
from fluojax.files import write_atomic
from fluojax.sweep import Options, Study

FORMS = ("separate", "pinned", "serial", "devices", "vmap")
STEPS = "FLUOJAX_ENSEMBLE_STEPS"  # reaches the script in the processes it is read by


def study(options: Options) -> Study:
    """One configuration: c-ResUnet of half the width on small crops."""
    steps = int(os.environ.get(STEPS, "200"))
    member = Experiment(
        data="fnc_synth/smoke",
        model="cresunet_nano",
        loss=(Term("dice"),),
        crop=64,
        batch_size=16,
        num_steps=steps,
        eval_every=steps,
        save_every=steps,
    )
    return Study("Ensemble speed", {"dice": member}, columns=("dice",))


def run_form(form: str, seeds: int, devices: int | None, out: Path) -> float:
    """Seconds of wall clock from the first process to the last results.json."""
    command = [sys.executable, "-m", "fluojax", "sweep", __file__]
    command += ["--seeds", str(seeds), "--workdir", str(out / form)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        if form == "devices" and devices:
            flag = f"--xla_force_host_platform_device_count={devices}"
            environment["XLA_FLAGS"] = flag
        if form in ("separate", "pinned"):
            calls = [[*command, "--only", f"*/seed{k}"] for k in range(seeds)]
        else:
            calls = [[*command, "--ensemble", form]]
        cores = sorted(os.sched_getaffinity(0)) if form == "pinned" else [None]
        free: queue.Queue[int | None] = queue.Queue()
        for core in cores:
            free.put(core)
        began = time.monotonic()
        with ThreadPoolExecutor(len(cores)) as pool:
            list(pool.map(lambda call: _run(call, environment, free), calls))
        return time.monotonic() - began


def _run(
    call: list[str], environment: dict[str, str], free: "queue.Queue[int | None]"
) -> None:
    """One process, on a core of its own if the queue of free places holds cores."""
    core = free.get()
    hold = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    subprocess.run(
        call, env=environment, check=True, stdout=subprocess.DEVNULL, preexec_fn=hold
    )
    free.put(core)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ensemble_speed"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--devices", type=int)
    args = parser.parse_args()
    os.environ[STEPS] = str(args.steps)
    lines = ["| form | seconds | seeds per hour |", "|---|---|---|"]
    for form in FORMS:
        seconds = run_form(form, args.seeds, args.devices, args.out)
        per_hour = 3600 * args.seeds / seconds
        lines.append(f"| {form} | {seconds:.0f} | {per_hour:.0f} |")
        print(lines[-1], flush=True)
    lines.append(f"\n{args.seeds} seeds, {args.steps} steps, devices {args.devices}")
    write_atomic(args.out / "speed.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
