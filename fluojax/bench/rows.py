"""What `fluojax bench` times: every loss with its gradient, every operator.

A row's name never changes its meaning: another workload gets another name.
`/A`, `/B` and `/small` are sizes (`inputs`); operators have no suffix at full
size. The function takes the arrays of the row; losses return the mean over the
images, of which value and gradient are timed.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fluojax import losses, ops
from fluojax.bench import inputs

CELLS = 20


class Row(NamedTuple):
    """One workload.

    Attributes:
      name: as printed, e.g. `loss/dice/A`.
      kind: name of the contenders in `peers`.
      arrays: makes the inputs.
      function: of the arrays.
      grad: whether value and gradient are timed, with respect to `logits`.
      passes: reads and writes of an array of image size that cannot be spared.
      pixels: of that array.
      agree: whether a peer's result is the same as ours.
      images: how many one call takes, where images per second say something.
      paired: times this row itself, beside another feed of the same program.
    """

    name: str
    kind: str
    arrays: Callable[[], inputs.Arrays]
    function: Callable[[Mapping[str, Any]], Any]
    grad: bool
    passes: int | None
    pixels: int
    agree: Callable[[list[np.ndarray], list[np.ndarray]], bool]
    images: int | None = None
    paired: Callable[[int], Any] | None = None


def _value_and_slope(ours, theirs) -> bool:
    """Values to 1e-3, slopes to 1e-2 of the largest: float32, and ties."""
    slopes = np.max(np.abs(ours[1])) + 1e-12
    same_value = np.allclose(ours[0], theirs[0], rtol=1e-3)
    return same_value and bool(
        np.mean(np.abs(ours[1] - theirs[1]) > 0.01 * slopes) < 1e-3
    )


def _same_image(ours, theirs) -> bool:
    return np.allclose(ours[0], theirs[0], atol=1e-4)


def _same_partition(ours, theirs) -> bool:
    """The same components under any numbering."""
    pairs = np.unique(np.stack([ours[0].ravel(), theirs[0].ravel()]), axis=1)
    return len(set(pairs[0])) == pairs.shape[1] == len(set(pairs[1]))


def _same_labels(ours, theirs) -> bool:
    """Labels equal but where two are equally near."""
    return np.mean(ours[0] != theirs[0]) < 1e-2


def _same_levels(ours, theirs) -> bool:
    """Grey levels equal to one."""
    return np.max(np.abs(ours[0].astype(int) - theirs[0].astype(int))) <= 1


def rows(what: str, size: str) -> tuple[Row, ...]:
    """The rows of "losses", "ops" or "all" at one size."""
    made = _loss_rows(size) if what in ("losses", "all") else ()
    return made + (_operator_rows(size) if what in ("ops", "all") else ())


# Kind -> cells per image, passes, function of (logits, labels, instances).
def _plain(loss, **options) -> Callable:
    return lambda z, g, instances: loss(z, g, **options)


def _instance(loss, **options) -> Callable:
    return lambda z, g, instances: loss(z, g, instances=instances, **options)


_LOSSES: dict[str, tuple[int, int | None, Callable]] = {
    "bce": (CELLS, 5, _plain(losses.cross_entropy_loss)),
    "focal": (CELLS, 5, _plain(losses.focal_loss)),
    "unified_focal": (CELLS, 5, _plain(losses.unified_focal_loss)),
    "dice": (CELLS, 5, _plain(losses.dice_loss)),
    "jaccard": (CELLS, 5, _plain(losses.jaccard_loss)),
    "generalized_dice": (CELLS, 5, _plain(losses.generalized_dice_loss)),
    "tversky": (CELLS, 5, _plain(losses.tversky_loss)),
    "focal_tversky": (CELLS, 5, _plain(losses.focal_tversky_loss)),
    "power_mae": (CELLS, 5, _plain(losses.power_mae_loss)),
    "lovasz": (CELLS, None, _plain(losses.lovasz_loss)),
    "soft_cldice_10": (CELLS, 450, _plain(losses.soft_cldice_loss, num_iters=10)),
    "soft_cldice_50": (CELLS, 2100, _plain(losses.soft_cldice_loss, num_iters=50)),
    "dice_cldice": (CELLS, None, _plain(losses.dice_cldice_loss)),
    "cbdice": (CELLS, None, _plain(losses.cbdice_loss)),
    "contour_weighted": (CELLS, 8, _plain(losses.contour_weighted_loss)),
    "separable_contour": (CELLS, 8, _plain(losses.separable_contour_loss)),
    "boundary": (CELLS, None, _plain(losses.boundary_loss)),
    "hausdorff_dt": (CELLS, None, _plain(losses.hausdorff_loss)),
    "hybrid": (CELLS, None, _plain(losses.imsahlo_loss)),
    "combined": (CELLS, None, _plain(losses.combined_loss)),
    "combined_ft": (CELLS, None, _plain(losses.combined_focal_tversky_loss)),
    "moments": (CELLS, 5, _plain(losses.global_moment_loss)),
    "local_moments": (CELLS, None, _plain(losses.local_moment_loss)),
    "residual_moments": (CELLS, 5, _plain(losses.residual_moment_loss)),
    "instance_moments": (CELLS, None, _instance(losses.instance_moment_loss)),
    "blob_5": (5, 5, _instance(losses.blob_loss)),
    "blob_50": (50, 5, _instance(losses.blob_loss)),
    "ici_5": (5, None, _instance(losses.ici_loss)),
    "ici_50": (50, None, _instance(losses.ici_loss)),
    "dual_ici_50": (50, None, _instance(losses.dual_ici_loss)),
    "cc_dice_50": (50, None, _instance(losses.cc_dice_loss)),
}
# Kind -> kind of the contenders where one serves several rows.
_SHARED = {"blob_5": "blob", "blob_50": "blob", "ici_5": "ici", "ici_50": "ici"}


def _loss_rows(size: str) -> tuple[Row, ...]:
    def row(kind: str, cells: int, passes: int | None, loss: Callable) -> Row:
        return Row(
            name=f"loss/{kind}/{size}",
            kind=_SHARED.get(kind, kind),
            arrays=functools.partial(inputs.loss_batch, size, cells),
            function=lambda a: jnp.mean(loss(a["logits"], a["labels"], a["instances"])),
            grad=True,
            passes=passes,
            pixels=int(np.prod(inputs.BATCHES[size])),
            agree=_value_and_slope,
        )

    return tuple(row(kind, *rest) for kind, rest in _LOSSES.items())


_SQUARE = np.ones((3, 3), bool)
_ELASTIC = {"alpha": 80.0, "sigma": 8.0}
_OPERATORS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "label_components": lambda a: ops.label_components(a["mask"], 2)[0],
    "count_instances": lambda a: ops.count_instances(a["instances"]),
    "relabel": lambda a: ops.relabel(a["instances"]),
    "distance_transform": lambda a: ops.distance_transform(a["mask"]),
    "signed_distance": lambda a: ops.signed_distance(a["mask"]),
    "nearest_instance": lambda a: ops.nearest_instance(a["instances"]),
    "expand_labels": lambda a: ops.expand_labels(a["instances"]),
    "soft_skeletonize_10": lambda a: ops.soft_skeleton(a["probs"], 10),
    "topological_skeleton_10": lambda a: ops.topological_skeleton(
        a["mask"].astype(jnp.float32), 10
    ),
    "skeletonize": lambda a: ops.skeletonize(a["mask"]),
    "erode": lambda a: ops.erode(a["mask"], _SQUARE),
    "dilate": lambda a: ops.dilate(a["mask"], _SQUARE),
    "open": lambda a: ops.open(a["mask"], _SQUARE),
    "close": lambda a: ops.close(a["mask"], ops.ellipse(5)),
    "maximum_filter": lambda a: ops.maximum_filter(a["probs"], 30),
    "contour_map": lambda a: ops.contour_map(a["mask"]),
    "fill_holes": lambda a: ops.fill_holes(a["mask"]),
    "remove_small_holes": lambda a: ops.remove_small_holes(a["mask"], 200),
    "remove_small_objects": lambda a: ops.remove_small_objects(a["mask"], 200),
    "unet_border_weights": lambda a: ops.unet_border_weights(a["instances"]),
    "overcrowding_weights": lambda a: ops.overcrowding_weights(a["instances"]),
    "moments": lambda a: ops.moments(a["probs"], order=3),
    "hu_moments": lambda a: ops.hu_moments(a["probs"]),
    "local_moments": lambda a: ops.local_moments(a["probs"], 4.0),
    "region_moments": lambda a: ops.region_moments(a["instances"]),
    "split_touching": lambda a: ops.split_touching(a["mask"]),
    "clahe": lambda a: ops.clahe(a["grey"], 3.0),
    "gaussian_blur": lambda a: ops.gaussian_blur(a["probs"], 8.0),
    "resize_area": lambda a: ops.resize_area(a["probs"], a["probs"].shape[:1] * 2),
    "elastic": lambda a: ops.elastic(jax.random.key(0), a["probs"], **_ELASTIC),
    "elastic_fast": lambda a: ops.elastic(
        jax.random.key(0), a["probs"], coarse=4, **_ELASTIC
    ),
    "grid_distortion": lambda a: ops.grid_distortion(jax.random.key(0), a["probs"]),
}
_AGREE = {
    "label_components": _same_partition,
    "clahe": _same_levels,
    "expand_labels": _same_labels,
}


def _operator_rows(size: str) -> tuple[Row, ...]:
    ending = "/small" if size == "small" else ""
    return tuple(
        Row(
            name=f"op/{kind}{ending}",
            kind=kind,
            arrays=functools.partial(inputs.one_image, size),
            function=function,
            grad=False,
            passes=None,
            pixels=int(np.prod(inputs.IMAGES[size])),
            agree=_AGREE.get(kind, _same_image),
        )
        for kind, function in _OPERATORS.items()
    )
