"""How rare cells are: quantiles of the foreground share, beside those of FNC."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import published_tables

from fluojax.data.sources import load_dataset
from fluojax.files import write_atomic
from fluojax.report.figures import png_bytes, subplots
from fluojax.runs import read_config
from fluojax.sweep.members import Member

QUANTILES = {"min": 0.0, "q10": 0.1, "q25": 0.25, "q50": 0.5, "q75": 0.75}
QUANTILES |= {"q90": 0.9, "max": 1.0}


def draw(root: Path, members: Sequence[Member]) -> list[tuple[str, str]]:
    """`figures/signal_share.png` from the images of the first finished member."""
    if not members:
        return []
    config = read_config(members[0].folder)
    dataset = load_dataset(config.data, config.data_options, data_dir=config.manual_dir)
    records = [r for part in dataset.splits.values() for r in part if r.has_labels]
    shares = [100 * float((r.instances > 0).mean()) for r in records]
    published = published_tables.read("fnc_signal")
    theirs = [published["signal_percent"][name] for name in QUANTILES]
    ours = np.quantile(shares, list(QUANTILES.values()))
    figure, ((axis,),) = subplots(1, 1, figsize=(6, 3.5))
    axis.plot(ours, "o-", label=f"{dataset.name}, mean {np.mean(shares):.2f} %")
    label = f"FNC yellow (slides), mean {published['signal_percent']['mean']} %"
    axis.plot(theirs, "D--", color="0.3", label=label)
    axis.set_xticks(range(len(QUANTILES)), list(QUANTILES))
    axis.set(ylabel="foreground of an image in %", yscale="symlog", ylim=(0, None))
    axis.legend(fontsize=8)
    write_atomic(root / "figures" / "signal_share.png", png_bytes(figure))
    return [("Share of cell pixels per image, quantiles", "figures/signal_share.png")]
