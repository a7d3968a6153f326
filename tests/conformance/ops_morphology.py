"""Answers of kernels, soft morphology and skeletons to stored outputs."""

import functools
import json
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from conformance.comparing import Answer, Archive
from scipy import ndimage

from fluojax.ops import morphology, skeleton, soft_morphology

SIMPLE = {"Boolean": "boolean", "EulerCharacteristic": "euler"}
OPERATIONS = ("erode", "dilate", "open", "close", "gradient", "tophat")
SOFT = {
    "erode": soft_morphology.soft_erode,
    "dilate": soft_morphology.soft_dilate,
    "open": soft_morphology.soft_open,
}
# One program per shape and set of parameters, whatever the case.
_soft = {name: jax.jit(function) for name, function in SOFT.items()}
_soft_skeleton = jax.jit(soft_morphology.soft_skeleton, static_argnums=1)
_skeletonize = jax.jit(skeleton.skeletonize)
_topological_skeleton = jax.jit(
    skeleton.topological_skeleton, static_argnames=("num_iters", "method")
)


def _cases(archive: Archive) -> Iterator[tuple[str, dict]]:
    for case in json.loads(str(archive["meta"]))["cases"]:
        yield case["name"], case


def _morphology(archive: Archive) -> Iterator[Answer]:
    for name, case in _cases(archive):
        kernel = archive[f"{name}.in_kernel"]
        image = archive.get(f"{name}.in_mask")
        image = archive[f"{name}.in_img"] if image is None else image
        iterations = case["params"].get("iterations", 1)
        program = _operations(kernel.tobytes(), kernel.shape, iterations)
        ours = functools.cache(functools.partial(program, image))
        for output in case["outputs"]:
            expected = archive[f"{name}.{output}"]
            yield f"{name}.{output}", functools.partial(_same, ours, output, expected)


@functools.cache
def _operations(kernel: bytes, shape: tuple[int, ...], iterations: int) -> Callable:
    """A program that gives every output at once."""
    kernel = np.frombuffer(kernel, np.uint8).reshape(shape)
    borders = {"cv": "ignore", "sp": 0}

    @jax.jit
    def outputs(image):
        return {
            f"out_{library}_{operation}": getattr(morphology, operation)(
                image, kernel, border=border, iterations=iterations
            )
            for library, border in borders.items()
            for operation in OPERATIONS
        }

    return outputs


def _same(ours: Callable[[], dict], output: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(ours()[output], expected)


def _soft_morphology(archive: Archive) -> Iterator[Answer]:
    for name, case in _cases(archive):
        for output in case["outputs"]:
            function = _soft[output.split("_")[-1]]
            yield _soft_answer(archive, name, case, output, function)


def _soft_skeletons(archive: Archive) -> Iterator[Answer]:
    for name, case in _cases(archive):
        if case["params"]["variant"] == "keras3d":
            continue
        num_iters = case["params"]["num_iter"]
        for output in case["outputs"]:
            function = functools.partial(_with_iterations, num_iters)
            yield _soft_answer(archive, name, case, output, function)


def _with_iterations(num_iters: int, x: jax.Array) -> jax.Array:
    return _soft_skeleton(x, num_iters)


def _soft_answer(archive, name, case, output, function) -> Answer:
    """Value or gradient of the sum weighted by `in_w`, in float64."""
    x, expected = archive[f"{name}.in_x"], archive[f"{name}.{output}"]
    is_grad = output.startswith("out_grad")
    tolerance = case["tol"]["grad" if is_grad else "out"]

    def check() -> None:
        found, pull = jax.vjp(function, jnp.asarray(x, jnp.float64))
        if is_grad:
            (found,) = pull(jnp.asarray(archive[f"{name}.in_w"], jnp.float64))
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)

    return f"{name}.{output}", check


def _menten_skeleton(archive: Archive) -> Iterator[Answer]:
    for name, case in _cases(archive):
        params, x = case["params"], archive[f"{name}.in_x"]
        ours = functools.partial(
            _topological_skeleton,
            num_iters=params["num_iter"],
            method=SIMPLE[params["simple_point_detection"]],
        )
        if not params["probabilistic"]:
            yield (
                f"{name}.out_skel",
                functools.partial(
                    _assert_same_skeleton, ours, x, archive[f"{name}.out_skel"]
                ),
            )
            continue
        # The noise is that of the padded volume, two-dimensional images being
        # its middle plane.
        inner = archive[f"{name}.in_u"][1:-1, 1:-1, 1:-1].reshape(x.shape)
        ours = functools.partial(
            ours, noise=inner, beta=params["beta"], tau=params["tau"]
        )
        for output in case["outputs"]:
            yield _soft_answer(archive, name, case, output, ours)


def _assert_same_skeleton(ours: Callable, x: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(ours(x), expected)


def _skeletonize_properties(archive: Archive) -> Iterator[Answer]:
    """Not one library's pixels, but what every skeleton must be."""
    for name, case in _cases(archive):
        mask = archive[f"{name}.in_mask"]
        check = functools.cache(functools.partial(_assert_skeleton, mask))
        for output in case["outputs"]:
            yield f"{name}.{output}", check


def _assert_skeleton(mask: np.ndarray) -> None:
    thin = np.asarray(_skeletonize(mask))
    assert not np.any(thin & ~mask), "not a subset of the mask"
    assert _topology(thin) == _topology(mask), "another topology"
    assert np.array_equal(_skeletonize(thin), thin), "not idempotent"
    padded = np.pad(thin, 1)
    for place in np.argwhere(thin):
        around = padded[tuple(slice(i, i + 3) for i in place)].copy()
        ends = around.sum() <= 2
        with_it = _topology(around)
        around[(1,) * mask.ndim] = False
        assert ends or _topology(around) != with_it, f"{place} could go"


def _topology(mask: np.ndarray) -> tuple[int, int, int]:
    """Components of foreground and background, and the Euler number."""
    corners = np.ones((3,) * mask.ndim)
    padded = np.pad(mask, 1)
    # Pixels are closed cubes: count their faces of every dimension.
    euler = 0
    for axes in np.ndindex((2,) * mask.ndim):
        cells = ndimage.maximum_filter(padded, [1 + a for a in axes])
        euler += (-1) ** (mask.ndim - sum(axes)) * int(cells.sum())
    return ndimage.label(mask, corners)[1], ndimage.label(~padded)[1], euler


ANSWERS = {
    "morphology": _morphology,
    "soft_morphology": _soft_morphology,
    "soft_skeleton": _soft_skeletons,
    "menten_skeleton": _menten_skeleton,
    "skeletonize": _skeletonize_properties,
}
