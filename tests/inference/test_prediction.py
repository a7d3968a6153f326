"""Probabilities of whole images and of tiles through a real model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.inference import prediction
from fluojax.models import create_model


@pytest.fixture(scope="module")
def network():
    model = create_model("unet", features=(4, 8), axis_name=None)
    key = jax.random.key(0, impl="rbg")
    variables = model.init({"params": key}, jnp.zeros((1, 16, 16, 1)))
    return prediction.create_network(model, variables, "percentile", 32)


@pytest.mark.parametrize("shape", [(64, 64), (61, 90), (33, 120), (48, 20)])
def test_tiles_equal_the_whole_image(network, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (*shape, 1)).astype(np.uint16)
    whole = prediction.probabilities(network, image, tile=None)
    tiles = prediction.probabilities(network, image, tile=16)
    assert whole.shape == shape
    assert whole.dtype == np.float32
    assert whole.min() >= 0 and whole.max() <= 1
    np.testing.assert_allclose(tiles, whole, atol=1e-5)


def test_large_images_are_cut_without_being_asked(network, monkeypatch):
    monkeypatch.setattr(prediction, "WHOLE_PIXELS", 50 * 50)
    monkeypatch.setattr(prediction, "TILE", 16)
    seen = []
    logits = network.logits
    spy = prediction.Network(
        lambda x: seen.append(x.shape) or logits(x), *list(vars(network).values())[1:]
    )
    image = np.random.default_rng(0).integers(0, 99, (96, 96, 1)).astype(np.uint8)
    prediction.probabilities(spy, image)
    assert max(shape[1] for shape in seen) < 96
    assert len({shape for shape in seen}) == 1


def test_two_classes_give_the_probability_of_the_last():
    network = prediction.Network(
        lambda x: jnp.broadcast_to(jnp.array([0.0, 2.0]), (*x.shape[:-1], 2)),
        "fixed", 1, 0, 1, 32,
    )  # fmt: skip
    probs = prediction.probabilities(network, np.zeros((4, 4, 1), np.uint8))
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-2.0)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5)])
def test_images_below_the_least_size_are_enlarged_and_cut_back(network, shape):
    image = np.random.default_rng(0).integers(0, 99, (*shape, 1)).astype(np.uint8)
    probs = prediction.probabilities(network, image)
    assert probs.shape == shape
    assert np.isfinite(probs).all()
