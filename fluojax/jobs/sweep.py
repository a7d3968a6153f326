"""`fluojax sweep`: the missing members of an experiment, then its table."""

import dataclasses
import fnmatch
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluojax import config as configs
from fluojax import environment
from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.data.record import Dataset
from fluojax.data.sources import load_dataset
from fluojax.errors import Diverged, UserError, some
from fluojax.files import to_json, write_atomic
from fluojax.jobs.train import resolve, train, train_seeds
from fluojax.sweep import pages
from fluojax.sweep.members import (
    MEASURES,
    PLAN,
    Member,
    read_member,
    read_members,
    read_plan,
)
from fluojax.sweep.study import Study
from fluojax.train import ensemble, program


def sweep(
    study: Study,
    root: Path,
    *,
    command: str,
    console: Console,
    only: str | None = None,
    element: int | None = None,
    how: str = "serial",
) -> str:
    """Runs what is missing and writes the pages of the sweep.

    Args:
      study: what to run.
      root: folder of the sweep; a member whose results.json exists is done.
      command: how to repeat it, for the pages.
      console: where progress goes.
      only: pattern of `<configuration>/seed<k>` or of the configuration.
      element: number of the only member to run, as in `members_of`.
      how: the seeds of a configuration share the machine: "serial", "devices",
        "vmap" or "auto", see `train.ensemble`.

    Returns:
      The text of table.md.

    Raises:
      UserError: the folder holds another sweep, or a member cannot be started.
      Interrupted: a signal came; the same command continues.
    """
    planned = members_of(study)
    wanted = chosen(planned, only)
    if element is not None:
        if not 0 <= element < len(planned):
            raise UserError(f"--element {element}: members are 0 to {len(planned) - 1}")
        wanted = [planned[element]]
    write_plan(study, root, command)
    for name, experiment in study.members.items():
        seeds = [seed for which, seed in wanted if which == name]
        missing = [s for s in seeds if not read_member(root, name, s).finished]
        if missing:
            console.line(f"sweep  {name}: seeds {', '.join(map(str, missing))}")
            _run_seeds(experiment, root / name, missing, how, console)
    measure_members(study, root, [read_member(root, *which) for which in wanted])
    draw_figures(study, root)
    return pages.write_pages(root)


def members_of(study: Study) -> list[tuple[str, int]]:
    """(configuration, seed) of all members; element k of an array runs the k-th."""
    return [(name, seed) for name in study.members for seed in study.seeds]


def chosen(members: Sequence[tuple[str, int]], only: str | None):
    """Members whose configuration or `configuration/seed<k>` fits a pattern.

    Raises:
      UserError: none does.
    """
    if only is None:
        return list(members)
    fits = [
        (name, seed)
        for name, seed in members
        if fnmatch.fnmatch(name, only) or fnmatch.fnmatch(f"{name}/seed{seed}", only)
    ]
    if not fits:
        names = dict.fromkeys(name for name, _ in members)
        raise UserError(f"--only {only}: fits none of {some(names, 20)}")
    return fits


def list_members(study: Study, root: Path, only: str | None, console: Console) -> None:
    """A line for each member: its number, name, state and main score."""
    planned = members_of(study)
    wanted = set(chosen(planned, only))
    for number, (name, seed) in enumerate(planned):
        if (name, seed) not in wanted:
            continue
        member = read_member(root, name, seed)
        score = ""
        if member.finished:
            score = f"  {study.columns[0]} {member.value(study.columns[0]):.3f}"
        console.line(f"{number:4d}  {name}/seed{seed}  {member.state}{score}")


def write_plan(study: Study, root: Path, command: str) -> None:
    """`sweep.json`: all that the pages need beside the folders of the members.

    Members of another call stay in it, so that `--seeds 5` after `--seeds 3` adds
    to a sweep.

    Raises:
      UserError: a configuration of that name was planned differently.
    """
    plan = plan_of(study, command)
    if (root / PLAN).exists():
        old = read_plan(root)
        _refuse_other(old["members"], plan["members"], root)
        plan["seeds"] = sorted({*old["seeds"], *plan["seeds"]})
        plan["figures"] = old.get("figures", [])
    write_atomic(root / PLAN, to_json(plan))


