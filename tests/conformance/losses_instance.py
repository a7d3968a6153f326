"""Answers of the losses of single instances, and of the terms of ICI."""

import functools
import json
from collections.abc import Iterator

import jax
import numpy as np
from conformance.comparing import (
    POOLED,
    Answer,
    Archive,
    assert_close,
    assert_close_scaled,
    evaluate,
    variant,
)

from fluojax import losses as plain
from fluojax.losses import ici
from fluojax.losses import instance as losses

# 1 minus a ratio, as a program computes it.
RATIO_FLOOR = 1e-15


def _params(archive: Archive) -> Iterator[tuple[str, dict]]:
    for key in archive:
        if key.endswith("/meta"):
            yield key.removesuffix("/meta"), json.loads(str(archive[key]))["params"]


def _instances(archive: Archive, name: str) -> np.ndarray:
    return archive[f"inputs/{name.split('/')[0]}/instances"]


def _jitted(function, instances, **options):
    """One compilation; maps are arguments, as XLA would fold constant ones."""
    function = functools.partial(function, **options)
    call = jax.jit(lambda z, y, maps: function(z, y, instances=maps))
    return lambda logits, labels: call(logits, labels, instances)


def _blob(archive: Archive) -> Iterator[Answer]:
    for name, params in _params(archive):
        # Programs mask probabilities; what they do to logits is excused.
        if params["criterion"] != "dice_prob" or not params.get("masked", True):
            continue
        weights = {k: params[k] for k in ("main_weight", "blob_weight") if k in params}
        weights = weights or {"main_weight": 0.0, "blob_weight": 1.0}
        loss = _jitted(losses.blob_loss, _instances(archive, name), **weights)
        yield from variant(name, archive, loss, atol=RATIO_FLOOR)


def _cc_dice(archive: Archive) -> Iterator[Answer]:
    for name, params in _params(archive):
        maps = _instances(archive, name)
        loss = _jitted(
            losses.cc_dice_loss, maps, smooth=params["smooth"], ce_weight=0.0
        )
        yield from _without_empty(name, archive, loss, maps, params)


def _without_empty(name, archive, loss, maps, params) -> Iterator[Answer]:
    """The source leaves images without an instance at 0; ours is the plain loss."""
    case = name.split("/")[0]
    logits, labels = (archive[f"inputs/{case}/{key}"] for key in ("logits", "labels"))
    empty = ~np.any(maps != 0, axis=tuple(range(1, maps.ndim)))
    if not empty.any():
        yield from variant(name, archive, loss, atol=RATIO_FLOOR)
        return

    @functools.cache
    def ours():
        whole = functools.partial(plain.dice_loss, smooth=params["smooth"])
        value, grad = evaluate(loss, logits, labels)
        other, other_grad = evaluate(whole, logits, labels)
        np.testing.assert_allclose(value[empty], other[empty], rtol=1e-9)
        np.testing.assert_allclose(
            grad[empty], other_grad[empty], rtol=1e-7, atol=1e-15
        )
        outside = empty.reshape(-1, *[1] * (grad.ndim - 1))
        return np.where(empty, 0.0, value), np.where(outside, 0.0, grad)

    count = (~empty).sum()
    yield f"{name}/value", lambda: assert_close(ours()[0], archive[f"{name}/value"])
    yield (
        f"{name}/grad",
        lambda: assert_close_scaled(ours()[1], archive[f"{name}/grad"]),
    )
    yield (
        f"{name}/batch_value",
        lambda: assert_close(ours()[0].sum() / count, archive[f"{name}/batch_value"]),
    )
    yield (
        f"{name}/batch_grad",
        lambda: assert_close_scaled(ours()[1] / count, archive[f"{name}/batch_grad"]),
    )


def _ici(archive: Archive) -> Iterator[Answer]:
    for name, params in _params(archive):
        if params["activation"] != "none":
            continue
        function = ici.ici_terms
        if f"{name}/instance_output/value" in archive:
            function = ici.dual_ici_terms
        given = name.endswith("given_instances")
        terms = _jitted(
            function,
            _instances(archive, name) if given else None,
            center_offset=params["centroid_offset"],
            fp="detached",
            others_tp=not params["instance_wise_loss_no_tp"],
            rates=params["rate_instead_number"],
            max_instances=64,
        )
        yield from _terms(archive, name, terms)


def _terms(archive: Archive, name: str, terms) -> Iterator[Answer]:
    case = name.split("/")[0]
    logits, labels = (archive[f"inputs/{case}/{key}"] for key in ("logits", "labels"))

    @functools.cache
    def ours() -> tuple[dict, dict]:
        values, pull = jax.vjp(lambda z: terms(z, labels), logits)
        zeros = jax.tree.map(np.zeros_like, values)
        grads = {
            key: pull(zeros | {key: np.ones_like(values[key])})[0] for key in values
        }
        return jax.tree.map(np.asarray, (values, grads))

    for record in archive:
        if not record.startswith(f"{name}/") or record.endswith("/meta"):
            continue
        term, kind = record.split("/")[2:]
        stored = archive[record]
        if kind == "batch_value":
            value = archive[f"{name}/{term}/value"]
            if not np.isclose(stored, value.mean(), 1e-9, 0.0):
                yield record, POOLED
                continue
        yield record, functools.partial(_same_term, ours, term, kind, stored)


def _same_term(ours, term: str, kind: str, stored: np.ndarray) -> None:
    value, grad = (part[term] for part in ours())
    if kind == "grad":
        assert_close_scaled(grad, stored)
    elif kind == "grad_is_zero":
        assert not grad.any()
    else:
        value = value.mean() if kind == "batch_value" else value
        assert_close(value, stored, atol=RATIO_FLOOR)


ANSWERS = {"blob": _blob, "cc_dice": _cc_dice, "ici": _ici, "dici": _ici}
