"""Answers of distances and weight maps to the stored maps beside the losses."""

import json
from collections.abc import Callable, Iterator

import numpy as np
from conformance.comparing import Answer, Archive, assert_close

from fluojax import ops
from fluojax.ops import weight_maps


def _weight_maps(archive: Archive) -> Iterator[Answer]:
    for key in [key for key in archive if key.endswith("/meta")]:
        case, name = key.split("/")[:2]
        params = json.loads(str(archive[key]))["params"]
        prefix = f"{case}/{name}/"
        for record in [k for k in archive if k.startswith(prefix) and k != key]:
            function = _map(record.removeprefix(prefix), params)
            if function is None:
                continue
            source = "labels" if name == "edt" else "instances"
            images = archive[f"inputs/{case}/{source}"]
            images = images[..., 0] if source == "labels" else images
            yield record, _check(function, images, archive[record])


def _check(function: Callable, images: np.ndarray, expected) -> Callable[[], None]:
    return lambda: assert_close(
        np.stack([np.asarray(function(image)) for image in images]), expected
    )


def _map(record: str, params: dict) -> Callable | None:
    """The map of one image that a record holds."""
    sigma = params.get("sigma")
    border = {"w0": params.get("w0"), "sigma": sigma}
    return {
        "border_term": lambda x: weight_maps.unet_border_weights(
            x, everywhere=True, **border
        ),
        "border_term_background_only": lambda x: weight_maps.unet_border_weights(
            x, **border
        ),
        "nearest_two_distances": lambda x: np.moveaxis(
            ops.nearest_instance(x).distances, 0, -1
        ),
        # Without the sizes of objects, the dilation and the final division.
        "weight": lambda x: weight_maps.overcrowding_weights(
            x,
            sigma=sigma,
            cell_factor=params["cell_factor"],
            dilation=2 * max(x.shape),
            min_object=0,
            max_hole=0,
            normalizer=1.0,
        ),
        "edt_inside": ops.distance_transform,
        "edt_outside": lambda x: ops.distance_transform(x == 0),
        # Inside, the program measures from the innermost pixels of the cells.
        "kervadec_signed": lambda x: ops.signed_distance(x) + (x != 0),
    }.get(record)


ANSWERS = {"weight_maps": _weight_maps}