def plan_of(study: Study, command: str) -> dict[str, Any]:
    """A study as plain data."""
    members = {name: configs.to_dict(m) for name, m in study.members.items()}
    published = {
        name: {column: dataclasses.asdict(value) for column, value in row.items()}
        for name, row in study.published.items()
    }
    return {
        "title": study.title,
        "command": command,
        "configurations": list(study.members),
        "seeds": list(study.seeds),
        "columns": list(study.columns),
        "labels": dict(study.labels),
        "published": published,
        "source": study.source,
        "comparable": study.comparable,
        "notes": list(study.notes),
        "members": members,
        "figures": [],
    }


def _refuse_other(old: Mapping[str, Any], new: Mapping[str, Any], root: Path) -> None:
    """Fields that may change on a resume may differ, those of a later version be new."""
    free = {*configs.RESUMABLE, "seed"} - {"num_steps"}
    for name in [name for name in new if name in old]:
        differing = [
            f"{name}.{field}: {old[name].get(field)!r} -> {value!r}"
            for field, value in new[name].items()
            if field not in free and old[name].get(field, value) != value
        ]
        if differing:
            raise UserError(
                f"{root} holds another sweep: {some(differing)}; choose another "
                "--workdir, or drop the changes"
            )


def _run_seeds(
    experiment: Experiment,
    folder: Path,
    seeds: Sequence[int],
    how: str,
    console: Console,
) -> None:
    """The seeds of a configuration: data decoded and programs compiled once."""
    dataset = _dataset(experiment)
    shared = program.build(resolve(experiment, dataset), dataset)
    members = [
        dataclasses.replace(experiment, seed=seed, workdir=str(folder / f"seed{seed}"))
        for seed in seeds
    ]
    form = _form(how, shared, len(members), console)
    if form != "serial":
        failed = train_seeds(
            members, dataset=dataset, built=shared, form=form, console=console
        )
        for member in members:
            if member.seed in failed:
                _record_divergence(member, dataset, failed[member.seed], console)
        return
    for member in members:
        try:
            train(member, dataset=dataset, built=shared, console=console)
        except Diverged as error:
            _record_divergence(member, dataset, error, console)


def _form(how: str, built: program.Program, count: int, console: Console) -> str:
    """The form of an ensemble: as asked, one after another for a single seed."""
    if count == 1 or how == "serial":
        return "serial"
    return ensemble.choose(built, count, console) if how == "auto" else how


_loaded: dict[str, Dataset] = {}


def _dataset(experiment: Experiment) -> Dataset:
    """The data set of an experiment, kept for the next one: most share it."""
    fields = configs.to_dict(experiment)
    key = repr([fields[name] for name in ("data", "data_options", "manual_dir")])
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_dataset(
            experiment.data, experiment.data_options, data_dir=experiment.manual_dir
        )
    return _loaded[key]


def _record_divergence(
    member: Experiment, dataset: Dataset, error: Diverged, console: Console
) -> None:
    """A results.json that ends the member: it diverged, and is not run again."""
    console.line(f"{member.workdir}: diverged: {error}")
    results = {
        "scores": {"diverged": True, "collapsed": False},
        "message": str(error),
        "steps": 0,
        "hours": 0.0,
        "config": configs.to_dict(resolve(member, dataset)),
        **environment.environment(),
    }
    write_atomic(Path(member.workdir) / "results.json", to_json(results))


def measure_members(study: Study, root: Path, members: Sequence[Member]) -> None:
    """Scores that only this experiment has, once per member that worked out."""
    if study.measure is None:
        return
    for member in members:
        scored = member.state in ("done", "collapsed")
        if scored and not (member.folder / MEASURES).exists():
            measures = study.measure(member.folder)
            write_atomic(member.folder / MEASURES, to_json(measures))


def draw_figures(study: Study, root: Path) -> None:
    """Figures that only this experiment has; their captions go into sweep.json."""
    if study.figures is None:
        return
    plan = read_plan(root)
    members = [m for m in read_members(root, plan) if m.finished]
    plan["figures"] = [list(entry) for entry in study.figures(root, members)]
    write_atomic(root / PLAN, to_json(plan))


def slurm_script(arguments: Sequence[str], count: int) -> str:
    """A job array whose element k runs member k; finished ones exit at once."""
    words = shlex.join(["fluojax", *arguments])
    return f"""#!/bin/bash
#SBATCH --array=0-{count - 1} --ntasks=1 --gpus-per-task=1 --cpus-per-task=8
#SBATCH --time=04:00:00 --signal=TERM@180 --requeue --open-mode=append
#SBATCH --output=slurm_%A_%a.log
srun {words} --element "$SLURM_ARRAY_TASK_ID" || code=$?
[ "${{code:-0}}" -eq 75 ] && scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
exit "${{code:-0}}"
"""
