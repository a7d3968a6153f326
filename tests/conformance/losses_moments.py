"""Answers of the moment losses, and of the local moments they are made of."""

import functools
import json
from collections.abc import Iterator

import jax
import numpy as np
from conformance.comparing import Answer, Archive, assert_close, variant

from fluojax import ops
from fluojax.losses import moments as losses


def _spatial_moments(archive: Archive) -> Iterator[Answer]:
    for key in archive:
        if not key.endswith("/meta"):
            continue
        name = key.removesuffix("/meta")
        params = json.loads(str(archive[key]))["params"]
        if "/fields_" in name:
            yield from _fields(archive, name, params)
        elif (loss := _loss(archive, name, params)) is not None:
            # Jitted: one compilation instead of one per operation and shape.
            yield from variant(name, archive, jax.jit(loss))


def _loss(archive: Archive, name: str, params):
    case, kind = name.split("/")
    if kind.startswith("global_moments"):
        return functools.partial(losses.global_moment_loss, order=params["order"])
    if kind.startswith("residual_moment"):
        return functools.partial(losses.residual_moment_loss, order=params["order"])
    if kind.startswith("per_instance"):
        return functools.partial(
            losses.instance_moment_loss,
            instances=archive[f"inputs/{case}/instances"],
            order_weights=tuple(params["order_weights"]),
            margin=params["margin_px"],
        )
    names = ("scales", "order", "order_weights", "basis", "normalization", "truncate")
    if not all(key in params for key in names):
        return None
    options = {key: params[key] for key in names}
    return functools.partial(losses.local_moment_loss, **options)


def _fields(archive: Archive, name: str, params) -> Iterator[Answer]:
    options = {"basis": params["basis"], "truncate": params["truncate"]}
    taps = ops.moment_taps(params["scale"], 2, **options)
    parts = {"u": taps.positions, "w": taps.weights, "psi": taps.polynomials}
    for part, values in parts.items():
        record = f"{name}/taps_{part}"
        yield record, functools.partial(_same, values, archive[record])
    logits = archive[f"inputs/{name.split('/')[0]}/logits"][..., 0]
    moments = functools.partial(ops.local_moments, scale=params["scale"], **options)
    indices = ops.moment_indices(logits.ndim - 1, 2)
    for number, index in enumerate(indices):
        record = f"{name}/moment_{''.join(map(str, index))}"

        def check(number=number, record=record) -> None:
            found = jax.vmap(moments)(jax.nn.sigmoid(logits))[:, number]
            expected = archive[record]
            found = np.asarray(found).reshape(expected.shape)
            _same(found, expected)

        yield record, check


def _same(found, expected) -> None:
    # Odd moments cross 0: what is compared is the field.
    assert_close(np.asarray(found), expected, atol=1e-12)


ANSWERS = {"spatial_moments": _spatial_moments}
