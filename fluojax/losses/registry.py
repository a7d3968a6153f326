"""Losses by name: every function of `fluojax.losses` and the published presets.

`create_loss("dice_fluocells")` returns `f(logits, labels, **context) -> [B]`
with the options of the preset. The context holds the arrays that change from
batch to batch (`CONTEXT`); a loss receives those that it takes, so that one
training step can offer `instances` and `where` to any loss.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from fluojax import errors

# Arrays that belong to a batch, as opposed to options that belong to a run.
CONTEXT = ("where", "weights", "instances", "regions", "distances", "contours")

_FOREGROUND = {"fp_weight": 0.3, "fn_weight": 0.7}
_SLIDES_FT = {**_FOREGROUND, "exponent": 2.0, "tversky_smooth": 1e-6}
# Dice over both classes, summed over them and the study's batches of 32.
_PROGRAM = {"dice_reduction": "fluocells", "batch_size_equivalent": 32, "smooth": 1e-6}
_PROGRAM_FT = {**_PROGRAM, "flatten": True, "exponent": 4.0 / 3.0}
_BALANCED, _OVERCROWD = (0.3, 0.3, 0.4), (0.2, 0.5, 0.3)
# The slides and the program of the loss study disagree on the triple "cellvit".
_CELLVIT, _CELLVIT_PROGRAM = (0.5, 0.3, 0.5), (0.5, 0.2, 0.5)

_ICI = {"global_weight": 0.25, "instance_weight": 0.5, "center_weight": 0.25}


def _bce(pos_weight: float, normalize: str) -> tuple[str, dict[str, Any]]:
    return "cross_entropy_loss", {"pos_weight": pos_weight, "normalize": normalize}


def _combined(weights, **options) -> tuple[str, dict[str, Any]]:
    return "combined_loss", {"weights": weights, "gamma": 2.0, **options}


def _combined_ft(weights, **options) -> tuple[str, dict[str, Any]]:
    return "combined_focal_tversky_loss", {"weights": weights, **options}


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    # The loss study, as on its slides.
    "bce_w50": _bce(50.0, "pixels"),
    "bce_w100": _bce(100.0, "pixels"),
    "bce_w200": _bce(200.0, "pixels"),
    "dice": ("dice_loss", {"smooth": 1.0}),
    "focal": ("focal_loss", {"gamma": 2.0}),
    "focal_tversky_slides": (
        "focal_tversky_loss",
        {**_FOREGROUND, "exponent": 2.0, "smooth": 1e-6},
    ),
    "combined_balanced": _combined(_BALANCED, smooth=1.0),
    "combined_overcrowd": _combined(_OVERCROWD, smooth=1.0),
    "combined_cellvit": _combined(_CELLVIT, smooth=1.0),
    "combined_ft_balanced": _combined_ft(_BALANCED, **_SLIDES_FT),
    "combined_ft_overcrowd": _combined_ft(_OVERCROWD, **_SLIDES_FT),
    "combined_ft_cellvit": _combined_ft(_CELLVIT, **_SLIDES_FT),
    # The same configurations as its program computes them.
    "bce_w50_fluocells": _bce(50.0, "weights"),
    "bce_w100_fluocells": _bce(100.0, "weights"),
    "bce_w200_fluocells": _bce(200.0, "weights"),
    "dice_fluocells": ("dice_loss", {"smooth": 1e-6, "include_background": True}),
    "focal_fluocells": ("focal_loss", {"gamma": 2.0}),
    "focal_tversky_fluocells": ("power_mae_loss", {"exponent": 4.0 / 3.0}),
    "combined_balanced_fluocells": _combined(_BALANCED, **_PROGRAM),
    "combined_overcrowd_fluocells": _combined(_OVERCROWD, **_PROGRAM),
    "combined_cellvit_fluocells": _combined(_CELLVIT_PROGRAM, **_PROGRAM),
    "combined_ft_balanced_fluocells": _combined_ft(_BALANCED, **_PROGRAM_FT),
    "combined_ft_overcrowd_fluocells": _combined_ft(_OVERCROWD, **_PROGRAM_FT),
    "combined_ft_cellvit_fluocells": _combined_ft(_CELLVIT_PROGRAM, **_PROGRAM_FT),
    # Constants of other papers.
    "focal_tversky": (
        "focal_tversky_loss",
        {**_FOREGROUND, "exponent": 0.75, "smooth": 1.0},
    ),
    "focal_retinanet": ("focal_loss", {"gamma": 2.0, "alpha": 0.25}),
    "unified_focal_symmetric": ("unified_focal_loss", {"asymmetric": False}),
    "focal_imsahlo": ("focal_loss", {"gamma": 3.0, "alpha": 0.8}),
    "tversky_imsahlo": ("tversky_loss", {**_FOREGROUND, "smooth": 1e-6}),
    "contour_imsahlo": ("contour_weighted_loss", {"smooth": 1e-6}),
    "imsahlo": ("imsahlo_loss", {"weights": (0.4, 0.2, 0.3, 0.1)}),
    "imsahlo_ablation": ("imsahlo_loss", {"weights": (0.4, 0.3, 0.2, 0.1)}),
    "cbdice_trainer": (
        "weighted_sum",
        {
            "terms": (
                ("cross_entropy_loss", 2.0),
                ("dice_loss", 1.0),
                ("cbdice_loss", 1.0),
            )
        },
    ),
    "blob": ("blob_loss", {"main_weight": 2.0, "blob_weight": 1.0}),
    "ici": ("ici_loss", _ICI),
    "dual_ici": ("dual_ici_loss", _ICI),
    "cc_dice": ("cc_dice_loss", {}),
}


def list_losses() -> tuple[str, ...]:
    """Names that `create_loss` knows, functions and presets, sorted."""
    return tuple(sorted({*_functions(), *PRESETS}))


def create_loss(name: str, **options: Any) -> Callable[..., jax.Array]:
    """The loss or preset `name` with `options` set, as one function.

    Args:
      name: one of `list_losses()`.
      **options: keyword arguments of the loss; they replace those of a preset.

    Returns:
      `f(logits, labels, **context) -> [B]`. Of the context, a batch's arrays
      named in `CONTEXT`, the loss receives what its signature takes, unless it
      is None or set by the options.

    Raises:
      TypeError: an option the loss does not take, or, when called, a name in
        the context that no loss takes.
      ValueError: an unknown name, also in the terms of a weighted sum.
    """
    functions = _functions()
    if name not in PRESETS and name not in functions:
        known = list_losses()
        raise ValueError(
            f"create_loss: unknown loss {name!r}{errors.nearest(name, known)}; "
            "fluojax.losses.list_losses() names all"
        )
    target, preset = PRESETS.get(name, (name, {}))
    keywords = _keywords(functions[target])
    unknown = sorted(set(options) - set(keywords))
    if unknown:
        raise TypeError(
            f"create_loss: {name} has no option {', '.join(unknown)}; "
            f"it has {', '.join(keywords)}"
        )
    settings = {**preset, **options}
    if target == "weighted_sum":
        resolve_terms(settings.get("terms", ()))
        taken = CONTEXT
    else:
        taken = tuple(key for key in CONTEXT if _is_array(keywords.get(key)))
    return _bind(name, functions[target], settings, taken)


def instance_capacity(name: str, **options: Any) -> int | None:
    """How many instances of an image a loss takes; None if it takes none.

    Beyond it instances leave the loss (`ops.count_instances` tells their true
    number).

    Raises:
      ValueError: an unknown name.
    """
    create_loss(name, **options)
    functions = _functions()
    target, preset = PRESETS.get(name, (name, {}))
    settings = {**preset, **options}
    if target == "weighted_sum":
        each = [(term[0], dict(*term[2:])) for term in settings.get("terms", ())]
        found = [instance_capacity(own, **its) for own, its in each]
        return min((n for n in found if n is not None), default=None)
    bound = _keywords(functions[target]).get("max_instances")
    return None if bound is None else settings.get("max_instances", bound.default)


def resolve_terms(
    terms: Sequence[Sequence],
) -> list[tuple[float, Callable[..., jax.Array]]]:
    """Weight and loss of every (name, weight) or (name, weight, options).

    Raises:
      ValueError: no term, a term of another form, or an unknown name.
    """
    if not terms:
        raise ValueError(
            "weighted_sum: terms must hold at least one (name, weight), got none"
        )
    for term in terms:
        if isinstance(term, str) or len(term) not in (2, 3):
            raise ValueError(
                "weighted_sum: a term must be (name, weight) or (name, weight, "
                f"options), got {term!r}"
            )
    options = [dict(*term[2:]) for term in terms]
    return [
        (term[1], create_loss(term[0], **own))
        for term, own in zip(terms, options, strict=True)
    ]


def _bind(name, function, settings, taken) -> Callable[..., jax.Array]:
    def loss(logits: ArrayLike, labels: ArrayLike, **context: Any) -> jax.Array:
        strange = sorted(set(context) - set(CONTEXT))
        if strange:
            raise TypeError(
                f"{name}: no loss takes {', '.join(strange)}; the arrays of a "
                f"batch are {', '.join(CONTEXT)}"
            )
        given = {key: context[key] for key in taken if context.get(key) is not None}
        return function(logits, labels, **{**given, **settings})

    loss.__name__ = loss.__qualname__ = name
    return loss


def _functions() -> dict[str, Callable[..., jax.Array]]:
    """The public losses; read when asked, since they use this module."""
    from fluojax import losses

    names = {name for name in losses.__all__ if name.endswith("_loss")}
    names = names - {"create_loss"} | {"weighted_sum"}
    return {name: getattr(losses, name) for name in names}


def _keywords(function: Callable) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def _is_array(parameter: inspect.Parameter | None) -> bool:
    """Arrays are None unless given; the `weights` of a compound are numbers."""
    return parameter is not None and parameter.default in (None, parameter.empty)
