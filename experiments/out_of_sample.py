r"""Members of a sweep on data they have never seen, untouched.

Run:   python experiments/out_of_sample.py runs/loss_study --data DATA --out DIR
       (DATA: a folder of images and masks, or tfds:sbsst265)

Each finished member predicts every labelled image of DATA with the threshold and the
post-processing it was trained with; centres may lie one median cell diameter of DATA
apart. The folder DIR is laid out like a sweep, so its table is made by the same code.
Figures show the scores by kind of picture (picture_kinds.py), and one of each.
"""

import argparse
import time
from pathlib import Path

import picture_kinds

import fluojax
from fluojax import environment, runs
from fluojax.console import Console
from fluojax.data.fingerprint import image_sizes
from fluojax.data.record import Dataset
from fluojax.data.sources import load_dataset
from fluojax.files import to_json, write_atomic
from fluojax.inference import evaluation
from fluojax.jobs import evaluate
from fluojax.jobs.train import cell_diameter
from fluojax.sweep import pages
from fluojax.sweep.members import PLAN, Member, read_members, read_plan


def score(member: Member, dataset: Dataset, data: str, out: Path) -> None:
    """Writes per_image.csv and results.json of a member; its network is not changed."""
    folder = out / member.configuration / f"seed{member.seed}"
    if (folder / "results.json").exists():
        return
    began = time.monotonic()
    run = runs.open_run(member.folder)
    records = [r for part in dataset.splits.values() for r in part]
    options = evaluate.scoring_options(cell_diameter(dataset))
    scored = evaluate.score_records(
        run, records, dataset.reference, options, Console(quiet=True)
    )
    config = dict(member.results["config"], data=data)
    write_atomic(folder / "per_image.csv", evaluation.rows_csv(scored.rows))
    results = dict(member.results, config=config, split="all")
    results |= {"scores": scored.scores, "image_sizes": image_sizes(records)}
    results["hours"] = (time.monotonic() - began) / 3600
    write_atomic(folder / "results.json", to_json(results | environment.environment()))


def draw(
    source: list[Member], out: Path, plan: dict, dataset: Dataset
) -> list[tuple[str, str]]:
    """Scores by kind of picture, and one of each kind by the best member."""
    records = {r.id: r for part in dataset.splits.values() for r in part}
    typical = cell_diameter(dataset)
    kinds = {
        name: picture_kinds.kind_of(r, typical)
        for name, r in records.items()
        if r.has_labels and r.instances.any()
    }
    members = [m for m in read_members(out, plan) if m.state == "done"]
    if not members or not kinds:
        return []
    best = max(members, key=lambda m: m.value("f1_50"))
    folder = next(
        m.folder
        for m in source
        if (m.configuration, m.seed) == (best.configuration, best.seed)
    )
    model = fluojax.load(folder)

    def predict(name: str):
        return records[name], model(records[name].image).instances

    figures = out / "figures"
    scores = picture_kinds.draw_scores(
        figures / "by_kind.png", kinds, members, plan["labels"]
    )
    shown = picture_kinds.draw_examples(figures / "kinds.png", kinds, best, predict)
    return [(scores, "figures/by_kind.png"), (shown, "figures/kinds.png")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, help="default: SWEEP_out_of_sample")
    args = parser.parse_args()
    out = args.out or args.sweep.with_name(f"{args.sweep.name}_out_of_sample")
    plan = read_plan(args.sweep)
    dataset = load_dataset(args.data)
    members = [m for m in read_members(args.sweep, plan) if m.finished]
    for member in members:
        if member.state == "diverged":
            folder = out / member.configuration / f"seed{member.seed}"
            write_atomic(folder / "results.json", to_json(member.results))
        else:
            score(member, dataset, args.data, out)
        print(member.configuration, member.seed, flush=True)
    plan |= {
        "title": f"{plan['title']}: out of sample on {dataset.name}",
        "command": f"python experiments/out_of_sample.py {args.sweep} --data {args.data}",
        "published": {},
        "notes": ["Trained elsewhere, scored here without any change."],
    }
    plan["figures"] = [list(entry) for entry in draw(members, out, plan, dataset)]
    write_atomic(out / PLAN, to_json(plan))
    print(pages.write_pages(out))


if __name__ == "__main__":
    main()
