"""Probabilities of whole images and of tiles through a real model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.inference import prediction, scratch
from fluojax.inference.postprocess import instances_from_probs
from fluojax.models import create_model


@pytest.fixture(scope="module")
def network():
    model = create_model("unet", features=(4, 8), axis_name=None)
    key = jax.random.key(0, impl="rbg")
    variables = model.init({"params": key}, jnp.zeros((1, 16, 16, 1)))
    return prediction.create_network(model, variables, "percentile", 32)


@pytest.mark.parametrize("shape", [(64, 64), (61, 90), (33, 120), (48, 20), (17, 71)])
def test_tiles_equal_the_whole_image(network, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (*shape, 1)).astype(np.uint16)
    whole = prediction.probabilities(network, image, tile=None)
    tiles = prediction.probabilities(network, image, tile=16)
    assert whole.shape == shape
    assert whole.dtype == np.float32
    assert whole.min() >= 0 and whole.max() <= 1
    np.testing.assert_allclose(tiles, whole, atol=1e-5)
    threshold = float(np.quantile(whole, 0.7))
    labels = [instances_from_probs(p, threshold=threshold) for p in (whole, tiles)]
    assert labels[0].max() > 0
    np.testing.assert_array_equal(*labels)


def test_tiles_are_as_large_as_the_memory_allows(network):
    halo, divisor = network.halo, network.divisor
    tell = network.memory((256, 256, 1)) / 256**2
    assert tell > 4  # bytes per pixel, at least the result
    assert network.memory.cache_info().misses == 1  # the compiler is asked once
    assert prediction.choose_tile(network, (500, 500, 1), memory=1) is None  # small
    assert prediction.choose_tile(network, (2000, 1500, 1), int(3.1e6 * tell)) is None
    tile = prediction.choose_tile(network, (2000, 1500, 1), int(400**2 * tell))
    assert tile % divisor == 0
    assert 400 - divisor - 1 <= tile + 2 * halo <= 400
    assert network.memory.cache_info().misses == 1
    blended = dataclasses.replace(network, halo=None)
    assert prediction.choose_tile(blended, (2000, 1500, 1), 1000) == network.crop


@pytest.mark.parametrize("tta", ["off", "5", "8"])
@pytest.mark.parametrize("halo", ["of the model", None])
def test_tiles_from_and_to_files_equal_those_in_memory(network, tmp_path, tta, halo):
    if halo is None:
        network = dataclasses.replace(network, halo=None)
    values = np.random.default_rng(0).integers(0, 99, (50, 37, 1)).astype(np.uint8)
    image = scratch.mapped(tmp_path, values.shape, np.uint8)
    image[:] = values
    in_file = prediction.probabilities(
        network, image, tile=16, tta=tta,
        allocate=functools.partial(scratch.mapped, tmp_path),
    )  # fmt: skip
    in_memory = prediction.probabilities(network, values, tile=16, tta=tta)
    np.testing.assert_array_equal(in_file, in_memory)
    assert not any(tmp_path.iterdir())
    if halo is not None:
        # Views of the whole image, by the other path.
        whole = prediction.probabilities(network, values, tile=None, tta=tta)
        np.testing.assert_allclose(in_memory, whole, atol=1e-5)


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
