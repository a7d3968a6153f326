"""Answers of the contour and distance losses and of the IMSAHLO hybrid."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from conformance.comparing import Answer, Archive, Loss, variant

from fluojax import losses

# Programs take 1 minus a ratio: near a ratio of 1 that is known to some 1e-16.
RATIO_FLOOR = 1e-15
# Distances that the program keeps in float32.
SHORT = {"rtol": 1e-6, "atol": 1e-9}


def _each_variant(
    translate: Callable[[Archive, str, str, Mapping[str, Any]], Loss | None],
    ties: tuple[str, ...] = (),
    **tolerance: float,
) -> Callable[[Archive], Iterator[Answer]]:
    """Answers by `translate(archive, case, variant, params)`, None for no answer."""

    def answers(archive: Archive) -> Iterator[Answer]:
        for key in [key for key in archive if key.endswith("/meta")]:
            case, name = key.split("/")[:2]
            params = json.loads(str(archive[key]))["params"]
            loss = translate(archive, case, name, params)
            if loss is not None:
                with_grad = case not in ties
                yield from variant(
                    f"{case}/{name}", archive, loss, with_grad=with_grad, **tolerance
                )

    return answers


def _contour_weighted(archive, case, name, params) -> Loss | None:
    if name.startswith("imsahlo_eq6_8"):
        terms = functools.partial(
            losses.contour_weighted_terms,
            contour_weight=params["contour_extra_weight"],
            smooth=params["eps"],
        )
        return _term(terms, {"wbce": "cross_entropy", "wdice": "dice"}, name)
    contours = archive[f"inputs/{case}/contour_per_class"]
    one_channel = archive[f"inputs/{case}/logits"].shape[-1] == 1
    terms = functools.partial(
        losses.separable_contour_terms,
        contours=jnp.asarray(contours[..., 1:] if one_channel else contours),
        contour_weight=params["contour_weight"],
        smooth=params["smooth"],
    )
    return _term(terms, {"ce": "cross_entropy", "separable_dice": "dice"}, name)


def _term(terms, names: Mapping[str, str], name: str) -> Loss | None:
    """The term a variant is called after, or the sum of all."""
    for ending, term in names.items():
        if name.endswith(f"_{ending}"):
            return lambda z, g: terms(z, g)[term]
    return lambda z, g: sum(terms(z, g).values())


def _boundary(archive, case, name, params) -> Loss | None:
    if name != "kervadec_as_trained":
        return losses.boundary_loss
    distances = archive[f"{case}/{name}/signed_distance_int"][..., 1:]
    return functools.partial(losses.boundary_loss, distances=jnp.asarray(distances))


def _hausdorff(archive, case, name, params) -> Loss | None:
    loss = functools.partial(losses.hausdorff_loss, alpha=params["alpha"])
    if name.startswith("monai_log"):
        return lambda z, g: jnp.log1p(loss(z, g))
    return loss if name.startswith("monai") else None


def _imsahlo(archive, case, name, params) -> Loss:
    return functools.partial(
        losses.imsahlo_loss,
        weights=tuple(params[k] for k in ("tversky", "boundary", "focal", "cldice")),
        contour_weight=params["contour_extra_weight"],
        num_iters=params["skeleton_iterations"],
    )


ANSWERS = {
    "contour_weighted": _each_variant(_contour_weighted, atol=RATIO_FLOOR),
    "boundary": _each_variant(_boundary, **SHORT),
    "hausdorff_dt": _each_variant(_hausdorff, **SHORT),
    "imsahlo_hybrid": _each_variant(_imsahlo, ties=("saturated",), atol=RATIO_FLOOR),
}
