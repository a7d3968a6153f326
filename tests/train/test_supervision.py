import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.train.supervision import output_weights, supervised


def distance(logits, labels, where):
    value = jnp.sum(jnp.where(where, jnp.abs(logits - labels), 0))
    return value, {"distance": value}


def test_one_output_is_the_loss_itself():
    x = jnp.ones((1, 4, 4, 1))
    total, parts = supervised(distance, 3 * x, x, where=x > 0)
    assert total == parts["distance"] == 32


def test_weights_halve_with_the_size_and_the_coarsest_has_none():
    weights = output_weights([(1, 1), (2, 2), (4, 4), (8, 8)])
    np.testing.assert_allclose(weights, np.array([4, 2, 1, 0]) / 7)


def test_outputs_of_full_size_count_the_same():
    assert output_weights([(1, 1)] * 4) == [0.25] * 4
    assert output_weights([(1, 1)]) == [1.0]


def test_labels_are_taken_at_the_pixels_of_the_output():
    labels = jnp.arange(33.0 * 5).reshape(1, 33, 5, 1)
    where = jnp.ones((1, 33, 5, 1), bool).at[0, 4, 2].set(False)
    outputs = [labels + 1, labels[:, ::2, ::2] + 1, labels[:, ::4, ::4] + 100]
    total, parts = supervised(distance, outputs, labels, where=where)
    # 164 and 50 pixels, less one that does not count; weights 2/3 and 1/3.
    assert float(total) == pytest.approx(2 / 3 * 164 + 1 / 3 * 50)
    assert parts["distance"] == total
