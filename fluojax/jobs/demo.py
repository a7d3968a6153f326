"""`fluojax demo`: the whole path on generated cells, without data or network."""

from pathlib import Path

from fluojax.config import Experiment, Term
from fluojax.console import Console
from fluojax.jobs.train import train


def experiment(out: Path) -> Experiment:
    """300 steps of the small c-ResUnet on 64 generated images."""
    return Experiment(
        data="fnc_synth/demo",
        model="cresunet_nano",
        loss=(Term("cross_entropy_loss"), Term("dice_loss")),
        crop=128,
        batch_size=8,
        learning_rate=3e-3,
        schedule="cosine",
        num_steps=300,
        eval_every=100,
        save_every=100,
        workdir=str(out / "run"),
    )


def run(out: Path, console: Console) -> None:
    """Trains, scores, predicts a few test images as a user would, and reports."""
    train(experiment(out), console=console)
    console.line(f"report: {out / 'run' / 'report.md'}")
