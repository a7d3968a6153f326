"""Answers of components, distances, regions, watershed and weight maps."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from conformance.comparing import Answer, Archive
from scipy import ndimage

from fluojax import ops
from fluojax.ops import components, distance, morphology, regions
from fluojax.ops import weight_maps as maps
from fluojax.ops.watershed import (
    FluocellsStages,
    fluocells_postprocess,
    peak_local_max,
    watershed,
)

SAMPLED = 1e-5  # distances with a spacing, relative
# Share of the pixels of the mask that must have the label of the arbiter, whose
# queue decides ties in its own order.
AGREEMENT = {"c0": 0.97, "c1": 0.985}
AGREEMENT_RANDOM_HEIGHTS = 0.97
OVERLAP = 0.9  # IoU of every object of the post-processing
MISSING = 1e6  # what stands for an infinite distance

Params = Mapping[str, Any]


def _cases(answer: Callable) -> Callable[[Archive], Iterator[Answer]]:
    """Answers of `answer(case, output, params) -> check or None` to all cases."""

    def answers(archive: Archive) -> Iterator[Answer]:
        for case in json.loads(str(archive["meta"]))["cases"]:
            prefix = f"{case['name']}."
            arrays = {
                key.removeprefix(prefix): archive[key]
                for key in archive
                if key.startswith(prefix)
            }
            for output in (key for key in arrays if key.startswith("out_")):
                check = answer(arrays, output, case.get("params") or {})
                if check is not None:
                    yield f"{prefix}{output}", check

    return answers


def _ccl(case: Archive, output: str, params: Params) -> Callable[[], None]:
    equal = params.get("mode") == "equal-value"
    image = case["in_labels" if equal else "in_mask"]

    def check() -> None:
        labels, count = components.label_components(
            image, params["connectivity"], equal_values=equal
        )
        found = {"out_labels": labels, "out_n": count}[output]
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, case[output])

    return check


def _edt(case: Archive, output: str, params: Params) -> Callable[[], None]:
    mask, expected = case["in_mask"], case[output]

    def check() -> None:
        if output == "out_sq":
            squares = distance.distance_transform(mask, squared=True)
            np.testing.assert_array_equal(squares, expected)
            root = np.asarray(distance.distance_transform(mask))
            np.testing.assert_array_equal(np.rint(root * root), expected)
            return
        signed = params.get("mode", "").startswith("signed")
        function = distance.signed_distance if signed else distance.distance_transform
        found = function(mask, spacing=params.get("sampling"))
        np.testing.assert_allclose(found, expected, rtol=SAMPLED)

    return check


def _holes_and_small_objects(
    case: Archive, output: str, params: Params
) -> Callable[[], None]:
    def found():
        connectivity = params.get("connectivity")
        if "in_labels" in case:
            return regions.remove_small_objects(case["in_labels"], params["min_size"])
        mask = case["in_mask"] != 0
        if "min_area" in params:
            kernel = morphology.ellipse(int(params["kernel"].removeprefix("ellipse")))
            closed = morphology.close(mask, kernel)
            if output == "out_closed":
                return closed
            return regions.remove_small_objects(
                closed, params["min_area"], connectivity=connectivity
            )
        if output == "out_fill":
            return regions.fill_holes(mask, connectivity=connectivity)
        _, kind, area = output.split("_")
        function = {
            "holes": regions.remove_small_holes,
            "objs": regions.remove_small_objects,
        }[kind]
        # The arbiter's `max_size` also removes what has exactly this size.
        return function(mask, int(area) + 1, connectivity=connectivity)

    def check() -> None:
        expected = case[output]
        if "in_labels" not in case:
            expected = expected != 0
        np.testing.assert_array_equal(found(), expected)

    return check


def _peaks(case: Archive, output: str, params: Params) -> Callable[[], None] | None:
    image, size = case["in_x"], params["size"]

    def filtered() -> None:
        found = morphology.maximum_filter(image, size)
        np.testing.assert_array_equal(found, case[output])

    def coordinates() -> None:
        labels, _ = components.label_components(case["in_mask"])
        peaks = peak_local_max(image, size, labels=labels)
        assert np.argwhere(peaks).tolist() == sorted(case[output].tolist())

    return {"out_maxfilt": filtered, "out_coords": coordinates}.get(output)


def _watershed(case: Archive, output: str, params: Params) -> Callable[[], None]:
    height, markers, mask = (case[f"in_{k}"] for k in ("height", "markers", "mask"))
    kind, *line = output.removeprefix("out_").split("_")

    def check() -> None:
        found = np.asarray(
            watershed(
                height,
                markers,
                mask=mask,
                compactness=float(kind == "c1"),
                line=bool(line),
            )
        )
        expected = case[output]
        seeds = (markers != 0) & mask
        np.testing.assert_array_equal(found[seeds], markers[seeds])
        compared = mask
        if line:  # its place may differ by one pixel
            lines = mask & ((found == 0) | (expected == 0))
            compared = mask & ~ndimage.binary_dilation(lines)
        else:
            np.testing.assert_array_equal(found != 0, expected != 0)
            for label in np.unique(found[found != 0]):
                pieces = ndimage.label((found == label) | (markers == label))[1]
                assert pieces == ndimage.label(markers == label)[1] or pieces == 1
        share = np.mean((found == expected)[compared])
        # Random heights leave most of the image to single pixels.
        noisy = np.unique(height).size == height.size
        limit = AGREEMENT_RANDOM_HEIGHTS if noisy else AGREEMENT[kind]
        assert share >= limit, f"{share:.4f} of the pixels agree, not {limit}"

    return check


def _fluocells(case: Archive, output: str, params: Params) -> Callable[[], None]:
    stage = {"maxfilt": "filtered", "final": "labels", "final_labels_8conn": "labels"}
    name = output.removeprefix("out_")

    def check() -> None:
        stages = _stages(case["in_mask"].tobytes(), case["in_mask"], params)
        found = np.asarray(getattr(stages, stage.get(name, name)))
        expected = case[output]
        if name in ("smooth", "processed"):
            np.testing.assert_array_equal(found, expected != 0)
        elif name in ("peaks", "markers"):
            np.testing.assert_array_equal(found, expected)
        elif name in ("distance", "maxfilt"):
            np.testing.assert_allclose(found, expected, rtol=1e-12)
        else:
            assert int(stages.count) == case["out_final_labels_8conn"].max()
            assert_same_objects(found, expected)

    return check


# The last image: its stages are several records.
_last: dict[Any, FluocellsStages] = {}


def _stages(key: bytes, mask: np.ndarray, params: Params) -> FluocellsStages:
    key = key, tuple(params.items())
    if key not in _last:
        _last.clear()
        _last[key] = fluocells_postprocess(mask, **params)
    return _last[key]


def assert_same_objects(found: np.ndarray, expected: np.ndarray) -> None:
    """As many objects, each with its partner."""
    ids = np.unique(expected[expected != 0])
    assert len(ids) == len(np.unique(found[found != 0]))
    for label in ids:
        here = expected == label
        partners, shared = np.unique(found[here], return_counts=True)
        shared = np.where(partners == 0, 0, shared)
        best = partners[np.argmax(shared)]
        iou = shared.max() / np.sum(here | (found == best))
        assert iou >= OVERLAP, f"object {label}: IoU {iou:.3f}"


def _weight_maps(case: Archive, output: str, params: Params) -> Callable[[], None]:
    labels, expected = case["in_labels"], case[output]
    mask, name = labels != 0, output.removeprefix("out_")

    def check() -> None:
        if name in ("d1", "d2"):
            nearest = ops.nearest_instance(labels).distances[int(name[1]) - 1]
            found = np.where(np.isinf(nearest), MISSING, nearest)
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        elif name in ("sep", "sep_bg"):
            found = maps.unet_border_weights(labels, **params, everywhere=name == "sep")
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        elif name == "wc":
            found = maps.class_balance_weights(mask)
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        elif name.startswith("contour_"):
            width = int(name[-1])
            square = np.ones((width, width), bool)
            kernel = square if "rect" in name else morphology.ellipse(width)
            found = morphology.gradient(mask, kernel)
            np.testing.assert_array_equal(found, expected != 0)
        else:
            found = _boundaries(labels, name.removeprefix("fb_"))
            np.testing.assert_array_equal(found, expected)

    return check


def _boundaries(labels: np.ndarray, mode: str) -> np.ndarray:
    """Pixels beside another label; as the arbiter's modes, from our morphology."""
    cross, background = morphology.ellipse(3), labels == 0
    highest = np.asarray(morphology.dilate(labels, cross))
    thick = highest != np.asarray(morphology.erode(labels, cross))
    if mode == "thick":
        return thick
    if mode == "inner":
        return thick & ~background
    square = np.ones((3, 3), bool)
    cells = np.where(background, np.iinfo(labels.dtype).max, labels)
    highest, lowest = morphology.dilate(labels, square), morphology.erode(cells, square)
    meeting = np.asarray(highest != lowest)
    return thick & (background | meeting)


ANSWERS = {
    "ccl": _cases(_ccl),
    "edt": _cases(_edt),
    "holes_and_small_objects": _cases(_holes_and_small_objects),
    "peaks": _cases(_peaks),
    "watershed": _cases(_watershed),
    "fluocells_postprocess": _cases(_fluocells),
    "weight_maps": _cases(_weight_maps),
}
