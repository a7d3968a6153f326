"""Where each loss pulls: its gradient at one and the same prediction, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import measures
import numpy as np
from scipy import ndimage

from fluojax import losses, runs
from fluojax.config import Term
from fluojax.data.record import Record
from fluojax.files import write_atomic
from fluojax.inference import prediction
from fluojax.report.figures import png_bytes, subplots
from fluojax.sweep.members import Member

PATCH = 96  # pixels
PATCHES = 3
SCALED_TO = 0.995  # quantile of the absolute pulls
NEAR = 3  # pixels from a wrong pixel that count as near it
_CLIP = 1e-6  # probabilities this near to 0 and 1


def draw(
    root: Path, members: Sequence[Member], configuration: str, terms: Mapping[str, Term]
) -> list[tuple[str, str]]:
    """`figures/gradients.png` from the first run of a configuration that worked.

    Each column is one loss, scaled to its own largest values: the pixels of a cell
    that the window cuts can outweigh all others.
    """
    fitting = [
        m for m in members if m.configuration == configuration and m.state == "done"
    ]
    if not fitting:
        return []
    run = runs.open_run(fitting[0].folder)
    network = runs.network_of(run)
    size = (1.7 * (len(terms) + 2), 1.9 * PATCHES)
    figure, axes = subplots(PATCHES, len(terms) + 2, figsize=size)
    near: dict[str, list[float]] = {name: [] for name in terms}
    area = []
    for row, record in zip(axes, _records(run.config), strict=False):
        where = _busiest(record.instances)
        probs = prediction.probabilities(network, record.image)[where]
        true = record.instances[where]
        area.append(share_near_errors(np.ones_like(probs), probs, true))
        row[0].imshow(record.image[where].astype(float).mean(-1), cmap="gray")
        row[1].imshow(probs - (true > 0), cmap="PuOr", vmin=-1, vmax=1)
        for axis, (name, term) in zip(row[2:], terms.items(), strict=True):
            pull = -gradient(term, probs, true)
            near[name].append(share_near_errors(pull, probs, true))
            top = np.quantile(np.abs(pull), SCALED_TO) or 1.0
            axis.imshow(pull / top, cmap="PuOr_r", vmin=-1, vmax=1)
            axis.set_title(name, fontsize=7)
        row[0].set_title("image", fontsize=7)
        row[1].set_title("prediction - truth", fontsize=7)
    for axis in axes.flat:
        axis.set_axis_off()
    write_atomic(root / "figures" / "gradients.png", png_bytes(figure))
    shares = ", ".join(f"{name} {np.mean(near[name]):.2f}" for name in terms)
    caption = (
        f"Pull of each loss on every pixel at the same prediction ({configuration}, "
        f"seed {fitting[0].seed}): orange raises the probability, purple lowers it. "
        f"Share of the pull within {NEAR} px of a wrong pixel, where "
        f"{np.mean(area):.2f} of the area lies: {shares}"
    )
    return [(caption, "figures/gradients.png")]


def share_near_errors(pull: np.ndarray, probs: np.ndarray, true: np.ndarray) -> float:
    """Share of the absolute pull that lies near pixels on the wrong side of 0.5."""
    wrong = (probs > 0.5) != (true > 0)
    box = np.ones((3, 3), bool)
    near = ndimage.binary_dilation(wrong, box, NEAR) if wrong.any() else wrong
    total = np.abs(pull).sum()
    return float(np.abs(pull)[near].sum() / total) if total else 0.0


def gradient(term: Term, probs: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Derivative of a loss by the logit of every pixel, `[H, W]`."""
    p = np.clip(probs, _CLIP, 1 - _CLIP)
    logits = jnp.asarray(np.log(p / (1 - p)), jnp.float32)[None, ..., None]
    labels = jnp.asarray(instances > 0, jnp.float32)[None, ..., None]
    loss = losses.create_loss(term.name, **term.options)
    found = jax.grad(
        lambda z: loss(z, labels, instances=jnp.asarray(instances)[None]).sum()
    )(logits)
    return np.asarray(found)[0, ..., 0]


def _records(config) -> list[Record]:
    """The test images with most cells."""
    return sorted(
        measures.test_records(config), key=lambda r: -r.instances.max(initial=0)
    )[:PATCHES]


def _busiest(instances: np.ndarray) -> tuple[slice, slice]:
    """The window with most cell pixels, on a grid of half windows."""
    rows, columns = (
        range(0, max(n - PATCH, 0) + 1, PATCH // 2) for n in instances.shape
    )
    windows = [
        (slice(r, r + PATCH), slice(c, c + PATCH)) for r in rows for c in columns
    ]
    return max(windows, key=lambda w: np.count_nonzero(instances[w]))
