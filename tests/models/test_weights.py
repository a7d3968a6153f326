import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from fluojax import models


@pytest.fixture(scope="module")
def shapes():
    model = models.create_model("unet", features=(4, 8))
    x = jnp.zeros((1, 4, 4, 1))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))


@pytest.fixture
def flat(shapes):
    leaves = flatten_dict(shapes).items()
    return {
        "/".join(path[1:]): np.full(leaf.shape, i, np.float16)
        for i, (path, leaf) in enumerate(leaves)
    }


def test_every_array_arrives_at_its_path(shapes, flat):
    loaded = models.load_flat(shapes, flat)
    assert jax.tree.structure(loaded) == jax.tree.structure(shapes)
    for path, leaf in flatten_dict(loaded).items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, flat["/".join(path[1:])])
    mean = flat["enc1/norm1/mean"]
    np.testing.assert_array_equal(loaded["batch_stats"]["enc1"]["norm1"]["mean"], mean)


def test_missing_and_unknown_paths_are_named(shapes, flat):
    flat["head/kernels"] = flat.pop("head/kernel")
    text = "1 missing: head/kernel; 1 unknown: head/kernels"
    with pytest.raises(ValueError, match=text):
        models.load_flat(shapes, flat)


def test_other_shapes_are_named_with_both(shapes, flat):
    flat["head/kernel"] = np.zeros((1, 1, 4, 2))
    text = r"head/kernel \(1, 1, 4, 2\) instead of \(1, 1, 4, 1\)"
    with pytest.raises(ValueError, match=text):
        models.load_flat(shapes, flat)
