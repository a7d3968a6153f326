"""Seeds side by side: the same first step as alone, and files of their own."""

import dataclasses

import jax
import numpy as np
import pytest

from fluojax.config import Experiment, Term
from fluojax.console import Console
from fluojax.data.record import Dataset, Record
from fluojax.errors import Diverged
from fluojax.train import ensemble, loop, parallel, program
from fluojax.train.checkpoint import Checkpoints
from fluojax.train.journal import read_journal

CONFIG = Experiment(
    model="unet",
    model_options={"features": [4, 8]},
    loss=(Term("dice"),),
    optimizer="sgd",
    clip_norm=None,
    crop=16,
    batch_size=4,
    augmentation="none",  # a third of the time to compile
    scaling="fixed",
    schedule="constant",
    learning_rate=10.0,  # differences of parameters then tell gradients
    num_steps=8,
    log_every=2,
    eval_every=4,
    save_every=4,
)


@pytest.fixture(scope="module")
def built():
    rng = np.random.default_rng(0)
    records = []
    for number in range(3):
        labels = np.zeros((20, 20), np.int32)
        labels[4:10, 5:12] = 1
        image = (100 * labels + rng.integers(0, 40, labels.shape)).astype(np.uint8)
        records.append(Record(image[..., None], labels, f"r{number}", f"r{number}"))
    data = Dataset("squares", {"train": records, "val": [], "test": []})
    return program.build(CONFIG, data)


def first_step_alone(built, seed):
    mine = built.with_seed(seed)
    state, batch = parallel.replicate(mine.new_state()), parallel.shard(mine.draw(0))
    step, _ = mine.compile_step(state, batch)
    state, metrics = step(state, batch)
    return parallel.fetch(state.params), float(metrics["loss"])


@pytest.mark.parametrize(
    "form", ["devices", pytest.param("vmap", marks=pytest.mark.slow)]
)
def test_the_first_step_is_that_of_each_seed_alone(built, form):
    seeds = [built.with_seed(seed) for seed in (3, 5)]
    states = ensemble.stack([jax.device_get(one.new_state()) for one in seeds])
    batch = ensemble.stack([one.draw(0) for one in seeds])
    before = jax.tree.map(np.copy, states.params)
    states, metrics = ensemble.compile_form(built, form, states, batch)(states, batch)
    for k, seed in enumerate((3, 5)):
        params, loss = first_step_alone(built, seed)
        assert float(metrics["loss"][k]) == pytest.approx(loss, rel=1e-5)
        start = jax.tree.map(lambda x, k=k: x[k], before)
        ours = jax.tree.map(lambda x, y, k=k: x[k] - y, states.params, start)
        theirs = jax.tree.map(np.subtract, params, start)  # -rate * gradient
        largest = max(np.abs(x).max() for x in jax.tree.leaves(theirs))
        assert largest > 1e-3
        jax.tree.map(
            lambda a, b, tol=1e-5 * largest: np.testing.assert_allclose(a, b, atol=tol),
            ours,
            theirs,
        )


def validation(scores):
    scores = iter(scores)

    def validate(variables, eval_step, step):
        value = next(scores)
        return {"score": value, "foreground": 0.1, "foreground_true": 0.1}

    return validate


def train(built, root, scores, form="devices"):
    members = {k: (root / f"seed{k}", validation(s)) for k, s in scores.items()}
    return ensemble.run(built, members, form, Console(quiet=True))


def test_each_seed_keeps_its_own_best_patience_and_checkpoints(built, tmp_path):
    config = dataclasses.replace(CONFIG, patience=1, eval_every=2)
    one = dataclasses.replace(built, config=config)
    ends = train(one, tmp_path, {0: [0.1, 0.5, 0.2], 1: [0.1, 0.2, 0.3, 0.4]})
    assert (ends[0].step, ends[0].best_step, ends[0].best) == (6, 4, 0.5)
    assert (ends[1].step, ends[1].best_step, ends[1].best) == (8, 8, 0.4)
    lines = read_journal(tmp_path / "seed0" / "metrics.jsonl")
    assert max(line["step"] for line in lines) == 6
    store = Checkpoints(tmp_path / "seed0" / "checkpoints", say=print)
    assert store.steps()[0] == 6


@pytest.mark.slow
def test_killed_at_different_steps_they_end_as_if_undisturbed(built, tmp_path):
    scores = {0: [0.1, 0.2], 1: [0.2, 0.1]}
    train(built, tmp_path / "a", scores)
    half = dataclasses.replace(built, config=dataclasses.replace(CONFIG, num_steps=4))
    train(half, tmp_path / "b", {0: [0.1]})  # seed 1 has not begun
    train(built, tmp_path / "b", {0: [0.2], 1: [0.2, 0.1]})
    for seed in (0, 1):
        files = [tmp_path / x / f"seed{seed}" / "metrics.jsonl" for x in "ab"]
        assert files[0].read_text() == files[1].read_text()


def test_a_seed_that_diverges_does_not_stop_the_other(built, tmp_path, monkeypatch):
    real = loop.log_step

    def log_step(job, state, done, *rest):
        if job.program.seed == 1 and done == 4:
            raise Diverged("not finite since step 3")
        real(job, state, done, *rest)

    monkeypatch.setattr(loop, "log_step", log_step)
    ends = train(built, tmp_path, {0: [0.1, 0.2], 1: [0.1]})
    assert ends[0].step == 8
    assert isinstance(ends[1], Diverged)


def test_the_fastest_form_is_chosen_and_named(built, monkeypatch):
    lines = []
    console = Console(quiet=True)
    console.line = lines.append
    times = {"devices": 0.2, "vmap": 0.5}
    monkeypatch.setattr(ensemble, "seconds_per_step", lambda _, form, n: times[form])
    monkeypatch.setattr(ensemble, "serial_seconds_per_step", lambda _, n: 0.3)
    assert ensemble.choose(built, 4, console) == "devices"
    assert lines == [
        "ensemble: 4 seeds, a step of all: serial 300 ms, vmap 500 ms, devices 200 ms; "
        "takes devices"
    ]
