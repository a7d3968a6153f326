"""`fluojax report RUN`: its pages once more, from the files in its folder."""

from pathlib import Path

from fluojax import report, runs
from fluojax.console import Console
from fluojax.errors import UserError
from fluojax.files import write_atomic
from fluojax.sweep import pages
from fluojax.sweep.members import PLAN
from fluojax.train.journal import read_journal


def report_run(folder: Path, console: Console) -> None:
    """Writes report.md and report.html of a run, finished or not, or of a sweep.

    Needs config.json; results.json, per_image.csv, metrics.jsonl and the figures
    are shown where they are there. Neither the data nor a checkpoint is read.

    Raises:
      UserError: the folder is none of a run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    if (folder / PLAN).is_file():
        console.line(pages.write_pages(folder))
        console.line(f"-> {folder / 'report.html'}")
        return
    experiment = runs.read_config(folder)
    results = runs.read_results(folder)
    journal = read_journal(folder / "metrics.jsonl")
    if journal:
        curves = report.curves_png(journal)
        write_atomic(folder / "figures" / "curves.png", curves)
    table = folder / "per_image.csv"
    rows = []
    if table.is_file():
        rows = report.read_rows(table.read_text(encoding="utf-8"))
    page = report.run_page(folder, results, rows, experiment=experiment)
    report.write_pages(folder, report.run_title(folder, experiment), page)
    console.line(f"-> {folder / 'report.html'}")
