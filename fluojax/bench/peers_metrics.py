"""Other programs that score an image of cells, composed where no package does.

"SciPy" for matching is the published recipe of one-to-one assignment over a
dense matrix; "scikit-image" measures centres with `regionprops`.
"""

from collections.abc import Callable

import numpy as np

from fluojax.bench.inputs import Arrays

Call = Callable[[], np.ndarray]
THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
CENTRE_PX = 10.0


def _stardist_match(arrays: Arrays) -> Call:
    from stardist.matching import matching

    def call():
        found = matching(arrays["true"], arrays["pred"], thresh=0.5)
        return np.array([found.tp, found.fp, found.fn])

    return call


def _stardist_precision(arrays: Arrays) -> Call:
    from stardist.matching import matching

    def call():
        found = matching(arrays["true"], arrays["pred"], thresh=THRESHOLDS)
        return np.array([one.accuracy for one in found])

    return call


def _ious(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """IoU of every true with every predicted cell, by counting pairs of labels."""
    from scipy import sparse

    ones = np.ones(true.size, np.int64)
    table = sparse.coo_array((ones, (true.ravel(), pred.ravel()))).toarray()
    shared = table[1:, 1:]
    areas = table[1:].sum(1)[:, None] + table[:, 1:].sum(0)[None]
    there = (table[1:].sum(1) > 0)[:, None] & (table[:, 1:].sum(0) > 0)[None]
    ious = shared / np.maximum(areas - shared, 1)
    return ious[there.any(1)][:, there.any(0)]


def _assigned(ious: np.ndarray, threshold: float) -> np.ndarray:
    """tp, fp, fn of the best assignment of pairs that reach the threshold."""
    from scipy.optimize import linear_sum_assignment

    cost = -1.0 * (ious >= threshold) - ious / (2 * min(ious.shape))
    rows, columns = linear_sum_assignment(cost)
    tp = int((ious[rows, columns] >= threshold).sum())
    return np.array([tp, ious.shape[1] - tp, ious.shape[0] - tp])


def _scipy_match(arrays: Arrays) -> Call:
    return lambda: _assigned(_ious(arrays["true"], arrays["pred"]), 0.5)


def _scipy_precision(arrays: Arrays) -> Call:
    def call():
        ious = _ious(arrays["true"], arrays["pred"])
        counts = [_assigned(ious, threshold) for threshold in THRESHOLDS]
        return np.array([count[0] / count.sum() for count in counts])

    return call


def _near(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """tp, fp, fn of centres `[n, 2]`, each by its nearest on the other side."""
    from scipy.spatial import KDTree

    found = KDTree(pred).query(true)[0] <= CENTRE_PX
    hit = KDTree(true).query(pred)[0] <= CENTRE_PX
    return np.array([found.sum(), (~hit).sum(), (~found).sum()])


def _scikit_image_centres(arrays: Arrays) -> Call:
    from skimage.measure import regionprops_table

    def centres(labels):
        table = regionprops_table(labels, properties=("centroid",))
        return np.stack(list(table.values()), axis=1)

    return lambda: _near(centres(arrays["true"]), centres(arrays["pred"]))


def _scipy_centres(arrays: Arrays) -> Call:
    from scipy import ndimage

    def centres(labels):
        ids = np.unique(labels)[1:]
        return np.array(ndimage.center_of_mass(labels > 0, labels, ids))

    return lambda: _near(centres(arrays["true"]), centres(arrays["pred"]))


def _monai_surface(arrays: Arrays) -> Call:
    import torch
    from monai.metrics import compute_hausdorff_distance

    masks = [torch.as_tensor(arrays[k] > 0)[None, None] for k in ("pred", "true")]

    def call():
        return compute_hausdorff_distance(
            *masks, include_background=True, percentile=95
        )

    call.numpy = lambda out: out.numpy().ravel()[0]
    return call


def _edt_surface(arrays: Arrays) -> Call:
    import edt
    from scipy import ndimage

    def edge(mask):
        return mask & ~ndimage.binary_erosion(mask)

    def call():
        edges = [edge(arrays[k] > 0) for k in ("true", "pred")]
        maps = [edt.edt(~e, black_border=False, parallel=0) for e in edges]
        pairs = ((maps[0], edges[1]), (maps[1], edges[0]))
        return max(np.percentile(far[on], 95) for far, on in pairs)

    return call


_MATCH = {"StarDist": ("stardist", _stardist_match), "SciPy": ("scipy", _scipy_match)}
_CENTRE = {
    "scikit-image": ("skimage", _scikit_image_centres),
    "SciPy": ("scipy", _scipy_centres),
}
METRICS: dict[str, dict[str, tuple[str, Callable[[Arrays], Call]]]] = {
    "match_iou_100": _MATCH,
    "match_iou_1000": _MATCH,
    "average_precision_1000": {
        "StarDist": ("stardist", _stardist_precision),
        "SciPy": ("scipy", _scipy_precision),
    },
    "match_centre_100": _CENTRE,
    "match_centre_1000": _CENTRE,
    "surface_distance": {
        "MONAI": ("monai", _monai_surface),
        "edt": ("edt", _edt_surface),
    },
}
