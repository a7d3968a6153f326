"""Answers of the operators on pictures: filters, resizing, sampling, CLAHE."""

import json
import re
from collections.abc import Callable, Iterator

import jax
import numpy as np
from conformance.comparing import Answer, Archive

from fluojax import ops

_SCIPY = re.compile(r"out_sp_(\w+)_s([\d.]+)")
_OPENCV = re.compile(r"out_cv_k(\d+)_s([\d.]+)")
_SAMPLED = re.compile(r"out_(labels_)?(\w+)_o([01])")


def _cases(check: Callable) -> Callable[[Archive], Iterator[Answer]]:
    """One answer per output; `check(case, get, output)` compares or is None."""

    def answers(archive: Archive) -> Iterator[Answer]:
        for case in json.loads(str(archive["meta"]))["cases"]:
            name = case["name"]

            def get(array: str, name=name) -> np.ndarray:
                return archive[f"{name}.{array}"]

            for output in case["outputs"]:
                yield f"{name}.{output}", check(case, get, output)

    return answers


def _clahe(case, get, output):
    params, tolerance = case["params"], case["tol"]

    def check() -> None:
        options = {"bins": params["bins"]} if "bins" in params else {}
        tiles = tuple(params["tiles"])
        found = ops.clahe(get("in_img"), params["clip_limit"], tiles, **options)
        expected = get(output)
        assert found.dtype == expected.dtype
        differ = np.abs(np.asarray(found, int) - expected.astype(int))
        assert differ.max() <= tolerance["max_abs"], differ.max()
        assert (differ > 0).mean() <= tolerance["max_frac_differing"]

    return check


def _resize(case, get, output):
    def check() -> None:
        image, expected = get("in_img"), get(output)
        planes = image[..., None] if image.ndim == 2 else image
        resize = jax.vmap(
            lambda plane: ops.resize_area(plane, case["params"]["out"]), -1, -1
        )
        found = np.asarray(resize(planes)).reshape(expected.shape)
        atol = case["tol"]["float"] if image.dtype.kind == "f" else 1
        difference = found.astype(float) - expected.astype(float)
        assert np.abs(difference).max() <= atol, np.abs(difference).max()

    return check


def _sampled(case, get, output):
    tolerance = case["tol"]
    if output == "out_disp":
        params = case["params"]

        def moved() -> None:
            noise = get("in_noise")
            found = ops.elastic_coordinates(
                None,
                noise.shape[1:],
                alpha=params["alpha"],
                sigma=params["sigma"],
                noise=noise,
            )
            expected = get(output) + np.indices(noise.shape[1:])
            np.testing.assert_allclose(found, expected, atol=1e-4)

        return moved
    if output == "out_cv_reflect101_linear":
        return lambda: _close(
            ops.sample(get("in_img"), get("in_coords"), mode="mirror"),
            get(output),
            tolerance["cv2"],
        )
    match = _SAMPLED.fullmatch(output)
    if match is None:
        return None
    labels, mode, order = match.groups()
    image = "in_labels" if labels else "in_img"
    return lambda: _close(
        ops.sample(
            get(image), get("in_coords"), order=int(order), mode=mode.replace("_", "-")
        ),
        get(output),
        tolerance["scipy"],
    )


def _filtered(case, get, output):
    image, params = get("in_img"), case["params"]
    if "contrast" in params:
        both = params["brightness"], params["contrast"]
        return lambda: _close(
            ops.brightness_contrast(image, *both), get(output), case["tol"]
        )
    if match := _SCIPY.fullmatch(output):
        mode, sigma = match.groups()
        return lambda: _close(
            ops.gaussian_blur(image, float(sigma), mode=mode), get(output), case["tol"]
        )
    if match := _OPENCV.fullmatch(output):
        size, sigma = match.groups()
        return lambda: _close(
            ops.gaussian_blur(image, float(sigma), ksize=int(size), mode="mirror"),
            get(output),
            case["tol"],
        )
    return None


def _close(found, expected, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=atol)


ANSWERS = {
    "clahe": _cases(_clahe),
    "filters": _cases(_filtered),
    "geometric": _cases(_sampled),
    "resize_area": _cases(_resize),
}
