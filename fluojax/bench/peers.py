"""What other programs offer for the same rows, where they are installed.

A contender is built from the arrays of a row and gives a call that returns
NumPy arrays in the form of ours: value and gradient `[B, H, W, 1]` for losses.
"torch" is the published formula in plain PyTorch, eager and compiled; the other
names are packages. Nothing here is imported unless it is asked for.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fluojax.bench import peers_metrics, peers_torch
from fluojax.bench.inputs import Arrays

Call = Callable[[], Any]
Builder = Callable[[Arrays], Call]


def contenders(kind: str) -> dict[str, tuple[str, Builder]]:
    """Name -> (package to import, builder) of everyone who offers `kind`."""
    found: dict[str, tuple[str, Builder]] = {}
    if kind in peers_torch.FORMULAS:
        found["torch"] = ("torch", _torch_loss(kind, compiled=False))
        found["torch.compile"] = ("torch", _torch_loss(kind, compiled=True))
    if kind in peers_torch.LOOPS:
        found["torch loop"] = ("torch", _torch_loss(kind, compiled=False))
    if kind in MONAI:
        found["MONAI"] = ("monai", _monai_loss(kind))
    return found | OPERATORS.get(kind, {}) | peers_metrics.METRICS.get(kind, {})


def missing(packages: set[str]) -> list[str]:
    """Which of `packages` cannot be imported here."""
    return sorted(name for name in packages if _import(name) is None)


def _import(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _torch_loss(kind: str, compiled: bool) -> Builder:
    def build(arrays: Arrays) -> Call:
        formulas = peers_torch.FORMULAS | peers_torch.LOOPS
        return _value_and_grad(formulas[kind], arrays, compiled)

    return build


def _value_and_grad(loss, arrays: Arrays, compiled: bool = False) -> Call:
    """Loss of `(z, g, instances)`, channels first, with its gradient."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = {
        "z": torch.as_tensor(np.moveaxis(arrays["logits"], -1, 1).copy()).to(device),
        "g": torch.as_tensor(np.moveaxis(arrays["labels"], -1, 1).copy()).to(device),
    }
    instances = arrays["instances"]
    function = torch.compile(loss) if compiled else loss
    z = tensors["z"].requires_grad_(True)

    def call():
        z.grad = None
        value = function(z, tensors["g"], instances)
        value.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return value, z.grad

    call.numpy = lambda out: (
        out[0].detach().cpu().numpy(),
        np.moveaxis(out[1].cpu().numpy(), 1, -1),
    )
    return call


def _monai_loss(kind: str) -> Builder:
    def build(arrays: Arrays) -> Call:
        from monai import losses

        loss = MONAI[kind](losses)
        return _value_and_grad(lambda z, g, _: loss(z, g), arrays)

    return build


def _monai_focal_tversky(losses):
    tversky = losses.TverskyLoss(
        sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=1, smooth_dr=1, reduction="none"
    )
    return lambda z, g: (tversky(z, g) ** 0.75).mean()


def _monai_cldice(num_iters: int):
    def build(losses):
        loss = losses.SoftclDiceLoss(iter_=num_iters, smooth=1.0)
        return lambda z, g: loss(g, z.sigmoid())

    return build


MONAI = {
    "dice": lambda losses: losses.DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1),
    "focal": lambda losses: losses.FocalLoss(gamma=2.0),
    "focal_tversky": _monai_focal_tversky,
    "soft_cldice_10": _monai_cldice(10),
    "soft_cldice_50": _monai_cldice(50),
    "boundary": lambda losses: losses.BoundaryLoss(sigmoid=True),
    "hausdorff_dt": lambda losses: losses.HausdorffDTLoss(alpha=2.0, sigmoid=True),
}


def _scipy_label(arrays: Arrays) -> Call:
    from scipy import ndimage

    return lambda: ndimage.label(arrays["mask"], np.ones((3, 3)))[0]


def _opencv_label(arrays: Arrays) -> Call:
    import cv2

    mask = arrays["mask"].astype(np.uint8)
    return lambda: cv2.connectedComponents(mask, connectivity=8)[1]


def _cc3d_label(arrays: Arrays) -> Call:
    import cc3d

    return lambda: cc3d.connected_components(arrays["mask"], connectivity=8)


