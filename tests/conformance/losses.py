"""Answers of the losses to stored values and gradients.

An archive holds `inputs/<case>/<name>` and, for every case and variant, the
loss of each image (`value`), the gradient of their sum (`grad`), and how the
source pools a batch (`batch_value`, `batch_grad`). `meta` of a variant names
the parameters of the program; the functions here translate them to ours.
Families with other arrays than these have modules of their own (`ELSEWHERE`).
"""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from conformance.comparing import VALUE, Answer, Archive, Loss, variant

from fluojax import losses

# Programs take 1 minus a ratio: near a ratio of 1 that is known to some 1e-16.
RATIO_FLOOR = 1e-15
RATIOS = ("dice", "tversky", "focal_tversky")
# The study's program adds 1e-6 pixels to the count, 5e-9 of the smallest image.
VALUE_FLUOCELLS = 2e-8
# Powers below 1 of something near 0 amplify rounding.
VALUE_SMALL_POWER = 1e-5
# Modules with `ANSWERS`: a function of the archive for each of their families.
ELSEWHERE = (
    "losses_boundary",
    "losses_instance",
    "losses_maps",
    "losses_moments",
    "losses_topology",
)


def answers(stem: str, archive: Archive) -> Iterator[Answer]:
    """A check, or the reason why there is none, for every record of `archive`.

    Variants whose parameters no function here understands yield nothing.
    """
    for module in ELSEWHERE:
        special = importlib.import_module(f"conformance.{module}").ANSWERS
        if stem in special:
            yield from special[stem](archive)
    translate = FAMILIES.get(stem)
    metas = [key for key in archive if key.endswith("/meta")]
    for key in metas if translate else ():
        case, name = key.split("/")[:2]
        params = json.loads(str(archive[key]))["params"]
        loss = translate(name, params, archive[f"inputs/{case}/logits"].shape[-1])
        if loss is None:
            continue
        yield from variant(
            f"{case}/{name}",
            archive,
            loss,
            rtol=_value_tolerance(case, name, params),
            atol=RATIO_FLOOR if stem in RATIOS else 0.0,
            with_grad=(stem, case) != ("lovasz", "saturated"),
        )


def _value_tolerance(case: str, variant: str, params: Mapping[str, Any]) -> float:
    if variant.startswith(("fluocells_code", "combined_ft")):
        return VALUE_FLUOCELLS
    if case in ("perfect", "both_empty") and params.get("exponent", 1.0) < 1.0:
        return VALUE_SMALL_POWER
    return VALUE


# From here on: what the parameters of each program mean in ours.


def _weighted_bce(variant: str, params: Mapping[str, Any], classes: int) -> Loss | None:
    by_weight = params.get("reduction", "").startswith("weighted mean")
    normalize = "weights" if by_weight else "pixels"
    options = {k: params[k] for k in ("pos_weight", "class_weights") if k in params}
    if not options:
        return None
    return _options(losses.cross_entropy_loss, normalize=normalize, **options)


def _dice(variant: str, params: Mapping[str, Any], classes: int) -> Loss | None:
    # One channel is the foreground alone, whatever the flag of the program.
    background = classes > 1 and params.get("include_background", True)
    if "smooth_nr" in params:  # MONAI
        return _options(
            losses.jaccard_loss if params.get("jaccard") else losses.dice_loss,
            smooth=(params["smooth_nr"], params["smooth_dr"]),
            squared=params.get("squared_pred", False),
            soft_labels="l1" if params.get("soft_label") else "product",
            include_background=background,
            class_weights=params.get("weight"),
        )
    if "square_in_union" in params:  # fastai, two channels
        both = _options(
            losses.dice_loss,
            smooth=params["smooth"],
            squared=params["square_in_union"],
            include_background=True,
        )
        scale = 2.0 if params["reduction"] == "sum" else 1.0
        return lambda z, g: scale * both(*_two_channels(z, g))
    if "smooth_tp" in params:  # optax adds to the intersection, thus half
        smooth = 2.0 * params["smooth_tp"]
        return _options(losses.dice_loss, smooth=smooth, include_background=background)
    if "eps" in params:  # SMP, whose intersection is right for soft labels
        return _options(
            losses.dice_loss,
            smooth=params["smooth"],
            soft_labels="l1",
            include_background=background,
        )
    return None


