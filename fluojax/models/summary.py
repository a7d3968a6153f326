"""What a network costs: parameters and operations by layer, nothing computed.

Two operations count for every multiply-add of a convolution or matrix product of
the evaluation forward pass of one image; norms, activations, pooling and
interpolation are left out, as is usual in published tables. A convolution counts
its whole kernel at every output pixel, also where it reads padding.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from fluojax.models import convolution

Path = tuple[str, ...]


class Row(NamedTuple):
    """A layer: its path, the shape of its output for one image, its cost."""

    path: Path
    shape: tuple[int, ...]
    parameters: int
    flops: int


def flops(model: nn.Module, sizes: Sequence[int], channels: int = 1) -> int:
    """Operations of the forward pass of one image (1e9 of them are a GFLOP).

    Args:
      model: a network as `create_model` makes it.
      sizes: rows and columns of the image, or depth, rows and columns.
      channels: of the image.

    Raises:
      ValueError: the model does not take images of that size or rank.
    """
    jaxpr = _trace(model, sizes, channels)[0]
    return sum(count for _, count in _products(jaxpr, ()))


def layer_table(
    model: nn.Module, sizes: Sequence[int], channels: int = 1, *, depth: int = 1
) -> list[Row]:
    """The layers of a network in the order of their calls, then the whole.

    Args:
      model: a network as `create_model` makes it.
      sizes: rows and columns of the image, or depth, rows and columns.
      channels: of the image.
      depth: how many levels of modules within modules have a row of their own;
        1: the stages. A row includes everything below it.

    Returns:
      Rows whose shape is that of the (first) output without the batch; the last
      one has the empty path and counts all. Modules without parameters and
      products, such as dropout, have none.

    Raises:
      ValueError: the model does not take images of that size or rank.
    """
    jaxpr, variables, shapes = _trace(model, sizes, channels)
    # The outermost scope is the network itself.
    products = [(scope[1:], count) for scope, count in _products(jaxpr, ())]
    parameters = flatten_dict(variables["params"])
    whole = shapes.pop(())
    paths = [path for path in shapes if len(path) <= depth]
    rows = []
    for path, shape in [*((path, shapes[path]) for path in paths), ((), whole)]:
        size = len(path)
        owned = [leaf for name, leaf in parameters.items() if name[:size] == path]
        done = [count for name, count in products if name[:size] == path]
        row = Row(path, shape, sum(math.prod(p.shape) for p in owned), sum(done))
        if row.parameters or row.flops or not path:
            rows.append(row)
    return rows


def summarize(
    model: nn.Module, sizes: Sequence[int], channels: int = 1, *, depth: int = 1
) -> str:
    """`layer_table` as text: path, output, parameters and GFLOPs of every layer."""
    lines = [("layer", "output", "parameters", "GFLOPs")]
    for path, shape, parameters, count in layer_table(
        model, sizes, channels, depth=depth
    ):
        name = "/".join(path) or "total"
        output = " x ".join(map(str, shape))
        lines.append((name, output, f"{parameters:,}", f"{count / 1e9:.2f}"))
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{name:<{wide[0]}}  {output:<{wide[1]}}  {count:>{wide[2]}}  {cost:>{wide[3]}}"
        for name, output, count, cost in lines
    )


def _trace(
    model: nn.Module, sizes: Sequence[int], channels: int
) -> tuple[Jaxpr, Any, dict[Path, tuple[int, ...]]]:
    """The program for one image, its variables, and the outputs of its modules."""
    x = jax.ShapeDtypeStruct((1, *sizes, channels), jnp.float32)
    key = {"params": jax.random.key(0)}
    variables = jax.eval_shape(lambda x: model.init(key, x, train=False), x)
    shapes: dict[Path, tuple[int, ...]] = {}

    def remember(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        path = tuple(context.module.path)
        shapes.setdefault(path, ())  # a module stands before what it calls
        outputs = call(*args, **kwargs)
        shapes[path] = jax.tree.leaves(outputs)[0].shape[1:]
        return outputs

    with nn.intercept_methods(remember):
        apply = functools.partial(model.apply, train=False)
        program = jax.make_jaxpr(apply)(variables, x)
    return program.jaxpr, variables, shapes


def _products(jaxpr: Jaxpr, scope: Path) -> Iterator[tuple[Path, int]]:
    """The scope and the operations of every convolution and matrix product.

    The body of a scan counts as often as it runs, that of a while loop once; of
    the branches of a condition counts the dearest.
    """
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        names = str(equation.source_info.name_stack).split("/")
        # Methods other than __call__ have scopes too: "Network.method".
        path = scope + tuple(n for n in names if n and "." not in n)
        if name == "conv_general_dilated":
            yield path, _convolution(equation)
        elif name == "dot_general":
            yield path, _matrix_product(equation)
        elif equation.params.get("name") == convolution.sum_of_shifts.__name__:
            kernel, result = equation.invars[1].aval, equation.outvars[0].aval
            yield path, convolution.shift_operations(kernel, result)
        elif name == "cond":
            branches = [
                list(_products(branch.jaxpr, path))
                for branch in equation.params["branches"]
            ]
            yield from max(branches, key=lambda found: sum(n for _, n in found))
        else:
            times = equation.params["length"] if name == "scan" else 1
            for value in equation.params.values():
                if isinstance(value, ClosedJaxpr):
                    value = value.jaxpr
                if isinstance(value, Jaxpr):
                    for found, count in _products(value, path):
                        yield found, times * count


def _convolution(equation: JaxprEqn) -> int:
    kernel = equation.invars[1].aval
    numbers = equation.params["dimension_numbers"]
    taps = kernel.size // kernel.shape[numbers.rhs_spec[0]]
    # The zeros between the pixels of a transposed convolution are not multiplied.
    spread = math.prod(equation.params["lhs_dilation"])
    return 2 * equation.outvars[0].aval.size * taps // spread


def _matrix_product(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval
    terms = math.prod(left.shape[axis] for axis in contracted)
    return 2 * equation.outvars[0].aval.size * terms
