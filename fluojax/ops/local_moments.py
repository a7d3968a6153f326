"""Moments of an image in a Gaussian window around every pixel.

Around pixel x of one image f `[*S]`, rank 2 or 3, with f = 0 outside,

    M_a(x) = Σ_y w(y - x) ψ_a((y - x) / scale) f(y)

for multi-indices a = (a₁, ..., a_rank) of total order |a| = Σ aᵢ. Window w and
polynomials ψ are products over the axes, so that each field takes one pass per
axis. Scales are in pixels. Arithmetic is float32, float64 for float64 images.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fluojax import checks
from fluojax.ops.correlate import correlate_axis


class MomentTaps(NamedTuple):
    """One axis of a window, T = 2 R + 1 taps, R = max(1, ceil(truncate scale)).

    Attributes:
      positions: `[T]` u = j / scale for j = -R..R.
      weights: `[T]` proportional to exp(-u² / 2), sum 1.
      polynomials: `[order + 1, T]` ψ_0, ..., ψ_order at the positions.
    """

    positions: np.ndarray
    weights: np.ndarray
    polynomials: np.ndarray


def moment_taps(
    scale: float, order: int = 2, *, basis: str = "hermite", truncate: float = 3.0
) -> MomentTaps:
    """Window and polynomials along one axis, in NumPy float64.

    Args:
      scale: standard deviation of the Gaussian in pixels, above 0.
      order: highest polynomial.
      basis: "hermite" for polynomials orthonormal under the weights (ψ_1 =
        u / √m₂, ψ_2 = (u² - m₂) / √(m₄ - m₂²) with m_k = Σ w u^k), "raw" for u^k.
      truncate: half the width of the window in scales.

    Raises:
      ValueError: scale, truncate or order out of range, more polynomials than
        taps, or an unknown basis.
    """
    if not (scale > 0 and truncate > 0):
        raise ValueError(
            "moment_taps: scale and truncate must be positive, "
            f"got {scale} and {truncate}"
        )
    radius = max(1, int(np.ceil(truncate * scale)))
    if not 0 <= order <= 2 * radius:
        raise ValueError(
            f"moment_taps: order must be in 0..{2 * radius} for a window of "
            f"{2 * radius + 1} taps, got {order}"
        )
    if basis not in ("hermite", "raw"):
        raise ValueError(
            f'moment_taps: basis must be "hermite" or "raw", got {basis!r}'
        )
    positions = np.arange(-radius, radius + 1) / scale
    weights = np.exp(-0.5 * positions**2)
    weights /= weights.sum()
    if basis == "raw":
        polynomials = positions ** np.arange(order + 1)[:, None]
    else:
        polynomials = _orthonormal(positions, weights, order)
    return MomentTaps(positions, weights, polynomials)


def _orthonormal(positions, weights, order) -> np.ndarray:
    """By the three-term recurrence; 0 where the window is a single pixel."""
    found = [np.ones_like(positions)]
    for _ in range(order):
        new = positions * found[-1]
        if len(found) > 1:
            new = new - np.sum(weights * new * found[-2]) * found[-2]
        norm = np.sqrt(np.sum(weights * new**2))
        found.append(new / norm if norm > 0 else np.zeros_like(new))
    return np.stack(found)


def moment_indices(rank: int, order: int) -> tuple[tuple[int, ...], ...]:
    """The multi-indices of total order up to `order`, as `local_moments` sorts them.

    By total order, then the first axis first: (0, 0), (1, 0), (0, 1), (2, 0),
    (1, 1), (0, 2).
    """
    every = itertools.product(range(order + 1), repeat=rank)
    fit = [index for index in every if sum(index) <= order]
    return tuple(sorted(fit, key=lambda a: (sum(a), tuple(-i for i in a))))


def local_moments(
    x: ArrayLike,
    scale: float,
    order: int = 2,
    basis: str = "hermite",
    truncate: float = 3.0,
) -> jax.Array:
    """The fields M_a of one image for all multi-indices up to an order.

    Args:
      x: `[*S]`, rank 2 or 3.
      scale: standard deviation of the window in pixels, above 0.
      order: highest total order.
      basis: "hermite" or "raw", as in `moment_taps`.
      truncate: half the width of the window in scales.

    Returns:
      `[F, *S]`, the F fields in the order of `moment_indices(rank, order)`: 6
      for a picture and 10 for a volume at order 2.

    Raises:
      ValueError: x is not of rank 2 or 3; else as `moment_taps`.
    """
    x = checks.image("local_moments", x, "x")
    x = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    taps = moment_taps(scale, order, basis=basis, truncate=truncate)
    kernels = taps.weights * taps.polynomials
    fields = {(): x}
    for axis in range(x.ndim):
        longer = {}
        for index, field in fields.items():
            few = kernels[: order + 1 - sum(index)]
            for power, new in enumerate(correlate_axis(field, few, axis)):
                longer[(*index, power)] = new
        fields = longer
    return jnp.stack([fields[index] for index in moment_indices(x.ndim, order)])


def local_moment_energy(
    x: ArrayLike,
    scales: Sequence[float],
    *,
    order_weights: Sequence[float] = (1.0, 1.0, 1.0),
    basis: str = "hermite",
    truncate: float = 3.0,
) -> jax.Array:
    """Weighted squares of all local moments of one image, summed over its pixels.

        mean over scales of Σ_x Σ_a λ_|a| M_a(x)²

    for |a| below the number of weights λ. Equal to the sum over the fields of
    `local_moments`, but none of them is computed: the sum is a quadratic form
    of x whose matrix consists of convolutions, so that one Fourier transform
    serves all scales and orders, with a correction for windows that reach over
    the border. The gradient takes no further work.

    Args:
      x: `[*S]`, rank 2 or 3.
      scales: standard deviations of the windows in pixels, above 0.
      order_weights: λ_0, λ_1, ..., one per total order, at least 0.
      basis: "hermite" or "raw", as in `moment_taps`.
      truncate: half the width of the windows in scales.

    Returns:
      A scalar, at least 0.

    Raises:
      ValueError: x is not of rank 2 or 3, no scale or weight is given; else as
        `moment_taps`.
    """
    x = checks.image("local_moment_energy", x, "x")
    if len(scales) == 0 or len(order_weights) == 0:
        raise ValueError(
            "local_moment_energy: scales and order_weights must not be empty, "
            f"got {tuple(scales)} and {tuple(order_weights)}"
        )
    x = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    numbers = (tuple(map(float, values)) for values in (scales, order_weights))
    return _energy(x, _Form(*numbers, basis, truncate))


class _Form(NamedTuple):
    """What makes the quadratic form, apart from the size of the image."""

    scales: tuple[float, ...]
    order_weights: tuple[float, ...]
    basis: str
    truncate: float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _energy(x, form):
    return _energy_forward(x, form)[0]


def _energy_forward(x, form):
    image = _form_times(x, form)
    # Rounding can take the sum of squares of something tiny below 0.
    return jnp.maximum(_dot(x, image), 0.0), image


def _energy_backward(form, image, slope):
    return (2.0 * slope * image,)


_energy.defvjp(_energy_forward, _energy_backward)


def _dot(x, y):
    return jnp.vdot(x, y, precision="highest")


def _form_times(x: jax.Array, form: _Form) -> jax.Array:
    """A x for the matrix A of the quadratic form xᵀ A x.

    A = Σ over scales and a of λ_|a| ⊗ᵢ R_{aᵢ}, where R_k = K_kᵀ K_k for the
    matrix K_k of a filter along one axis. Along a long axis R_k is a circular
    convolution less a correction at both ends; expanding the products gives
    one term for every choice of the two along every axis.
    """
    axes = [_axis(length, form) for length in x.shape]
    total = jnp.zeros_like(x)
    for choice in itertools.product(*(axis.parts for axis in axes)):
        total = _add_term(total, x, choice, form)
    return total


class _Part(NamedTuple):
    """R_k along one axis, or one of two summands, for m = scale x order.

    Attributes:
      ends: pixels at both ends that `tables` acts on; None for all.
      size: period of a circular convolution; 0 for a matrix.
      tables: `[scales, order + 1, *]` spectra or matrices.
    """

    ends: int | None
    size: int
    tables: np.ndarray


class _Axis(NamedTuple):
    parts: tuple[_Part, ...]


@functools.lru_cache(maxsize=64)
def _axis(length: int, form: _Form) -> _Axis:
    order = len(form.order_weights) - 1
    kernels = []
    for scale in form.scales:
        taps = moment_taps(scale, order, basis=form.basis, truncate=form.truncate)
        kernels.append(taps.weights * taps.polynomials)
    reach = max(k.shape[1] // 2 for k in kernels)
    if length <= 4 * reach:
        every = np.arange(length)
        return _Axis((_Part(None, 0, _gram(kernels, length, every)),))
    # A period longer by `reach` makes circular and true products differ
    # between pixels of the `reach` first and last only.
    size = _fast_size(length + reach)
    ends = np.r_[0:reach, length - reach : length]
    round_ = np.stack([_circular(k, size) for k in kernels])
    apart = (ends[:, None] - ends) % size
    correction = _gram(kernels, length, ends) - round_[:, :, apart]
    spectra = np.fft.fft(round_).real
    return _Axis((_Part(None, size, spectra), _Part(reach, 0, correction)))


def _gram(kernels, length: int, pixels: np.ndarray) -> np.ndarray:
    """R_k between the given pixels, `[scales, order + 1, p, p]`."""
    found = []
    for kernel in kernels:
        radius = kernel.shape[1] // 2
        tap = pixels - np.arange(length)[:, None] + radius
        inside = (tap >= 0) & (tap < kernel.shape[1])
        filters = np.where(inside, kernel[:, np.where(inside, tap, 0)], 0.0)
        found.append(np.einsum("kxi,kxj->kij", filters, filters))
    return np.stack(found)


def _circular(kernel: np.ndarray, size: int) -> np.ndarray:
    """Autocorrelations of the taps with period `size`, `[order + 1, size]`."""
    found = np.zeros((len(kernel), size))
    reach = kernel.shape[1] - 1
    for row, taps in zip(found, kernel, strict=True):
        np.add.at(
            row, np.arange(-reach, reach + 1) % size, np.correlate(taps, taps, "full")
        )
    return found


def _fast_size(least: int) -> int:
    """The next even number without prime factors above 5."""
    size = least + least % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2


def _add_term(total, x, choice, form) -> jax.Array:
    """`total` plus the product of one part along every axis with x."""
    shape = x.shape
    for axis, part in enumerate(choice):
        if part.ends is not None:
            x = _ends(x, part.ends, axis)
    # Axes of matrices go first, which is how products like them.
    order = sorted(range(x.ndim), key=lambda axis: choice[axis].size > 0)
    tables = [part.tables for part in choice if not part.size]
    spectra = [part.tables for part in choice if part.size]
    x = jnp.transpose(x, order)
    waves = tuple(range(len(tables), x.ndim))
    sizes = tuple(part.size for part in choice if part.size)
    spectrum = _spectrum(spectra, form, x.dtype)
    z = jnp.fft.rfftn(x, sizes, waves) if waves else x
    z = _weighted(z, spectrum, tables, form)
    if waves:
        z = jnp.fft.irfftn(z, sizes, waves)
        z = z[tuple(slice(length) for length in x.shape)]
    z = jnp.transpose(z, np.argsort(order))
    for axis, part in enumerate(choice):
        if part.ends is not None:
            z = _between(z, shape[axis], axis)
    return total + z


def _ends(x, count, axis) -> jax.Array:
    """The first and last `count` pixels of an axis."""
    first = jax.lax.slice_in_dim(x, 0, count, axis=axis)
    last = jax.lax.slice_in_dim(x, x.shape[axis] - count, None, axis=axis)
    return jnp.concatenate([first, last], axis)


def _between(ends, length, axis) -> jax.Array:
    """Pixels at the two ends of an axis with zeros between them."""
    shape = list(ends.shape)
    shape[axis] = length - ends.shape[axis]
    first, last = jnp.split(ends, 2, axis)
    return jnp.concatenate([first, jnp.zeros(shape, ends.dtype), last], axis)


def _spectrum(tables, form, dtype) -> jax.Array:
    """`[scales, order + 1, *]`: Σ_b λ_{t+|b|} times the spectra of orders b.

    t, the second axis, is the total order along all other axes. The mean over
    scales is in the weights.
    """
    count = len(form.order_weights)
    start = np.tile(form.order_weights, (len(form.scales), 1)) / len(form.scales)
    found = jnp.asarray(start, dtype)
    for i, table in enumerate(tables):
        if i == len(tables) - 1:  # of the last axis a real transform keeps half
            table = table[..., : table.shape[-1] // 2 + 1]
        table = jnp.asarray(table, dtype)
        found = jnp.stack(
            [
                jnp.einsum("sb...,sbk->s...k", found[:, t:], table[:, : count - t])
                for t in range(count)
            ],
            axis=1,
        )
    return found


def _weighted(z, spectrum, tables, form) -> jax.Array:
    """`z` `[*matrix axes, *wave axes]` times the matrix, summed over scales.

    Tables belong to the matrix axes, the spectrum to the others.
    """
    if not tables:
        factor = jnp.sum(spectrum[:, 0], axis=0)
        return jax.lax.complex(factor * z.real, factor * z.imag)
    waves = jnp.iscomplexobj(z)
    z = jnp.stack([z.real, z.imag], axis=-1) if waves else z[..., None]
    total = jnp.zeros_like(z)
    for index in moment_indices(len(tables), len(form.order_weights) - 1):
        factor = spectrum[:, sum(index)][..., None]
        factor = jnp.expand_dims(factor, tuple(range(1, len(tables) + 1)))
        new = factor * z[None]
        for axis, (table, power) in enumerate(zip(tables, index, strict=True)):
            last = axis == len(tables) - 1
            matrix = jnp.asarray(table[:, power], z.dtype)
            new = jnp.moveaxis(new, axis + 1, 1)
            rule = "sij,sj...->i..." if last else "sij,sj...->si..."
            new = jnp.einsum(rule, matrix, new, precision="highest")
            new = jnp.moveaxis(new, 0, axis) if last else jnp.moveaxis(new, 1, axis + 1)
        total = total + new
    return jax.lax.complex(total[..., 0], total[..., 1]) if waves else total[..., 0]
