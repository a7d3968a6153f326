"""Rows of `fluojax bench metrics`: scores of one image of 1200 x 1600.

The prediction is the truth moved by two rows and three columns, without every
tenth cell and under other numbers, so that there are hits, misses and nothing
that is nearly one.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from fluojax import metrics
from fluojax.bench import inputs
from fluojax.bench.rows import Row

CENTRE_PX = 10.0
_SMALL = 10  # cells at size "small"
_COUNTS = ("tp", "fp", "fn")


def scored_image(size: str, cells: int) -> inputs.Arrays:
    """Instances `true` and `pred` `[H, W]` int32."""
    rng = np.random.default_rng(inputs.SEED)
    true = inputs.scene(rng, inputs.IMAGES[size], cells)
    moved = np.roll(true, (2, 3), axis=(0, 1))
    numbers = np.concatenate([[0], rng.permutation(cells) + 1])
    numbers[5::10] = 0
    return {"true": true, "pred": numbers[moved].astype(np.int32)}


def metric_rows(size: str) -> tuple[Row, ...]:
    """The rows at one size."""
    ending = "/small" if size == "small" else ""
    return tuple(
        Row(
            name=f"metric/{name}{ending}",
            kind=name,
            arrays=functools.partial(
                scored_image, size, _SMALL if size == "small" else cells
            ),
            function=function,
            grad=False,
            passes=None,
            pixels=int(np.prod(inputs.IMAGES[size])),
            agree=_same_numbers,
        )
        for name, (cells, function) in _METRICS.items()
    )


def _same_numbers(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return np.allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-6)


def _match_iou(bound: int) -> Callable[[Mapping[str, Any]], Any]:
    def counts(a):
        found = metrics.match_by_iou(
            a["true"], a["pred"], threshold=0.5, rule="many_to_one", max_instances=bound
        )
        return jnp.stack([getattr(found, name) for name in _COUNTS])

    return counts


def _match_centre(bound: int) -> Callable[[Mapping[str, Any]], Any]:
    def counts(a):
        found = metrics.match_by_distance(
            a["true"], a["pred"], threshold=CENTRE_PX, rule="many_to_one",
            max_instances=bound,
        )  # fmt: skip
        return jnp.stack([getattr(found, name) for name in _COUNTS])

    return counts


# Name -> cells and function of `true` and `pred`.
_METRICS: dict[str, tuple[int, Callable[[Mapping[str, Any]], Any]]] = {
    "match_iou_100": (100, _match_iou(128)),
    "match_iou_1000": (1000, _match_iou(1024)),
    "average_precision_1000": (
        1000,
        lambda a: metrics.average_precision(a["true"], a["pred"], max_instances=1024),
    ),
    "match_centre_100": (100, _match_centre(128)),
    "match_centre_1000": (1000, _match_centre(1024)),
    "surface_distance": (
        200,
        lambda a: metrics.hausdorff(a["true"] > 0, a["pred"] > 0, percentile=95.0),
    ),
}
