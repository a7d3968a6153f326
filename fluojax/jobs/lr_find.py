"""`fluojax lr-find`: a learning-rate range test."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fluojax.config import Experiment
from fluojax.console import Console
from fluojax.data.sources import load_dataset
from fluojax.errors import UserError
from fluojax.files import write_atomic
from fluojax.jobs.train import resolve
from fluojax.report.figures import png_bytes, subplots
from fluojax.train import loop, parallel, program

SMOOTHING = 0.98  # of the loss, as a running mean
TOO_HIGH = 4.0  # times the lowest smoothed loss ends the test


def lr_find(
    config: Experiment,
    *,
    low: float,
    high: float,
    iters: int,
    out: Path,
    console: Console,
) -> float:
    """Trains a fresh network with a rate that grows from `low` to `high`.

    Nothing is kept but the picture: no run folder is made or touched.

    Args:
      config: the experiment; its schedule and learning rate are not used.
      low, high: rates of the first and the last step, geometric between them.
      iters: steps, fewer if the loss explodes.
      out: PNG of the smoothed loss over the rate.
      console: where the suggestion goes.

    Returns:
      The suggested rate, see `valley`.

    Raises:
      UserError: the loss falls at no rate.

    Source: Smith, WACV 2017; smoothing and stop as in fastai.
    """
    rates = np.geomspace(low, high, iters)
    config = dataclasses.replace(
        config, schedule="constant", learning_rate=low, num_steps=iters
    )
    dataset = load_dataset(config.data, config.data_options, data_dir=config.manual_dir)
    config = resolve(config, dataset)
    losses = _losses(program.build(config, dataset), config, rates / low, console)
    smooth = smoothed(losses)
    place = valley(smooth)
    if place is None:
        raise UserError(
            f"lr-find: the loss falls nowhere between {low:g} and {high:g}; try a "
            "lower --min, more --iters, or another loss"
        )
    write_atomic(out, _picture(rates[: len(smooth)], smooth, place))
    console.line(f"suggested: --lr {rates[place]:.2g} (valley of {len(losses)} steps)")
    console.line(f"-> {out}")
    return float(rates[place])


def _losses(built: program.Program, config, factors, console: Console) -> list[float]:
    """Loss of each step until it is not finite or far above its lowest."""
    state = parallel.replicate(built.new_state())
    step = loop.compile_first(config, built, state, console)
    losses: list[float] = []
    for number, factor in enumerate(factors):
        scale = parallel.replicate(np.float32(factor))
        batch = parallel.shard(built.draw(number))
        state, metrics = step(state.replace(lr_scale=scale), batch)
        loss = float(metrics["loss"])
        if not math.isfinite(loss):
            break
        losses.append(loss)
        smooth = smoothed(losses)
        if number > len(factors) // 10 and smooth[-1] > TOO_HIGH * smooth.min():
            break
        shown = {"step": number + 1, "lr": f"{config.learning_rate * factor:.2e}"}
        console.progress(number + 1, {**shown, "loss": f"{loss:.4f}"})
    return losses


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Running mean that weighs a loss 0.98 times as much as the one after it."""
    weights = SMOOTHING ** np.arange(len(losses))
    ends = np.arange(1, len(losses) + 1)
    return np.array([np.average(losses[:n], weights=weights[:n][::-1]) for n in ends])


def valley(losses: np.ndarray) -> int | None:
    """The step half way down the longest descent.

    The descent is the longest subsequence of falling losses; small rises between
    its members do not end it. None if no loss is below one before it.
    """
    length = np.ones(len(losses), int)
    start = np.arange(len(losses))
    for k in range(1, len(losses)):
        above = np.flatnonzero(losses[:k] > losses[k])
        if above.size:
            best = above[np.argmax(length[above])]
            length[k], start[k] = length[best] + 1, start[best]
    if len(losses) == 0 or length.max() < 2:
        return None
    end = int(np.argmax(length))
    return int(start[end] + (end - start[end]) // 2)


def _picture(rates: np.ndarray, losses: np.ndarray, place: int) -> bytes:
    figure, ((axis,),) = subplots(1, 1, figsize=(6, 4))
    axis.plot(rates, losses, linewidth=1)
    axis.plot(rates[place], losses[place], "o", label=f"suggested {rates[place]:.2g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss")
    axis.legend()
    return png_bytes(figure)
