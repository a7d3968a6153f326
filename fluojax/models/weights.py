"""Variables of a model from a flat mapping of paths to arrays."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import ArrayLike

from fluojax import errors


def abstract_variables(
    model: nn.Module, channels: int, rank: int | None = None
) -> dict[str, Any]:
    """Shapes and dtypes of the variables of a model; computes nothing.

    For images of the lowest rank that the model takes, unless `rank` says 3.
    """
    size = (model.min_size,) * (rank or min(model.ranks))
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), image
    )


def load_flat(
    variables: Mapping[str, Any], mapping: Mapping[str, ArrayLike]
) -> dict[str, Any]:
    """`variables` with every array replaced by that of the same path.

    Paths are those of the tree below its collections, joined by slashes:
    "enc1/conv1/kernel", "enc1/norm1/mean". The last part is unique between the
    collections: `kernel`, `bias`, `scale` are parameters, `mean` and `var`
    running statistics. Nothing is left at its old value.

    Args:
      variables: as `model.init` returns them, or their shapes and dtypes from
        `abstract_variables`.
      mapping: one array for every path, of the same shape, any real dtype.

    Returns:
      The tree of `variables`, arrays in the dtypes found there.

    Raises:
      ValueError: paths are missing or unknown, or shapes differ.
    """
    leaves = flatten_dict(dict(variables))
    paths = {"/".join(key[1:]): key for key in leaves}
    missing = [path for path in paths if path not in mapping]
    unknown = [path for path in mapping if path not in paths]
    if missing or unknown:
        found = [
            f"{len(paths_)} {what}: {errors.some(paths_)}"
            for what, paths_ in (("missing", missing), ("unknown", unknown))
            if paths_
        ]
        raise ValueError(
            f"load_flat: the arrays must be those of the model, got {'; '.join(found)}; "
            "create the model with the options and channels of the stored one"
        )
    wrong = [
        f"{path} {tuple(jnp.shape(mapping[path]))} instead of {leaves[key].shape}"
        for path, key in paths.items()
        if tuple(jnp.shape(mapping[path])) != leaves[key].shape
    ]
    if wrong:
        raise ValueError(
            f"load_flat: shapes must be those of the model, got {errors.some(wrong)}; "
            "create the model with the widths, classes and channels of the stored one"
        )
    return unflatten_dict(
        {
            key: jnp.asarray(mapping[path], leaves[key].dtype)
            for path, key in paths.items()
        }
    )