def _tversky(variant: str, params: Mapping[str, Any], classes: int) -> Loss | None:
    if "fp_weight" not in params:
        return None
    return _options(losses.tversky_loss, **_tversky_options(variant, params, classes))


def _tversky_options(
    variant: str, params: Mapping[str, Any], classes: int
) -> dict[str, Any]:
    background = classes > 1 and params.get("include_background", True)
    names = ("fp_weight", "fn_weight", "smooth")
    return {k: params[k] for k in names} | {
        "soft_labels": "l1" if variant.startswith("smp") else "product",
        "include_background": background or "both_classes" in variant,
    }


def _focal(variant: str, params: Mapping[str, Any], classes: int) -> Loss | None:
    return _options(losses.focal_loss, gamma=params["gamma"], alpha=params["alpha"])


def _focal_tversky(
    variant: str, params: Mapping[str, Any], classes: int
) -> Loss | None:
    if "alpha_fn" in params:  # the study's program: its two prices cancel
        return _options(losses.power_mae_loss, exponent=params["exponent"])
    options = _tversky_options(variant, params, classes)
    options["exponent"] = params["exponent"]
    loss = _options(losses.focal_tversky_loss, **options)
    if variant.startswith("cellvit"):  # sums over the classes
        return lambda z, g: classes * loss(z, g)
    return loss


def _combined(variant: str, params: Mapping[str, Any], classes: int) -> Loss | None:
    shared = {
        "weights": tuple(params[k] for k in ("w_bce", "w_dice", "w_third")),
        "smooth": params["smooth"],
        "dice_reduction": "fluocells",
        "batch_size_equivalent": 1,
    }
    if variant.startswith("combined_ft"):
        options = shared | {"flatten": True, "exponent": params["gamma"]}
        return _options(losses.combined_focal_tversky_loss, **options)
    return _options(losses.combined_loss, gamma=params["gamma"], **shared)


def _generalized_dice(
    variant: str, params: Mapping[str, Any], classes: int
) -> Loss | None:
    if "w_type" not in params:
        return None
    return _options(
        losses.generalized_dice_loss,
        weighting=params["w_type"],
        smooth=(params["smooth_nr"], params["smooth_dr"]),
        include_background=params.get("include_background", True),
    )


def _lovasz(variant: str, params: Mapping[str, Any], classes: int) -> Loss | None:
    if variant.startswith("hinge"):
        return losses.lovasz_loss
    loss = _options(losses.lovasz_loss, classes=params["classes"])
    return loss if classes > 1 else lambda z, g: loss(*_two_channels(z, g))


def _unified_focal(
    variant: str, params: Mapping[str, Any], classes: int
) -> Loss | None:
    shared = {k: params[k] for k in ("delta", "gamma")}
    if "weight_on_focal_tversky" in params:  # the authors' program
        return _options(
            losses.unified_focal_loss,
            weight=params["weight_on_focal_tversky"],
            asymmetric="asym" in variant,
            **shared,
        )
    # MONAI weighs the other part and averages cross-entropy over two classes.
    weight = params["weight"]
    pixel = _options(losses.unified_focal_loss, weight=0.0, **shared)
    overlap = _options(losses.unified_focal_loss, weight=1.0, **shared)
    return lambda z, g: weight * pixel(z, g) / 2 + (1 - weight) * overlap(z, g)


FAMILIES: Mapping[str, Callable[..., Loss | None]] = {
    "weighted_bce": _weighted_bce,
    "dice": _dice,
    "tversky": _tversky,
    "focal": _focal,
    "focal_tversky": _focal_tversky,
    "combined": _combined,
    "generalized_dice": _generalized_dice,
    "lovasz": _lovasz,
    "unified_focal": _unified_focal,
}


def _options(function: Callable[..., jax.Array], **options) -> Loss:
    return lambda logits, labels: function(logits, labels, **options)


def _two_channels(logits, labels):
    """A single logit and label as the pair (0, z) and (1 - g, g)."""
    return (
        jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1),
        jnp.concatenate([1.0 - labels, labels], axis=-1),
    )
