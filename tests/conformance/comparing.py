"""Checks of our values and gradients against stored ones, in float64.

The modules that answer for a family share them. A check is a function that
asserts; a reason is a string.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Archive = Mapping[str, np.ndarray]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
Answer = tuple[str, Callable[[], None] | str]

VALUE = 1e-9  # relative
GRAD = 1e-7  # of the largest entry
# Programs take 1 - p from the rounded p: a slope p (1 - p) is known to 1e-16,
# and that of a loss of some hundred pixels to 1e-18.
GRAD_FLOOR = 1e-17
POOLED = "batch pooling is the caller's"


def variant(
    name: str,
    archive: Archive,
    loss: Loss,
    *,
    rtol: float = VALUE,
    atol: float = 0.0,
    with_grad: bool = True,
) -> Iterator[Answer]:
    """Answers of `loss(logits, labels)` to the records of `<case>/<variant>`.

    `with_grad=False` where the gradient is a matter of tie rules.
    """
    case = name.split("/")[0]
    logits, labels = (archive[f"inputs/{case}/{key}"] for key in ("logits", "labels"))
    ours = functools.cache(functools.partial(evaluate, loss, logits, labels))
    close = functools.partial(assert_close, rtol=rtol, atol=atol)
    value = archive.get(f"{name}/value")
    if value is not None:
        yield f"{name}/value", lambda: close(ours()[0], value)
    pooled = archive.get(f"{name}/batch_value")
    if pooled is not None:
        mean = value is not None and np.isclose(pooled, value.mean(), VALUE, 0.0)
        check = (lambda: close(ours()[0].mean(), pooled)) if mean else POOLED
        yield f"{name}/batch_value", check
    grad, pooled_grad = archive.get(f"{name}/grad"), archive.get(f"{name}/batch_grad")
    if not with_grad:
        for key, stored in (("grad", grad), ("batch_grad", pooled_grad)):
            if stored is not None:
                yield f"{name}/{key}", "gradients at ties depend on the framework"
        return
    if grad is not None:
        yield f"{name}/grad", lambda: assert_close_scaled(ours()[1], grad)
    if pooled_grad is not None:
        mean = grad is not None and is_close_scaled(grad / len(grad), pooled_grad)
        check = (
            (lambda: assert_close_scaled(ours()[1] / len(pooled_grad), pooled_grad))
            if mean
            else POOLED
        )
        yield f"{name}/batch_grad", check


def evaluate(loss: Loss, logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Values `[B]` and the gradient of their sum."""
    values, pull = jax.vjp(lambda z: loss(z, jnp.asarray(labels)), jnp.asarray(logits))
    return np.asarray(values), np.asarray(pull(jnp.ones_like(values))[0])


def assert_close(found, expected, rtol: float = VALUE, atol: float = 0.0) -> None:
    assert found.dtype == np.float64, f"got {found.dtype}, not float64"
    assert found.shape == expected.shape, f"{found.shape}, not {expected.shape}"
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def is_close_scaled(found, expected) -> bool:
    limit = GRAD * np.max(np.abs(expected)) + GRAD_FLOOR
    return bool(np.all(np.abs(found - expected) <= limit))


def assert_close_scaled(found, expected) -> None:
    assert found.dtype == np.float64, f"got {found.dtype}, not float64"
    assert found.shape == expected.shape, f"{found.shape}, not {expected.shape}"
    worst = np.max(np.abs(found - expected))
    largest = np.max(np.abs(expected))
    assert is_close_scaled(found, expected), f"off by {worst} of at most {largest}"
