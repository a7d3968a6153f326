"""Models by name: a class and the options that make the named configuration."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from fluojax import errors
from fluojax.models.attention_unet import AttentionUNet
from fluojax.models.cresunet import CResUNet
from fluojax.models.deeplabv3plus import DeepLabV3Plus
from fluojax.models.dtasunet import DTASUNet
from fluojax.models.imsahlo import IMSAHLO, ResidualUNet
from fluojax.models.mobilevit import MobileViT
from fluojax.models.nnunet import NNUNet, ResEncUNet
from fluojax.models.transunet import TransUNet
from fluojax.models.unet import UNet
from fluojax.models.unetpp import UNetPlusPlus
from fluojax.models.unext import UNeXt

_MODELS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "attention_unet": (AttentionUNet, {}),
    "attention_unet_nano": (AttentionUNet, {"features": (8, 16, 32, 64, 128)}),
    "attention_unet_small": (AttentionUNet, {"features": (32, 64, 128, 256, 512)}),
    "attention_unet_tiny": (AttentionUNet, {"features": (16, 32, 64, 128, 256)}),
    "cresunet": (CResUNet, {}),
    "cresunet_nano": (CResUNet, {"base_features": 8}),
    "deeplabv3plus": (DeepLabV3Plus, {}),
    "deeplabv3plus_r34": (DeepLabV3Plus, {"encoder": "resnet34"}),
    "dtasunet": (DTASUNet, {}),
    "dtasunet_small": (
        DTASUNet,
        {"stem_features": 16, "dims": (32, 64, 128, 256), "heads": (1, 2, 4, 8)},
    ),
    "imsahlo": (IMSAHLO, {}),
    "imsahlo_large": (IMSAHLO, {"base_features": 32}),
    "mobilevit": (MobileViT, {}),
    "mobilevit_xs": (MobileViT, {"variant": "xs"}),
    "mobilevit_xxs": (MobileViT, {"variant": "xxs"}),
    "neurosegnet": (ResidualUNet, {}),
    "neurosegnet_msdb": (IMSAHLO, {"attention_reduction": None}),
    "nnunet": (NNUNet, {}),
    "resenc_unet": (ResEncUNet, {}),
    "resenc_unet_small": (
        ResEncUNet,
        {"features": (16, 32, 64, 128, 256), "blocks": (1, 2, 2, 2, 2)},
    ),
    "residual_unet": (ResidualUNet, {"act": "relu", "se_reduction": None}),
    "transunet": (TransUNet, {}),
    "transunet_small": (
        TransUNet,
        {
            "hidden_size": 256,
            "mlp_dim": 1024,
            "num_heads": 8,
            "num_layers": 4,
            "resnet_units": (2, 2, 3),
            "resnet_width": 32,
            "decoder_channels": (128, 64, 32, 16),
        },
    ),
    "unet": (UNet, {}),
    "unet_nano": (UNet, {"features": (8, 16, 32, 64, 128)}),
    "unet_small": (UNet, {"features": (32, 64, 128, 256, 512)}),
    "unet_tiny": (UNet, {"features": (16, 32, 64, 128, 256)}),
    "unetpp": (UNetPlusPlus, {}),
    "unetpp_nano": (UNetPlusPlus, {"features": (8, 16, 32, 64, 128)}),
    "unetpp_small": (UNetPlusPlus, {"features": (16, 32, 64, 128, 256)}),
    "unext": (UNeXt, {}),
    "unext_s": (UNeXt, {"features": (8, 16, 32, 64, 128)}),
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
    fields = {field.name for field in dataclasses.fields(cls)}
    known = sorted(fields - {"parent", "name", "num_classes"})
    for option in overrides:
        if option not in known:
            raise TypeError(
                f"create_model: {name} has no option {option!r}"
                f"{errors.nearest(option, known)}; it takes {', '.join(known)}"
            )
    options = {**options, **overrides}
    return cls(
        num_classes=num_classes, **{name: _tuples(v) for name, v in options.items()}
    )


def _tuples(value: Any) -> Any:
    """Lists, which files give, as tuples: a module must be hashable."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def main_output(outputs: jax.Array | list[jax.Array]) -> jax.Array:
    """The logits at full size, the first where deep supervision gives several."""
    return outputs[0] if isinstance(outputs, list) else outputs


def foreground_probability(logits: jax.Array) -> jax.Array:
    """`[...]` probability of the last class from logits `[..., K]`."""
    if logits.shape[-1] == 1:
        return jax.nn.sigmoid(logits[..., 0])
    return jax.nn.softmax(logits, -1)[..., -1]
