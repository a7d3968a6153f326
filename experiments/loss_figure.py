r"""The picture of the losses' documentation: what each loss sees of three errors.

Run:   python experiments/loss_figure.py --out docs/losses.png    (a minute on a CPU)
Known: docs/losses.png, shown and read in fluojax/losses/README.md

Rows: one cell of nine displaced by 3 pixels; the gap of 2 pixels between two
cells filled; one cell of nine missed. Columns: minus the gradient with respect
to the logits, each scaled to its own largest value, with the share of its
absolute sum that falls on wrong pixels. Below: loss against the displacement of
a lone cell, each curve divided by its largest value.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from fluojax import losses

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

SIZE, RADIUS, PITCH = 96, 8.0, 28.0
STEEPNESS, LARGEST = 1.5, 6.0  # logits per pixel from the border, and at most
CENTRES = [(20 + PITCH * i, 20 + PITCH * j) for i in range(3) for j in range(3)]


def instance_loss(loss, **options):
    """A loss of instances as one of logits and labels: cells are components."""
    return lambda z, g: loss(z, g, instances=_numbered(g), **options)


def _numbered(labels):
    from fluojax import ops

    return jax.vmap(lambda m: ops.label_components(m[..., 0] > 0.5)[0])(labels)


LOSSES = {
    "Dice": losses.dice_loss,
    "BCE": losses.cross_entropy_loss,
    "focal": losses.focal_loss,
    "clDice": lambda z, g: losses.soft_cldice_loss(z, g, num_iters=10),
    "local moments": losses.local_moment_loss,
    'local moments,\n"local"': lambda z, g: losses.local_moment_loss(
        z, g, normalization="local"
    ),
    "instance moments": instance_loss(losses.instance_moment_loss),
    "global moments": lambda z, g: losses.global_moment_loss(z, g, order=2),
}


def distance_inside(centres, radius=RADIUS):
    """Signed distance to the border of the union of discs, positive inside."""
    y, x = np.mgrid[:SIZE, :SIZE]
    each = [radius - np.hypot(y - a, x - b) for a, b in centres]
    return np.max(each, axis=0)


def logits_of(depth):
    return np.clip(STEEPNESS * depth, -LARGEST, LARGEST)


def cases():
    """Name -> (labels, logits), both `[H, W]`."""
    middle = CENTRES.index((48.0, 48.0))
    truth = distance_inside(CENTRES) > 0
    moved = [(a + 3, b) if i == middle else (a, b) for i, (a, b) in enumerate(CENTRES)]
    missed = [c for i, c in enumerate(CENTRES) if i != middle]
    pair = [(48.0, 48.0 - 9.5), (48.0, 48.0 + 9.5)]
    gap = distance_inside(pair)
    filled = gap.copy()
    y, x = np.mgrid[:SIZE, :SIZE]
    bridge = np.minimum(4.0 - np.abs(y - 48), 9.5 - np.abs(x - 48))
    filled = np.maximum(filled, bridge)
    return {
        "displaced by 3 px": (truth, logits_of(distance_inside(moved))),
        "gap of 2 px filled": (gap > 0, logits_of(filled)),
        "missed": (truth, logits_of(distance_inside(missed))),
    }


def pull(loss, labels, logits):
    """Minus the gradient `[H, W]`, and its share on wrong pixels."""
    z = jnp.asarray(logits, jnp.float32)[None, ..., None]
    g = jnp.asarray(labels, jnp.float32)[None, ..., None]
    slope = -np.asarray(jax.grad(lambda z: loss(z, g).sum())(z))[0, ..., 0]
    wrong = (logits > 0) != labels
    total = np.abs(slope).sum()
    return slope, float(np.abs(slope)[wrong].sum() / total) if total else float("nan")


def displacement_curve(loss, shifts):
    """Loss against the shift of a cell of radius 5 that is alone."""
    y, x = np.mgrid[:SIZE, :SIZE]
    depths = [5.0 - np.hypot(y - 48, x - (36 + t)) for t in shifts]
    logits = jnp.asarray(np.stack([logits_of(d) for d in depths]), jnp.float32)
    labels = jnp.broadcast_to(jnp.asarray(depths[0] > 0, jnp.float32), logits.shape)
    return np.asarray(loss(logits[..., None], labels[..., None]))


def draw(out: Path) -> None:
    shown = cases()
    columns = 1 + len(LOSSES)
    figure = plt.figure(figsize=(1.75 * columns, 9.6), constrained_layout=True)
    grid = figure.add_gridspec(len(shown) + 1, columns, height_ratios=[1, 1, 1, 1.5])
    for row, (name, (labels, logits)) in enumerate(shown.items()):
        axes = figure.add_subplot(grid[row, 0])
        axes.imshow(logits, cmap="gray", vmin=-LARGEST, vmax=LARGEST)
        axes.contour(labels, [0.5], colors="tab:orange", linewidths=1)
        axes.set_ylabel(name)
        _bare(axes)
        if row == 0:
            axes.set_title("logits, truth", fontsize=9)
        for column, (title, loss) in enumerate(LOSSES.items(), start=1):
            axes = figure.add_subplot(grid[row, column])
            slope, share = pull(loss, labels, logits)
            largest = np.abs(slope).max() or 1.0
            axes.imshow(slope, cmap="RdBu", vmin=-largest, vmax=largest)
            axes.contour(labels, [0.5], colors="black", linewidths=0.4)
            axes.set_xlabel(f"{100 * share:.0f} % on wrong pixels", fontsize=8)
            _bare(axes)
            print(f"{name:<20} {title.splitlines()[0]:<16} {share:.3f}")
            if row == 0:
                axes.set_title(title, fontsize=9)
    axes = figure.add_subplot(grid[-1, :])
    # Whole pixels: soft skeletons of discs between pixels come and go.
    shifts = np.arange(25.0)
    for title, loss in LOSSES.items():
        values = displacement_curve(loss, shifts)
        label = title.replace("\n", " ")
        axes.plot(shifts, values / values.max(), label=label)
    axes.set_xlabel(
        "displacement of a cell of radius 5, pixels (no overlap from 10 on)"
    )
    axes.set_ylabel("loss / largest value")
    axes.legend(fontsize=8, ncols=4)
    figure.savefig(out, dpi=110)


def _bare(axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/losses.png"))
    draw(parser.parse_args().out)
