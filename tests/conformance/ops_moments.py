"""Answers of the moment operators; what regions derive from them is derived here."""

import functools
import json
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from conformance.comparing import Answer, Archive

from fluojax import ops
from fluojax.ops.moments import RegionMoments

RTOL = 1e-4
HU_RTOL, HU_ATOL = 1e-3, 1e-9
WHOLE = {
    "out_raw": ops.moments,
    "out_central": ops.central_moments,
    "out_normalized": ops.normalized_moments,
}
_THIRD = re.compile(r"out_moments_central_(\d)_(\d)")


def _moments(archive: Archive) -> Iterator[Answer]:
    for case in json.loads(str(archive["meta"]))["cases"]:
        name = case["name"]
        regions = f"{name}.in_labels" in archive
        for output in case["outputs"]:
            answer = _region if regions else _image
            yield f"{name}.{output}", answer(archive, name, output, case["params"])


def _image(archive: Archive, name: str, output: str, params):
    image = archive[f"{name}.in_x"].astype(np.float64)
    expected = archive[f"{name}.{output}"]
    if output in WHOLE:
        function = WHOLE[output]

        def check() -> None:
            found = np.asarray(function(image, order=params["order"]))
            if output != "out_raw":
                # The arbiter leaves 0 where the total order is above the one asked.
                above = np.indices(found.shape).sum(axis=0) > params["order"]
                found = np.where(above, expected, found)
            # First moments about the centroid are 0 but for rounding.
            atol = 1e-12 * np.nanmax(np.abs(expected))
            np.testing.assert_allclose(found, expected, rtol=RTOL, atol=atol)

        return check
    if output not in ("out_hu", "out_cv_hu"):
        return None
    # OpenCV's first index is the column, which turns the sign of the seventh.
    signs = np.where((np.arange(7) == 6) & (output == "out_cv_hu"), -1.0, 1.0)
    return lambda: np.testing.assert_allclose(
        np.asarray(ops.hu_moments(image)) * signs, expected, rtol=HU_RTOL, atol=HU_ATOL
    )


def _region(archive: Archive, name: str, output: str, params):
    labels = archive[f"{name}.in_labels"]
    image = archive[f"{name}.in_img"].astype(np.float64)
    expected = archive[f"{name}.{output}"]

    @functools.cache
    def found(weighted: bool = False) -> RegionMoments:
        weights = image if weighted else np.ones_like(image)
        return ops.region_moments(labels, weights, max_instances=32)

    def derived() -> np.ndarray:
        third = _THIRD.match(output)
        if third:  # from the mask of each region
            masks = (
                jnp.asarray(labels)[None] == jnp.asarray(expected_ids)[:, None, None]
            )
            every = jax.vmap(ops.central_moments)(masks.astype(jnp.float64))
            return np.asarray(every)[:, int(third[1]), int(third[2])]
        part = output.removeprefix("out_")
        if part == "label":
            return np.asarray(found().ids)[: len(expected)]
        if part.startswith("centroid_weighted"):
            return np.asarray(found(True).centroids)[: len(expected), int(part[-1])]
        if part.startswith("centroid"):
            return np.asarray(found().centroids)[: len(expected), int(part[-1])]
        return _shape(found(), part)[: len(expected)]

    expected_ids = archive[f"{name}.out_label"]
    if output.startswith("out_bbox"):
        return "a bounding box is no moment"

    def check() -> None:
        assert int(found().count) == len(expected_ids)
        # 0 but for rounding: odd moments, orientation of round cells.
        atol = 1e-9 * max(1.0, np.max(np.abs(expected)))
        np.testing.assert_allclose(derived(), expected, rtol=RTOL, atol=atol)

    return check


def _shape(regions: RegionMoments, part: str) -> np.ndarray:
    """Axes and angle of the ellipse with the same second moments."""
    area, second = np.asarray(regions.masses), np.asarray(regions.second)
    if part == "area":
        return np.asarray(regions.areas)
    if part == "equivalent_diameter_area":
        return np.sqrt(4.0 * area / np.pi)
    covariance = second / np.where(area > 0, area, 1.0)[:, None, None]
    covariance = np.nan_to_num(covariance)
    small, large = np.linalg.eigvalsh(covariance).T
    if part == "orientation":
        a, b, c = covariance[:, 1, 1], -covariance[:, 0, 1], covariance[:, 0, 0]
        return 0.5 * np.arctan2(-2.0 * b, c - a)
    return {
        "inertia_tensor_eigvals_0": large,
        "inertia_tensor_eigvals_1": small,
        "axis_major_length": 4.0 * np.sqrt(large),
        "axis_minor_length": 4.0 * np.sqrt(small),
        "eccentricity": np.sqrt(1.0 - small / np.where(large > 0, large, 1.0)),
    }[part]


ANSWERS = {"moments": _moments}
