"""Weights of the loss study's c-ResUnets, by the paths of `cresunet`.

The study publishes twelve trained networks (github.com/clissa/fluocells-BVPAI)
as PyTorch files. Names and layouts are translated here; reading the file is
left to the caller.
"""

import re
from collections.abc import Mapping

import numpy as np

from fluojax.errors import some

# What comes before the layer in the file, and the stage of `cresunet`.
_STAGES = {
    "encoder.conv_block": "enc1",
    "encoder.residual_block1": "enc2",
    "encoder.residual_block2": "enc3",
    "encoder.bottleneck.residual_block1": "mid1",
    "encoder.bottleneck.residual_block2": "mid2",
    "decoder.upconv_block1": "dec3",
    "decoder.upconv_block2": "dec2",
    "decoder.upconv_block3": "dec1",
}
_LAYERS = {
    "conv_block.batchnorm2d_0": "norm1",
    "conv_block.conv2d_2": "conv1",
    "conv_block.batchnorm2d_3": "norm2",
    "conv_block.conv2d_5": "conv2",
    "conv_path.conv_block.batchnorm2d_0": "norm1",
    "conv_path.conv_block.conv2d_2": "conv1",
    "conv_path.conv_block.batchnorm2d_3": "norm2",
    "conv_path.conv_block.conv2d_5": "conv2",
    "id_path.conv2d_1": "shortcut",
    "id_path.up_conv": "up",
}
_WHOLE = {"encoder.colorspace": "colorspace", "head.heatmap.conv2d": "head"}
_NORM = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}
_NAME = re.compile(r"(.+)\.([a-z_]+)")


def cresunet_weights(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a state dict of the study by the paths that `load_flat` takes.

    Kernels become [rows, columns, in, out]; those of transposed convolutions
    are turned by half a turn as well, since Flax does not turn them.

    Args:
      state: names as in the study's program, arrays in PyTorch's layouts.

    Raises:
      ValueError: a name is unknown.
    """
    weights, unknown = {}, []
    for name, values in state.items():
        layer, leaf = _NAME.fullmatch(name).groups() if "." in name else (name, "")
        if leaf == "num_batches_tracked":
            continue
        path = _path(layer)
        if path is None:
            unknown.append(name)
            continue
        values = np.asarray(values)
        if "norm" in path:
            weights[f"{path}/{_NORM.get(leaf, leaf)}"] = values
        elif leaf == "weight" and path.endswith("/up"):
            turned = values[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
            weights[f"{path}/kernel"] = turned
        elif leaf == "weight":
            weights[f"{path}/kernel"] = values.transpose(2, 3, 1, 0)
        else:
            weights[f"{path}/{leaf}"] = values
    if unknown:
        raise ValueError(
            f"cresunet_weights: not a c-ResUnet of the study: {some(unknown)} unknown"
        )
    return weights


def cresunet_size(weights: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Base width and input channels of translated weights.

    Raises:
      ValueError: the first layers are missing.
    """
    try:
        channels = weights["colorspace/kernel"].shape[2]
        return weights["enc1/conv1/kernel"].shape[3], channels
    except (KeyError, IndexError):
        raise ValueError(
            "cresunet_size: not a c-ResUnet of the study: its colour projection or "
            "first convolution is missing"
        ) from None


def _path(layer: str) -> str | None:
    if layer in _WHOLE:
        return _WHOLE[layer]
    for prefix, stage in _STAGES.items():
        rest = layer.removeprefix(f"{prefix}.")
        if rest != layer and rest in _LAYERS:
            return f"{stage}/{_LAYERS[rest]}"
    return None
