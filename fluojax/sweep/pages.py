"""Files of a sweep: table.md, .csv and .tex, members.csv, report.md and .html."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluojax.files import write_atomic
from fluojax.report import blocks
from fluojax.sweep import figures, table
from fluojax.sweep.members import Member, read_members, read_plan, score_of


def write_pages(root: Path) -> str:
    """Builds all pages of a sweep from what its runs left; returns table.md.

    Raises:
      UserError: the folder is no sweep.
    """
    plan = read_plan(root)
    members = read_members(root, plan)
    rows = table.rows_of(plan, members)
    header, lines = table.main_table(plan, rows)
    content = [
        *_head(plan, members),
        blocks.Table(header, lines),
        *_footnotes(plan, rows),
    ]
    text = blocks.to_markdown(plan["title"], content)
    write_atomic(root / "table.md", text)
    write_atomic(root / "table.csv", table.to_csv(plan, rows))
    write_atomic(root / "members.csv", table.members_csv(plan, members))
    write_atomic(root / "table.tex", table.to_tex(header, lines))
    content += _beside_published(plan, rows) + _figures(root, plan, rows, members)
    content += [*_members(members, plan), *_how_to_repeat(plan)]
    blocks.write_pages(root, plan["title"], content)
    return text


def _head(plan: Mapping[str, Any], members: Sequence[Member]) -> list[blocks.Block]:
    """What every reader of the table must know, from the results themselves."""
    finished = [m for m in members if m.finished]
    facts = facts_of(plan, finished)
    rows = [[name, value] for name, value in facts.items()]
    head: list[blocks.Block] = [blocks.Table(["", ""], rows)]
    left = len(members) - len(finished)
    if left:
        head.append(
            blocks.Note(f"{left} of {len(members)} members are missing: no final table")
        )
    return head


def facts_of(plan: Mapping[str, Any], finished: Sequence[Member]) -> dict[str, str]:
    """Data, model, budget, hardware, versions and command of the finished members."""
    results = [m.results for m in finished]
    configs = [r["config"] for r in results]
    hours = sum(r.get("hours", 0.0) for r in results)
    devices = [", ".join(_counted(r["devices"])) for r in results if r.get("devices")]
    parameters = [f"{r['parameters']:,}" for r in results if r.get("parameters")]
    return {
        "data": _distinct(map(_data_name, configs)),
        "split": _distinct(
            f"{r['split']}, {r['scores'].get('n_images', '?')} images, objects count "
            f"against {r['scores'].get('reference', '?')}"
            for r in results if r.get("split")
        ),
        "image sizes": _distinct(
            text for r in results for text in r.get("image_sizes", {})
        ),
        "model": _distinct(c["model"] for c in configs),
        "parameters": _distinct(parameters),
        "steps, batch, crop": _distinct(
            f"{c['num_steps']}, {c['batch_size']}, {c['crop']}" for c in configs
        ),
        "precision": _distinct(c["precision"] for c in configs),
        "post-processing": _distinct(_postprocess(r) for r in results),
        "seeds": ", ".join(map(str, plan["seeds"])),
        "hardware": _distinct(
            f"{d}, {r['cpus']} CPU cores" for d, r in zip(devices, results, strict=False)
        ),
        "hours": f"{hours:.1f} in all",
        "fluojax": _distinct(f"{r['fluojax']} {r['commit'] or ''}" for r in results),
        "jax": _distinct(str(r["jax"]) for r in results),
        "command": plan["command"],
    }  # fmt: skip


def _data_name(config: Mapping[str, Any]) -> str:
    """The name of a generated or published set, the last part of a folder's path."""
    data = config["data"]
    named = data.startswith(("tfds:", "fnc_synth", "lesion3d_synth"))
    return data if named else Path(data).name


def _counted(names: Sequence[str]) -> list[str]:
    return [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]


def _postprocess(results: Mapping[str, Any]) -> str:
    options = results.get("postprocess", {})
    return ", ".join(f"{k} {v}" for k, v in options.items() if v not in (0, False))


def _distinct(values, limit: int = 6) -> str:
    found = sorted(set(values))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return "; ".join(found[:limit]) + more


def _footnotes(
    plan: Mapping[str, Any], rows: Sequence[table.Row]
) -> list[blocks.Block]:
    """How to read the table, then the notes of the experiment and its sources."""
    notes = [
        "n: members that worked, of those planned. Values are mean ± sample sd over "
        "all finished members; a member that collapsed (no object on the whole test "
        "set) or diverged counts as 0 in every score of overlap. In square brackets: "
        "how many members worked and the mean over these alone.",
        "To best: difference of the main score to that of the first row, with the "
        "interval of a bootstrap over seeds and images (2,000 draws, paired, Holm's "
        'correction over the rows, level 0.05). "worse" stands only where it '
        "excludes 0.",
    ]
    if any(cell.published for row in rows for cell in row.cells.values()):
        star = "; a star marks more than two pooled standard errors"
        notes.append(
            f"Published: {plan['source']}. Δ is ours minus published"
            f"{star if plan['comparable'] else ''}."
        )
    return [blocks.Paragraph(text) for text in (*notes, *plan["notes"])]


def _beside_published(plan, rows) -> list[blocks.Block]:
    found = table.published_table(plan, rows)
    if found is None:
        return []
    return [blocks.Heading("Beside the published values"), blocks.Table(*found)]


def _figures(
    root: Path,
    plan: Mapping[str, Any],
    rows: Sequence[table.Row],
    members: Sequence[Member],
) -> list[blocks.Block]:
    """Bars of every score, curves of training, then the experiment's own."""
    drawn: list[blocks.Block] = []
    for column in plan["columns"]:
        png = figures.bars(rows, column)
        if png is not None:
            text = f"{score_of(column).label}: mean and sd over the seeds"
            drawn.append(blocks.Figure(f"figures/{column}.png", png, text))
    png = figures.curves(members, plan["labels"])
    if png is not None:
        text = "Training loss and validation Dice over steps, means over the seeds"
        drawn.append(blocks.Figure("figures/curves.png", png, text))
    for caption, name in plan.get("figures", []):
        if (root / name).is_file():
            drawn.append(blocks.Figure(name, (root / name).read_bytes(), caption))
    return [blocks.Heading("Figures"), *drawn] if drawn else []


def _members(members: Sequence[Member], plan: Mapping[str, Any]) -> list[blocks.Block]:
    main = plan["columns"][0]
    header = ["member", "state", score_of(main).label, "best step", "hours"]
    lines = []
    for member in members:
        value = member.value(main)
        lines.append([
            f"{member.configuration}/seed{member.seed}",
            member.state,
            "–" if math.isnan(value) else table.number(value, main),
            str(member.results.get("best_step", "–")),
            f"{member.results.get('hours', 0):.3f}",
        ])  # fmt: skip
    return [
        blocks.Heading("Members"),
        blocks.Table(header, lines, folded=f"{len(members)} members"),
    ]


def _how_to_repeat(plan: Mapping[str, Any]) -> list[blocks.Block]:
    return [
        blocks.Heading("How to repeat"),
        blocks.Code(plan["command"]),
        blocks.Paragraph(
            "Finished members are not run again; remove a member's folder to redo it."
        ),
    ]
