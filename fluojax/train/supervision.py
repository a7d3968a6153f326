"""The loss of a network that returns several outputs (deep supervision)."""

from collections.abc import Callable, Sequence

import jax

# loss(logits, labels, **maps) -> total, parts
Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


def supervised(
    loss: Loss,
    outputs: jax.Array | Sequence[jax.Array],
    labels: jax.Array,
    **maps: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`loss` of the outputs, each against labels of its size, weighted.

    Args:
      loss: of logits and labels `[B, *S, K]` and maps; a value and its terms.
      outputs: logits, or a list of them, the finest first, sizes
        ceil(S / stride) for strides that are powers of two.
      labels: `[B, *S, K]` at full size; coarser ones are every stride-th pixel.
      **maps: `[B, *S]` or `[B, *S, 1]` at full size, taken likewise.

    Returns:
      The weighted sum of the values, and of each term.

    Source: weights and resized labels as in nnU-Net (Isensee et al., Nature
    Methods 2021): 1 / stride, nothing for the coarsest, sum 1. Outputs that all
    have full size count the same, as in U-Net++.
    """
    if isinstance(outputs, jax.Array):
        return loss(outputs, labels, **maps)
    sizes = labels.shape[1:-1]
    strides = [_strides(sizes, output.shape[1:-1]) for output in outputs]
    weights = output_weights(strides)
    total, parts = 0.0, {}
    for output, stride, weight in zip(outputs, strides, weights, strict=True):
        if weight == 0:
            continue
        every = (slice(None), *(slice(None, None, s) for s in stride))
        smaller = {name: x[every] for name, x in maps.items()}
        value, terms = loss(output, labels[every], **smaller)
        total = total + weight * value
        for name, term in terms.items():
            parts[name] = parts.get(name, 0.0) + weight * term
    return total, parts


def output_weights(strides: Sequence[tuple[int, ...]]) -> list[float]:
    """One weight per output from the strides of its axes, sum 1."""
    longest = [max(stride) for stride in strides]
    coarsest = max(longest)
    weights = [
        0.0 if stride == coarsest and coarsest > min(longest) else 1 / stride
        for stride in longest
    ]
    return [weight / sum(weights) for weight in weights]


def _strides(sizes: tuple[int, ...], found: tuple[int, ...]) -> tuple[int, ...]:
    """The powers of two that take sizes to those found, rounded up."""
    strides = []
    for size, small in zip(sizes, found, strict=True):
        stride = 1
        while -(-size // stride) > small:
            stride *= 2
        strides.append(stride)
    return tuple(strides)
