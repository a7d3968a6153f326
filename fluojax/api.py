"""Training, prediction and scoring in a notebook: `fit`, `load`, `evaluate`.

run = fluojax.fit("my_cells/", steps=2000, workdir="runs/first")
run.curves(); run.panel(3)
model = fluojax.load("runs/first")
out = model(image)
scores = fluojax.evaluate(out.instances, truth, iou=0.4)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluojax import config as configs
from fluojax import exported_program, report, runs
from fluojax.config import Experiment
from fluojax.data.sources import load_dataset
from fluojax.exported import read_weights
from fluojax.inference import evaluation, files, prediction, tables
from fluojax.inference.postprocess import instances_from_probs
from fluojax.jobs.evaluate import reference_instances
from fluojax.jobs.train import train
from fluojax.train.journal import read_journal


@dataclass(frozen=True)
class Prediction:
    """What a network sees in one image.

    Attributes:
      image: the image `[H, W, C]` as given.
      instances: `[H, W]` int32, 0 background, 1..N cells.
      probs: `[H, W]` float32 foreground probability.
      table: one array per column, one entry per cell (see `inference.tables`).
    """

    image: np.ndarray
    instances: np.ndarray
    probs: np.ndarray
    table: dict[str, np.ndarray]

    def overlay(self) -> bytes:
        """PNG of the image with coloured outlines and the number of cells."""
        caption = f"{self.instances.max(initial=0)} cells"
        return files.overlay_png_bytes(self.image, self.instances, caption)


class Model:
    """A trained run as a function from image to `Prediction`."""

    def __init__(self, path: str | Path):
        suffix = Path(path).suffix
        if suffix == exported_program.SUFFIX:
            self.run, self._network = exported_program.read_program(path)
            return
        weights = suffix == ".safetensors"
        self.run = read_weights(path) if weights else runs.open_run(path)
        self._network = runs.network_of(self.run)

    def __call__(self, image: np.ndarray) -> Prediction:
        """`image` is `[H, W]` or `[H, W, C]` in the values of a file.

        Raises:
          ValueError: another rank, or channels the network was not trained on.
        """
        image = np.asarray(image)
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim != 3 or image.shape[-1] != self.run.channels:
            raise ValueError(
                f"model: image must be [rows, columns, {self.run.channels}], got "
                f"{image.shape}"
            )
        probs = prediction.probabilities(self._network, image)
        post = configs.postprocess_options(self.run.config)
        instances = instances_from_probs(probs, threshold=self.run.threshold, **post)
        table = tables.cell_table(instances, image, probs)
        return Prediction(image, instances, probs, table)


@dataclass(frozen=True)
class Trained(Mapping[str, Any]):
    """A finished run: its figures, and as a mapping the contents of `results.json`.

    Attributes:
      folder: of the run, for `load`.
      results: scores, threshold, steps, versions, ...
    """

    folder: Path
    results: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.results[name]

    def __iter__(self):
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def curves(self):
        """Loss, learning rate and validation scores as a matplotlib figure."""
        return report.curves_figure(read_journal(self.folder / "metrics.jsonl"))

    def panel(self, index: int = 0):
        """Image, truth, prediction and errors as a matplotlib figure.

        Args:
          index: of the labelled images of the split that was scored.

        Raises:
          IndexError: the split has fewer.
        """
        run = runs.open_run(self.folder)
        config = run.config
        dataset = load_dataset(
            config.data, config.data_options, data_dir=config.manual_dir
        )
        records = [r for r in dataset.splits[self["split"]] if r.has_labels]
        if not -len(records) <= index < len(records):
            raise IndexError(
                f"panel: {self['split']} has {len(records)} labelled images, "
                f"got {index}"
            )
        found = Model(self.folder)(records[index].image)
        true = reference_instances(records[index], dataset.reference)
        title = records[index].id
        panel = report.Panel(title, records[index].image, true, found.instances)
        return report.panels_figure([panel])


@dataclass(frozen=True)
class Scores:
    """Objects of one image against the truth; `count_error` is true minus found."""

    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    count_error: int


def fit(
    data: str,
    *,
    loss: str | None = None,
    steps: int | None = None,
    workdir: str | Path | None = None,
    **fields: Any,
) -> Trained:
    """Trains, or continues, and returns the run.

    Args:
      data: folder, `fnc_synth` or `tfds:NAME`.
      loss: registered loss, or several joined by +.
      steps: training steps.
      workdir: run folder, for `load`.
      **fields: any field of `fluojax.config.Experiment`.
    """
    given = {"data": data, "loss": loss, "num_steps": steps}
    given["workdir"] = None if workdir is None else str(workdir)
    fields |= {name: value for name, value in given.items() if value is not None}
    experiment = configs.apply_overrides(Experiment(), fields)
    folder = Path(experiment.workdir or configs.default_workdir(experiment))
    return Trained(folder, train(experiment))


def load(path: str | Path) -> Model:
    """A trained network as a function of images.

    Args:
      path: run folder (its best checkpoint), or a `.safetensors` or `.jaxexport`
        file that `fluojax export` wrote.
    """
    return Model(path)


def evaluate(pred: np.ndarray, true: np.ndarray, *, iou: float = 0.4) -> Scores:
    """Matches `[H, W]` instances by the loss study's rule: IoU > `iou`, many-to-one."""
    options = evaluation.Options(iou=iou)
    pred, true = np.asarray(pred, np.int32), np.asarray(true, np.int32)
    row = evaluation.score_image(true, pred, options, quick=True)
    tp, fp, fn = (row[f"{kind}_iou"] for kind in ("tp", "fp", "fn"))
    return Scores(
        tp=tp,
        fp=fp,
        fn=fn,
        precision=tp / (tp + fp) if tp + fp else float("nan"),
        recall=tp / (tp + fn) if tp + fn else float("nan"),
        f1=evaluation.f1(tp, fp, fn),
        count_error=row["n_true"] - row["n_pred"],
    )
