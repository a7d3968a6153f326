"""`fluojax demo`: the whole path on generated cells, without data or network."""

from pathlib import Path

from PIL import Image

from fluojax.config import Experiment, Term
from fluojax.console import Console
from fluojax.data import fnc_synth
from fluojax.jobs import predict
from fluojax.jobs.train import train

SHOWN = 3  # test images that are also predicted file by file


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
    """Trains, scores, and predicts three test images as a user would."""
    config = experiment(out)
    train(config, console=console)
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for record in fnc_synth.records("test", SHOWN):
        name = record.id.replace("/", "_")
        Image.fromarray(record.image).save(folder / f"{name}.png")
    predict.predict_files(
        out / "run", [str(folder)], out / "predictions", console=console
    )
    console.line(f"report: {out / 'run' / 'report.html'}; masks, tables and overlays: "
                 f"{out / 'predictions'}")  # fmt: skip
