"""Published formulas in plain PyTorch, as a user would write them.

`loss(z, g, instances) -> scalar`: logits and labels `[B, 1, H, W]`, instances a
NumPy label map `[B, H, W]`; the mean over the images. torch is imported when a
function runs, since it is no dependency.
"""

import numpy as np


def bce(z, g, instances):
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(z, g)


def focal(z, g, instances, gamma=2.0, alpha=None):
    from torch.nn import functional

    cost = functional.binary_cross_entropy_with_logits(z, g, reduction="none")
    p = z.sigmoid()
    missed = p * (1 - g) + (1 - p) * g
    share = 1.0 if alpha is None else alpha * g + (1 - alpha) * (1 - g)
    return (share * missed**gamma * cost).mean()


def _sums(*values):
    return [value.flatten(1).sum(1) for value in values]


def dice(z, g, instances):
    p = z.sigmoid()
    both, areas = _sums(p * g, p + g)
    return (1 - (2 * both + 1) / (areas + 1)).mean()


def _tversky(z, g, smooth):
    p = z.sigmoid()
    tp, fp, fn = _sums(p * g, p * (1 - g), (1 - p) * g)
    return 1 - (tp + smooth) / (tp + 0.3 * fp + 0.7 * fn + smooth)


def focal_tversky(z, g, instances):
    return (_tversky(z, g, 1.0) ** 0.75).mean()


def _erode(x):
    from torch.nn import functional

    down = -functional.max_pool2d(-x, (3, 1), 1, (1, 0))
    across = -functional.max_pool2d(-x, (1, 3), 1, (0, 1))
    return down.minimum(across)


def _dilate(x):
    from torch.nn import functional

    return functional.max_pool2d(x, 3, 1, 1)


def soft_skeleton(x, num_iters):
    """Of probabilities `[B, 1, H, W]`."""
    skeleton = (x - _dilate(_erode(x))).relu()
    for _ in range(num_iters):
        x = _erode(x)
        delta = (x - _dilate(_erode(x))).relu()
        skeleton = skeleton + (delta - skeleton * delta).relu()
    return skeleton


def _soft_cldice(z, g, num_iters):
    p = z.sigmoid()
    of_p, of_g = soft_skeleton(p, num_iters), soft_skeleton(g, num_iters)
    on_g, all_p, on_p, all_g = _sums(of_p * g, of_p, of_g * p, of_g)
    precision, recall = (on_g + 1) / (all_p + 1), (on_p + 1) / (all_g + 1)
    return (1 - 2 * precision * recall / (precision + recall)).mean()


def soft_cldice_10(z, g, instances):
    return _soft_cldice(z, g, 10)


def soft_cldice_50(z, g, instances):
    return _soft_cldice(z, g, 50)


def _contour_weighted(z, g, smooth):
    from torch.nn import functional

    inside = -functional.max_pool2d(-g, 3, 1, 1)
    weight = 1 + 2 * (_dilate(g) - inside)
    cost = functional.binary_cross_entropy_with_logits(z, g, reduction="none")
    p = z.sigmoid()
    both, areas = _sums(weight * p * g, weight * (p * p + g * g))
    overlap = 1 - (2 * both + smooth) / (areas + smooth)
    return (weight * cost).mean() + overlap.mean()


def contour_weighted(z, g, instances):
    return _contour_weighted(z, g, 1.0)


def hybrid(z, g, instances):
    return (
        0.4 * _tversky(z, g, 1e-6).mean()
        + 0.2 * _contour_weighted(z, g, 1e-6)
        + 0.3 * focal(z, g, instances, gamma=3.0, alpha=0.8)
        + 0.1 * _soft_cldice(z, g, 10)
    )


def _soft_dice(p, g):
    return 1 - (2 * (p * g).sum() + 1e-5) / (p.sum() + g.sum() + 1e-5)


def blob(z, g, instances):
    import torch

    total = 0.0
    for p, y, ids in zip(z.sigmoid()[:, 0], g[:, 0], instances, strict=True):
        ids = torch.as_tensor(ids, device=p.device)
        parts = []
        for k in torch.unique(ids)[1:]:
            domain = (ids == 0) | (ids == k)
            parts.append(_soft_dice(p * domain, (ids == k).to(p.dtype)))
        total = total + 2 * _soft_dice(p, y)
        total = total + torch.stack(parts).mean()
    return total / len(z)


def ici(z, g, instances):
    """Instance-wise, global and box terms; components by SciPy."""
    import torch
    from scipy import ndimage

    total = 0.0
    for p, y, ids in zip(z.sigmoid()[:, 0], g[:, 0], instances, strict=True):
        found, count = ndimage.label((p >= 0.5).cpu().numpy(), np.ones((3, 3)))
        boxes = [_boxes(labels) for labels in (found, ids)]
        ids = torch.as_tensor(ids, device=p.device)
        found = torch.as_tensor(found, device=p.device)
        parts = []
        for k in torch.unique(ids)[1:]:
            touching = torch.unique(found[ids == k])
            own = torch.isin(found, touching[touching > 0])
            own = own & ((ids == 0) | (ids == k))
            parts.append(_soft_dice(p * own, (ids == k).to(p.dtype)))
        total = total + 0.25 * _soft_dice(p, y) + 0.5 * torch.stack(parts).mean()
        total = total + 0.25 * _soft_dice(*map(torch.as_tensor, boxes))
    return total / len(z)


def _boxes(labels, offset=3):
    """A square around the centre of every label."""
    drawn = np.zeros(labels.shape, np.float32)
    places = np.nonzero(labels)
    ids = labels[places]
    areas = np.maximum(np.bincount(ids), 1)
    centres = [np.ceil(np.bincount(ids, place) / areas) for place in places]
    reaches = [int(np.ceil(n / max(labels.shape) * offset)) for n in labels.shape]
    for k in np.unique(ids):
        spans = [
            slice(max(int(c[k]) - o - 1, 0), int(c[k]) + o)
            for c, o in zip(centres, reaches, strict=True)
        ]
        drawn[tuple(spans)] = 1 + 1e-7
    return drawn


FORMULAS = {
    "bce": bce,
    "focal": focal,
    "dice": dice,
    "focal_tversky": focal_tversky,
    "soft_cldice_10": soft_cldice_10,
    "soft_cldice_50": soft_cldice_50,
    "contour_weighted": contour_weighted,
    "hybrid": hybrid,
}
LOOPS = {"blob": blob, "ici": ici}
