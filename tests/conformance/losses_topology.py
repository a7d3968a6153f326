"""Answers of skeletons, contours and the losses that compare skeletons."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from conformance.comparing import (
    Answer,
    Archive,
    Loss,
    assert_close,
    assert_close_scaled,
    variant,
)

from fluojax.losses.topology import cbdice_loss, dice_cldice_loss, soft_cldice_loss
from fluojax.ops import morphology, skeleton, soft_morphology

# Programs take 1 minus a ratio: near a ratio of 1 that is known to some 1e-16.
RATIO_FLOOR = 1e-15
MODES = {"erode": "inner", "dilate": "outer", "ContainBackground": "both"}
SIMPLE = {"Boolean": "boolean", "EulerCharacteristic": "euler"}
SOFT = {
    "erode": soft_morphology.soft_erode,
    "dilate": soft_morphology.soft_dilate,
    "open": soft_morphology.soft_open,
}
TIES = "gradients at ties depend on the framework"


def _variants(archive: Archive) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for key in [key for key in archive if key.endswith("/meta")]:
        case, name = key.split("/")[:2]
        yield case, name, json.loads(str(archive[key]))["params"]


@functools.cache
def _program(function, **options):
    """`function` of one image for `[B, *S, C]`, each class by itself."""
    function = functools.partial(function, **options)
    return jax.jit(jax.vmap(jax.vmap(function, -1, -1)))


def _soft_skeletons(archive: Archive) -> Iterator[Answer]:
    for case, name, params in _variants(archive):
        probs = jax.nn.sigmoid(jnp.asarray(archive[f"inputs/{case}/logits"]))
        if name.startswith("official_iter"):
            thin = _program(
                soft_morphology.soft_skeleton, num_iters=params["iterations"]
            )
            labels = archive[f"inputs/{case}/labels"]
            yield _value(archive, f"{case}/{name}/skeleton_of_prob", thin, probs)
            yield _value(archive, f"{case}/{name}/skeleton_of_labels", thin, labels)
            yield _skeleton_grad(archive, case, name, thin)
        elif name == "official_erode_dilate_open_of_prob":
            for key, function in SOFT.items():
                record = f"{case}/{name}/{key}"
                yield _value(archive, record, _program(function), probs)


def _value(archive: Archive, record: str, function, images) -> Answer:
    # Equal to rounding, which is absolute in differences of numbers up to 1.
    return record, lambda: assert_close(
        np.asarray(function(images)), archive[record], atol=1e-15
    )


def _skeleton_grad(archive: Archive, case: str, name: str, thin) -> Answer:
    record = f"{case}/{name}/grad_of_weighted_sum"
    logits = jnp.asarray(archive[f"inputs/{case}/logits"])
    if case == "saturated":
        return record, TIES

    def check() -> None:
        _, pull = jax.vjp(lambda z: thin(jax.nn.sigmoid(z)), logits)
        weights = jnp.asarray(archive[f"{case}/{name}/probe_weights"])
        assert_close_scaled(np.asarray(pull(weights)[0]), archive[record])

    return record, check


def _topological_skeletons(archive: Archive) -> Iterator[Answer]:
    for case, name, params in _variants(archive):
        thin = _program(
            skeleton.topological_skeleton,
            num_iters=params["iterations"],
            method=SIMPLE[params["simple_point_detection"]],
        )
        record = f"{case}/{name}/skeleton_of_labels"
        labels = archive[f"inputs/{case}/labels"]
        yield record, functools.partial(_assert_same, archive, record, thin, labels)


def _assert_same(archive: Archive, record: str, function, images) -> None:
    np.testing.assert_array_equal(function(images), archive[record])


def _contour_maps(archive: Archive) -> Iterator[Answer]:
    for case, name, params in _variants(archive):
        labels = archive[f"inputs/{case}/labels"]
        if labels.shape[-1] == 1:
            labels = np.concatenate([1.0 - labels, labels], -1)
        function = morphology.contour_map if labels.ndim == 4 else _cut_contour_map
        mode = MODES[params["mode"]]
        contour = _program(function, width=params["iterations"], mode=mode)
        record = f"{case}/{name}/contour"
        yield record, functools.partial(_assert_same, archive, record, contour, labels)


def _cut_contour_map(mask: jax.Array, **options) -> jax.Array:
    """What the program does in 3-D: the outside is background."""
    inside = (slice(1, -1),) * mask.ndim
    return morphology.contour_map(jnp.pad(mask, 1), **options)[inside]


def _cldice(archive: Archive) -> Iterator[Answer]:
    for case, name, params in _variants(archive):
        options = {k: params[k] for k in ("smooth", "alpha") if k in params}
        options["num_iters"] = params["iterations"]
        function = dice_cldice_loss if "alpha" in params else soft_cldice_loss
        if name.startswith("official"):
            # Full labels: the slope of clDice is 0, the stored one is noise.
            flat = case == "all_fg_gt" and name == "official"
            yield from variant(
                f"{case}/{name}",
                archive,
                _compiled(function, **options),
                atol=RATIO_FLOOR,
                with_grad=case != "saturated" and not flat,
            )


def _cbdice(archive: Archive) -> Iterator[Answer]:
    for case, name, params in _variants(archive):
        if name.startswith("cbdice_iter"):
            options = {"num_iters": params["iterations"], "smooth": params["smooth"]}
            loss = _compiled(_minus_harmonic_mean, **options)
            yield from variant(f"{case}/{name}", archive, loss)


@functools.cache
def _compiled(function, **options) -> Loss:
    """One program per shape and set of parameters, whatever the case."""
    return jax.jit(functools.partial(function, **options))


def _minus_harmonic_mean(logits, labels, **options):
    """What the program of cbDice returns."""
    return cbdice_loss(logits, labels, **options) - 1.0


ANSWERS = {
    "soft_skeleton": _soft_skeletons,
    "topological_skeleton": _topological_skeletons,
    "contour_maps": _contour_maps,
    "cldice": _cldice,
    "cbdice": _cbdice,
}
