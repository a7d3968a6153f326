"""From a stored array and its axes to a picture `[H, W, C]`."""

from pathlib import Path

import numpy as np

from fluojax.data.read import UnreadableFile


def as_picture(
    path: Path,
    array: np.ndarray,
    axes: str,
    *,
    channel: int | None = None,
    z: str = "",
    given_axes: str = "",
) -> np.ndarray:
    """`[H, W, C]`; alpha is dropped and three equal colours become one channel.

    Both concern colours (axis S) alone: channels of a microscope (axis C) stay.
    float64 becomes float32, scaled down where it exceeds that type.

    Raises:
      UnreadableFile: further axes and no instruction what to do with them, or
        values that are not finite.
    """
    if given_axes:
        if len(given_axes) != array.ndim:
            raise UnreadableFile(
                f"{path}: --axes {given_axes} does not fit shape {array.shape}"
            )
        axes = given_axes.upper()
    array, axes = _project_stack(path, array, axes, z)
    for name in "CS":
        if name in axes:
            array = np.moveaxis(array, axes.index(name), -1)
            axes = axes.replace(name, "") + name
            break
    else:
        array, axes = array[..., None], axes + "C"
    if axes[:-1] != "YX":
        raise UnreadableFile(
            f"{path}: shape {array.shape[:-1]}, axes {axes[:-1]}; say what they are "
            "with --axes ..., or reduce a stack with "
            "--z max (or mean, or an index)"
        )
    if axes.endswith("S"):
        array = _plain_colours(array, channel)
    array = one_channel(path, array, channel)
    return _as_float32(path, array) if array.dtype.kind == "f" else array


def _as_float32(path: Path, array: np.ndarray) -> np.ndarray:
    finite = np.isfinite(array)
    if not finite.all():
        bad = int((~finite).sum())
        raise UnreadableFile(
            f"{path}: {bad} pixels ({bad / array.size:.2%}) are NaN or infinite"
        )
    top = float(np.abs(array).max())
    if top > float(np.finfo(np.float32).max):
        array = array / top
    return array.astype(np.float32)


def mend_not_finite(path: Path, array: np.ndarray) -> tuple[np.ndarray, int]:
    """NaN and infinite values replaced by the smallest other, and their number.

    Raises:
      UnreadableFile: no value is finite.
    """
    finite = np.isfinite(array)
    bad = array.size - int(finite.sum())
    if bad == array.size:
        raise UnreadableFile(f"{path}: all pixels are NaN or infinite")
    if bad:
        array = np.where(finite, array, array[finite].min())
    return array, bad


def _project_stack(
    path: Path, array: np.ndarray, axes: str, z: str
) -> tuple[np.ndarray, str]:
    stacks = [a for a in axes if a not in "YXCS"]
    if not stacks or not z:
        return array, axes
    if len(stacks) > 1:
        raise UnreadableFile(f"{path}: axes {axes}; only one stack can be reduced")
    axis = axes.index(stacks[0])
    if z == "max":
        array = array.max(axis)
    elif z == "mean":
        array = array.mean(axis).astype(np.float32)
    elif z.isdigit() and int(z) < array.shape[axis]:
        array = array.take(int(z), axis)
    else:
        raise UnreadableFile(
            f"{path}: z={z!r} is none of max, mean, 0..{array.shape[axis] - 1}"
        )
    return array, axes.replace(stacks[0], "")


def has_alpha(array: np.ndarray, axes: str) -> bool:
    """Whether the last axis is grey or colours with an opacity, LA or RGBA."""
    return axes.endswith("S") and array.shape[-1] in (2, 4)


def _plain_colours(array: np.ndarray, channel: int | None) -> np.ndarray:
    if has_alpha(array, "S"):
        array = array[..., :-1]
    equal = array.shape[-1] == 3 and (array[..., :1] == array[..., 1:]).all()
    return array[..., :1] if equal and channel is None else array


def one_channel(path: Path, array: np.ndarray, channel: int | None) -> np.ndarray:
    """`[H, W, 1]` with the channel asked for; up to four stay where none is.

    Raises:
      UnreadableFile: more channels and none asked for, or one that is not there.
    """
    channels = array.shape[-1]
    if channel is None:
        if channels > 4:
            raise UnreadableFile(
                f"{path}: {channels} channels; choose one with --channel N"
            )
        return array
    if not 0 <= channel < channels:
        raise UnreadableFile(
            f"{path}: channel {channel} of {channels}; they count from 0"
        )
    return array[..., channel : channel + 1]