def _scipy_edt(arrays: Arrays) -> Call:
    from scipy import ndimage

    return lambda: ndimage.distance_transform_edt(arrays["mask"])


def _opencv_edt(arrays: Arrays) -> Call:
    import cv2

    mask = arrays["mask"].astype(np.uint8)
    return lambda: cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _edt_edt(arrays: Arrays) -> Call:
    import edt

    mask = arrays["mask"].astype(np.uint8)
    return lambda: edt.edt(mask, parallel=0)


def _scipy_fill_holes(arrays: Arrays) -> Call:
    from scipy import ndimage

    return lambda: ndimage.binary_fill_holes(arrays["mask"])


def _scipy_maximum_filter(arrays: Arrays) -> Call:
    from scipy import ndimage

    return lambda: ndimage.maximum_filter(arrays["probs"], 30)


def _opencv_dilate(arrays: Arrays) -> Call:
    import cv2

    mask, kernel = arrays["mask"].astype(np.uint8), np.ones((3, 3), np.uint8)
    return lambda: cv2.dilate(mask, kernel)


def _opencv_clahe(arrays: Arrays) -> Call:
    import cv2

    return lambda: cv2.createCLAHE(3.0, (8, 8)).apply(arrays["grey"])


def _scipy_gaussian(arrays: Arrays) -> Call:
    from scipy import ndimage

    return lambda: ndimage.gaussian_filter(arrays["probs"], 8.0)


def _opencv_resize(arrays: Arrays) -> Call:
    import cv2

    rows = arrays["probs"].shape[0]
    return lambda: cv2.resize(
        arrays["probs"], (rows, rows), interpolation=cv2.INTER_AREA
    )


def _scikit_image_expand_labels(arrays: Arrays) -> Call:
    from skimage import segmentation

    return lambda: segmentation.expand_labels(arrays["instances"], 1e9)


def _scikit_image_small_objects(arrays: Arrays) -> Call:
    from skimage import morphology

    # Its newer bound counts sizes that go, ours those that stay.
    return lambda: morphology.remove_small_objects(
        arrays["mask"], max_size=199, connectivity=1
    )


def _torch_skeleton(compiled: bool) -> Callable[[Arrays], Call]:
    def build(arrays: Arrays) -> Call:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        x = torch.as_tensor(arrays["probs"])[None, None].to(device)
        skeleton = peers_torch.soft_skeleton
        function = torch.compile(skeleton) if compiled else skeleton

        def call():
            with torch.no_grad():
                out = function(x, 10)
            if device == "cuda":
                torch.cuda.synchronize()
            return out

        call.numpy = lambda out: out[0, 0].cpu().numpy()
        return call

    return build


def _monai_skeleton(arrays: Arrays) -> Call:
    import torch
    from monai.losses.cldice import soft_skel

    x = torch.as_tensor(arrays["probs"])[None, None]

    def call():
        with torch.no_grad():
            return soft_skel(x, 10)

    call.numpy = lambda out: out[0, 0].numpy()
    return call


OPERATORS: dict[str, dict[str, tuple[str, Builder]]] = {
    "label_components": {
        "SciPy": ("scipy", _scipy_label),
        "OpenCV": ("cv2", _opencv_label),
        "cc3d": ("cc3d", _cc3d_label),
    },
    "distance_transform": {
        "SciPy": ("scipy", _scipy_edt),
        "OpenCV": ("cv2", _opencv_edt),
        "edt": ("edt", _edt_edt),
    },
    "soft_skeletonize_10": {
        "torch": ("torch", _torch_skeleton(compiled=False)),
        "torch.compile": ("torch", _torch_skeleton(compiled=True)),
        "MONAI": ("monai", _monai_skeleton),
    },
    "clahe": {"OpenCV": ("cv2", _opencv_clahe)},
    "expand_labels": {"scikit-image": ("skimage", _scikit_image_expand_labels)},
    "gaussian_blur": {"SciPy": ("scipy", _scipy_gaussian)},
    "resize_area": {"OpenCV": ("cv2", _opencv_resize)},
    "fill_holes": {"SciPy": ("scipy", _scipy_fill_holes)},
    "maximum_filter": {"SciPy": ("scipy", _scipy_maximum_filter)},
    "dilate": {"OpenCV": ("cv2", _opencv_dilate)},
    "remove_small_objects": {"scikit-image": ("skimage", _scikit_image_small_objects)},
}
