"""Answers to archives of outlines, topology and calibration.

`f(case, output)` for one record, as in `metrics`, which calls them. The programs
have conventions of their own for empty masks; their records are skipped there
with the rule that ours follow.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fluojax import metrics
from fluojax.metrics.surface import edge_pixels

if TYPE_CHECKING:
    from conformance.metrics import Case

Answer = Callable[[], None] | str
# torchmetrics adds float32 numbers one by one, which 2000 equal ones in a bin
# carry 1e-5 away from their sum.
_TORCH_SUMS = 2e-5


def surface(case: "Case", output: str) -> Answer:
    reason = _skipped_surface(case, output)
    return reason or (lambda: _close(_surface(case, output), case, output))


def _skipped_surface(case: "Case", output: str) -> str | None:
    true, pred = case.maps()
    one_empty = np.any(true) != np.any(pred)
    any_empty = not (np.any(true) and np.any(pred))
    if output in ("sd_average", "sd_hd95", "sd_hd100", "sd_overlap"):
        return "distances weighted by length: ours has the surface Dice of that kind"
    if true.ndim == 3 and (output == "sd_dice" or "subvoxel" in output):
        return "in 3-D weighted by a program's triangles; ours is 2-D"
    if output.startswith("mr_") and any_empty:
        return "MetricsReloaded's own value for empty masks; ours are NaN, inf, 0"
    if output.startswith("monai_hd95") and one_empty:
        return "MONAI takes inf - inf if one mask is empty; ours is inf"
    if output == "bf" and one_empty:
        return "F is 0/0 in the program if one mask is empty; ours is 0"
    return None


def _surface(case: "Case", output: str) -> Any:
    true, pred = case.maps()
    options = {"spacing": case.params["spacing"]}
    program, name = output.split("_", 1) if "_" in output else ("", output)
    percentile = {"percentile": case.params["percentile"]}
    if program == "edge":
        return edge_pixels(case.input(name))
    if name in ("hd", "hd95", "hd95_directed"):
        percentile = percentile if "95" in name else {}
        directed = name.endswith("directed")
        return metrics.hausdorff(true, pred, directed=directed, **percentile, **options)
    if name in ("asd", "assd", "masd"):
        return metrics.average_surface_distance(true, pred, kind=name, **options)
    if output == "bf":
        tolerances = case.params["tolerances"]
        scores = [
            metrics.boundary_f1(true, pred, tolerance=tolerance, **options)
            for tolerance in tolerances
        ]
        return np.array([(s.precision, s.recall, s.f1) for s in scores])
    if output == "sd_dice":
        tolerances = case.params["tolerances"]
        return np.array(
            [
                metrics.surface_dice_subpixel(true, pred, tolerance=t, **options)
                for t in tolerances
            ]
        )
    kind, parameter = name.rsplit("_", 1)
    if kind == "boundary_iou":  # which MetricsReloaded measures in pixels
        return metrics.boundary_iou(true, pred, distance=float(parameter))
    functions = {
        "nsd": metrics.surface_dice,
        "nsd_subvoxel": metrics.surface_dice_subpixel,
    }
    return functions[kind](true, pred, tolerance=float(parameter), **options)


def cldice_metric(case: "Case", output: str) -> Answer:
    if output.startswith("skel_"):
        return "skeletons of scikit-image, on which the shares are checked"
    true, pred = case.maps()
    whole = output in ("cldice", "metricsreloaded")
    if whole and np.isnan(case.expected(output)) and (np.any(true) or np.any(pred)):
        return "0/0 in the program where no skeleton is hit; ours is 0"
    field = {"tprec": "precision", "tsens": "sensitivity"}.get(output, "cldice")

    def check() -> None:
        skeletons = case.expected("skel_true"), case.expected("skel_pred")
        scores = metrics.cldice(true, pred, skeletons=skeletons)
        _close(getattr(scores, field), case, output)

    return check


def topology(case: "Case", output: str) -> Answer | None:
    true, pred = case.maps()
    if output == "betti_error":
        return lambda: _close(metrics.betti_error(true, pred), case, output)
    if output == "patch_betti_error":
        patch = case.params["patch"]
        # A mean of whole numbers is stored with the last digits of a division.
        return lambda: _close(
            metrics.betti_error(true, pred, patch=patch), case, output, 1e-12
        )
    kind, which = output.rsplit("_", 1)
    functions = {
        "betti": metrics.betti_numbers,
        "euler": metrics.euler_number,
        "euler4": lambda mask: metrics.euler_number(mask, connectivity=1),
    }
    if kind not in functions:
        return None
    return lambda: _close(functions[kind](case.input(which)), case, output)


def calibration(case: "Case", output: str) -> Answer | None:
    if output.startswith("mr_ece"):
        return "MetricsReloaded's bins (low, high] leave out a probability of 0"
    # Samples as an image, which is what the functions take.
    target, prob = case.input("target")[None], case.input("prob")[None]
    if output in ("brier", "mr_brier"):  # the latter sums over two classes
        times = 2 if output == "mr_brier" else 1
        return lambda: _close(
            times * metrics.brier_score(target, prob), case, output, case.tol
        )
    if not output.startswith("tm_"):
        return None
    _, norm, bins = output.split("_")

    def check() -> None:
        actual = metrics.expected_calibration_error(
            target, prob, norm=norm, bins=int(bins)
        )
        _close(actual, case, output, _TORCH_SUMS)

    return check


def _close(actual: Any, case: "Case", output: str, atol: float | None = None) -> None:
    atol = case.tol if atol is None else atol
    np.testing.assert_allclose(
        np.asarray(actual), case.expected(output), rtol=case.tol, atol=atol
    )


FAMILIES = {
    "calibration": calibration,
    "cldice_metric": cldice_metric,
    "surface": surface,
    "topology": topology,
}
