"""Models by name: a class and the options that make the named configuration."""

from typing import Any

import flax.linen as nn

from fluojax import errors
from fluojax.models.cresunet import CResUNet
from fluojax.models.unet import UNet

_MODELS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "cresunet": (CResUNet, {}),
    "cresunet_nano": (CResUNet, {"base_features": 8}),
    "unet": (UNet, {}),
    "unet_nano": (UNet, {"features": (8, 16, 32, 64, 128)}),
    "unet_small": (UNet, {"features": (32, 64, 128, 256, 512)}),
    "unet_tiny": (UNet, {"features": (16, 32, 64, 128, 256)}),
}


def list_models() -> tuple[str, ...]:
    """The names `create_model` knows, sorted."""
    return tuple(sorted(_MODELS))


def create_model(name: str, num_classes: int = 1, **overrides: Any) -> nn.Module:
    """A Flax module by name.

    `model.init({"params": key}, x, train=False)` gives its variables,
    `model.apply(variables, x, train=False)` logits `[B, *S, num_classes]`,
    float32, for images `x` `[B, *S, C]` of any float dtype. In training pass
    `train=True, mutable=["batch_stats"]`. Channels and rank come from `x`.

    Every module also says, before it has seen an image:

    - `ranks`: the spatial ranks it takes;
    - `divisor`, `min_size`: other sizes are padded inside, smaller ones refused;
    - `halo`: pixels beyond which an output pixel in evaluation mode does not
      depend on the input, a multiple of the divisor, None if there is no such
      bound. Tiles that begin at multiples of the divisor and keep this margin
      give the logits of the whole image;
    - `momentum`: what remains of running batch statistics in one step.

    Args:
      name: one of `list_models()`.
      num_classes: channels of the logits, at least 1.
      **overrides: fields of the model's class in place of the named ones.

    Raises:
      TypeError: the model has no such option.
      ValueError: the name is unknown, or an option has a value it cannot take.
    """
    if name not in _MODELS:
        raise ValueError(
            f"create_model: unknown model {name!r}{errors.nearest(name, _MODELS)}; "
            f"known: {', '.join(list_models())}"
        )
    if num_classes < 1:
        raise ValueError(
            f"create_model: num_classes must be at least 1, got {num_classes}"
        )
    cls, options = _MODELS[name]
    known = sorted(set(cls.__dataclass_fields__) - {"parent", "name", "num_classes"})
    for option in overrides:
        if option not in known:
            raise TypeError(
                f"create_model: {name} has no option {option!r}"
                f"{errors.nearest(option, known)}; it takes {', '.join(known)}"
            )
    options = {**options, **overrides}
    if "features" in options:  # a module must be hashable; a file gives a list
        options["features"] = tuple(options["features"])
    return cls(num_classes=num_classes, **options)
