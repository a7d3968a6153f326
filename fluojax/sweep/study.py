"""What an experiment is: configurations times seeds, and how they are told.

A script under `experiments/` (or anywhere) defines `study(options) -> Study`;
`load_study` runs it and asks. Standard library only.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fluojax import config as configs
from fluojax.config import Experiment
from fluojax.errors import UserError, nearest

# Of the run folder of a finished member: numbers beside those of results.json.
Measure = Callable[[Path], Mapping[str, Any]]
# (folder of the sweep, its finished members) -> (caption, PNG below the folder).
Figures = Callable[[Path, Sequence[Any]], Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Options:
    """What the command line asks of a script.

    Attributes:
      data: data set in place of the script's own, None for that.
      scale: "small" for two CPU cores, "full" for an accelerator.
      variant: one of the script's variants, None for its first.
      smoke: a tiny run on generated images that shows that all parts work.
    """

    data: str | None = None
    scale: Literal["small", "full"] = "small"
    variant: str | None = None
    smoke: bool = False


@dataclass(frozen=True)
class Published:
    """A published value: mean, standard deviation over `n` runs, None if not told."""

    mean: float
    sd: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Study:
    """An experiment as data.

    Attributes:
      title: heading of its pages; a small budget is named there.
      members: an experiment per configuration; the sweep sets seed and workdir.
      seeds: of every configuration.
      columns: scores to show; the first is the main one, by which rows are
        sorted and compared. Names as in `sweep.results.SCORES`, or numbers that
        `measure` returns.
      labels: name of a configuration in the table, its key where absent.
      published: configuration -> score -> value.
      source: where the published values stand.
      comparable: they are of the same data and budget; only then is a difference
        to them marked where it exceeds their errors.
      notes: printed under the table, footnotes of the published values first.
      measure: further scores of a finished member, stored beside its results.
      figures: draws what only this experiment has.
    """

    title: str
    members: Mapping[str, Experiment]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    columns: tuple[str, ...] = ("f1_iou", "f1_distance", "mae", "medae", "mpe")
    labels: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, Published]] = field(default_factory=dict)
    source: str = ""
    comparable: bool = True
    notes: tuple[str, ...] = ()
    measure: Measure | None = None
    figures: Figures | None = None


# One tiny run for every script: generated images, a narrow network, ten steps.
SMOKE = {
    "data": "fnc_synth/smoke",
    "crop": 64,
    "batch_size": 4,
    "num_steps": 10,
    "eval_every": 5,
    "save_every": 5,
}
SMOKE_VOLUMES = {"data": "lesion3d_synth/smoke", "crop": 16, "batch_size": 2}


def load_study(path: str | Path, options: Options) -> Study:
    """The study of a script, or of a configuration file: that one, five seeds.

    The script is executed as Python would run it: modules beside it can be
    imported.

    Raises:
      UserError: no such file, an error in it, or no study in it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"sweep: {path}: no such experiment script")
    if path.suffix != ".py":
        return _single(path, options)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        names = configs.run_python(path)
    finally:
        sys.path.pop(0)
    if not callable(names.get("study")):
        if callable(names.get("get_config")):
            return _single(path, options)
        raise UserError(f"{path}: defines no study(options) and no get_config()")
    variants = names.get("VARIANTS", ())
    if options.variant is not None and options.variant not in variants:
        raise UserError(
            f"--variant: {options.variant!r} is unknown"
            f"{nearest(options.variant, variants)}; {path.name} has "
            f"{', '.join(variants) or 'none'}"
        )
    study = names["study"](options)
    if not isinstance(study, Study):
        raise UserError(
            f"{path}: study() must return a Study, got {type(study).__name__}"
        )
    return replace(study, members=_with_options(study.members, options))


def _single(path: Path, options: Options) -> Study:
    members = _with_options({path.stem: configs.load_config(path)}, options)
    return Study(title=path.stem, members=members)


def _with_options(
    members: Mapping[str, Experiment], options: Options
) -> dict[str, Experiment]:
    """Members with the data set asked for, or in their tiny form."""
    found = {}
    for name, member in members.items():
        overrides: dict[str, Any] = dict(SMOKE) if options.smoke else {}
        if options.smoke and member.data.startswith("lesion3d_synth"):
            overrides |= SMOKE_VOLUMES
        if options.data is not None:
            overrides["data"] = options.data
        found[name] = configs.apply_overrides(member, overrides)
    return found


def parse_seeds(text: str) -> tuple[int, ...]:
    """`"5"` for the seeds 0..4, `"0,5,25"` for these.

    Raises:
      UserError: neither.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise UserError(
            f"--seeds: needs a number (how many, from 0) or a list such as 0,5,25; "
            f"got {text!r}"
        )
    if len(words) == 1 and "," not in text:
        return tuple(range(int(words[0])))
    return tuple(dict.fromkeys(int(word) for word in words))
