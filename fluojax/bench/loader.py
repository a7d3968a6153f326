"""Rows of `fluojax bench input`: augmentation alone, and steps fed with real input.

`input/augment`: 80 colour crops of 512 x 768 (size A), each flipped, deformed
elastically, made brighter or darker, given noise and equalised, with its labels;
`input/augment_fast` draws the deformation on a grid four times as wide.

`input/step`: training steps of the default settings on `fnc_synth`, crops drawn
and augmented anew for each, beside the same compiled step with the same batch
again and again, augmented as well: what is above 1 is waiting for input.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from fluojax.bench import inputs
from fluojax.bench.rows import Row
from fluojax.config import Experiment
from fluojax.data import augment, fnc_synth, pipeline
from fluojax.train import parallel, program

FIXED = "fixed batch"
_CROPS = {"A": (80, 512, 768), "B": (80, 512, 768), "small": (4, 48, 64)}
_HEAVY = augment.Preset(
    quarter_turns=False,
    affine=0.0,
    photometric=1.0,
    brightness=0.3,
    contrast=0.3,
    noise=0.02,
    elastic=1.0,
    elastic_coarse=1,
    clahe=True,
)
_FAST = {"augment": 1, "augment_fast": 4}
_STEPS = 5  # a trial


def loader_rows(size: str) -> tuple[Row, ...]:
    ending = "/small" if size == "small" else ""
    made = [
        Row(
            name=f"input/{name}{ending}",
            kind=f"input/{name}",
            arrays=functools.partial(_crops, _CROPS[size]),
            function=functools.partial(_augmented, coarse),
            grad=False,
            passes=None,
            pixels=int(np.prod(_CROPS[size])),
            agree=lambda ours, theirs: True,
            images=_CROPS[size][0],
        )
        for name, coarse in _FAST.items()
    ]
    config = _experiment(size)
    step = Row(
        name=f"input/step{ending}",
        kind="input/step",
        arrays=dict,
        function=lambda arrays: None,
        grad=False,
        passes=None,
        pixels=config.batch_size * config.crop**2,
        agree=lambda ours, theirs: True,
        images=config.batch_size,
        paired=functools.partial(steps, config),
    )
    return (*made, step)


def _crops(shape: tuple[int, int, int]) -> inputs.Arrays:
    """uint8 images `[80, H, W, 3]` and their instances."""
    rng = np.random.default_rng(inputs.SEED)
    count, *size = shape
    scenes = [inputs.scene(rng, size, 20) for _ in range(8)]
    instances = np.stack([scenes[k % 8] for k in range(count)])
    noise = rng.integers(0, 60, (*shape, 3), np.uint8)
    image = noise + np.uint8(150) * (instances > 0)[..., None].astype(np.uint8)
    return {"image": image, "instances": instances}


def _augmented(coarse: int, arrays: Mapping[str, Any]) -> tuple:
    preset = augment.Preset(**{**vars(_HEAVY), "elastic_coarse": coarse})
    change = augment.of_preset(preset)

    def one(example):
        key, image, instances = example
        where = jax.numpy.ones(instances.shape, bool)
        return change(key, image.astype(np.float32) / 255, instances, where)

    keys = jax.random.split(jax.random.key(0), len(arrays["image"]))
    examples = (keys, arrays["image"], arrays["instances"])
    # A crop fits a processor's cache; accelerators want several at once.
    at_once = 1 if jax.default_backend() == "cpu" else 8
    return jax.lax.map(one, examples, batch_size=at_once)


def _experiment(size: str) -> Experiment:
    small = size == "small"
    return Experiment(
        data="fnc_synth/smoke" if small else "fnc_synth/demo",
        model="cresunet_nano" if small else "unet_tiny",
        crop=32 if small else 256,
        batch_size=4,
        scaling="fixed",
        num_steps=100_000,
    )


class Paired(NamedTuple):
    """Seconds per step of each trial, and of the first step with its compilation."""

    first_s: float
    real: list[float]
    fixed: list[float]


def steps(config: Experiment, trials: int) -> Paired:
    """Times steps with real input and with one batch in alternation."""
    dataset = fnc_synth.dataset(config.data.partition("/")[2])
    built = program.build(config, dataset)
    state = parallel.replicate(built.new_state())
    fixed = parallel.shard(built.draw(0))
    began = time.perf_counter()
    step, _ = built.compile_step(state, fixed)
    state, metrics = step(state, fixed)
    jax.block_until_ready(metrics)
    first_s = time.perf_counter() - began
    drawn = pipeline.prefetch(built.draw, 1, config.num_steps)
    feeds: dict[str, Iterator] = {
        "real": map(parallel.shard, drawn),
        "fixed": itertools.repeat(fixed),
    }
    seconds: dict[str, list[float]] = {name: [] for name in feeds}
    for _ in range(trials):
        for name, feed in feeds.items():
            state, passed = _run(step, state, feed)
            seconds[name].append(passed)
    drawn.close()
    return Paired(first_s, seconds["real"], seconds["fixed"])


def _run(step: Callable, state: Any, feed: Iterator) -> tuple[Any, float]:
    began = time.perf_counter()
    for batch in itertools.islice(feed, _STEPS):
        state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    return state, (time.perf_counter() - began) / _STEPS
