"""The pure step alone and under pmap, on a 16-pixel model."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.config import Term
from fluojax.data.augment import augmentation
from fluojax.models import create_model
from fluojax.train import parallel
from fluojax.train.schedules import create_optimizer, create_schedule
from fluojax.train.state import create_state, variables_of
from fluojax.train.step import (
    create_loss,
    instance_capacity,
    labels_of,
    make_eval_step,
    make_train_step,
)

LOSS = (Term("cross_entropy_loss", 0.5), Term("dice_loss", 1.0, {"smooth": 1.0}))


def a_batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    instances = np.zeros((size, 16, 16), np.int32)
    for i in range(size):
        row, column = rng.integers(1, 9, 2)
        instances[i, row : row + 5, column : column + 6] = 1
    image = 60 + 120 * (instances > 0) + rng.integers(0, 40, instances.shape)
    return {
        "image": image[..., None].astype(np.uint8),
        "scale": np.tile(np.float32([[0.0], [1 / 255]]), (size, 1, 1)),
        "instances": instances,
        "where": np.ones(instances.shape, bool),
        "index": np.arange(size, dtype=np.int32),
        "record": np.arange(size, dtype=np.int32),
    }


def parts(axis_name, *, optimizer="sgd", rate=0.1, augment="default", **model):
    options = {"base_features": 4, **model}
    model = create_model("cresunet", axis_name=axis_name, **options)
    optimizer = create_optimizer(optimizer, create_schedule("constant", rate, 10))
    step = make_train_step(
        model,
        create_loss(LOSS),
        optimizer,
        key=jax.random.key(3),
        scaling_kind="fixed",
        augment=augmentation(augment),
        axis_name=axis_name,
    )
    key = jax.random.key(0, impl="rbg")
    state = jax.jit(
        lambda: create_state(model, optimizer, key, jnp.zeros((1, 16, 16, 1)))
    )()
    return model, step, state


def largest_difference(a, b):
    """Over all leaves, in units of the largest entry of each leaf."""

    def one(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return np.abs(x - y).max() / max(np.abs(y).max(), 1e-3)

    return max(jax.tree.leaves(jax.tree.map(one, a, b)))


def test_four_devices_compute_what_one_computes():
    # Same global batch, draws keyed by the position in it, synchronised norms.
    _, alone, state = parts(None)
    _, shared, _ = parts(parallel.AXIS)
    alone, shared = jax.jit(alone), parallel.train_step(shared)
    # The copy: the sharing run gives its buffers up.
    one, four = state, parallel.replicate(jax.tree.map(np.array, state))
    for number in range(6):
        batch = a_batch(seed=number)
        before_one, before_four = one.params, parallel.fetch(four.params)
        one, metrics_one = alone(one, batch)
        four, metrics_four = shared(four, parallel.shard(batch))
        if number == 0:
            # Plain SGD: the update is the gradient.
            gradients = [
                jax.tree.map(np.subtract, jax.device_get(s.params), before)
                for s, before in ((one, before_one), (four, before_four))
            ]
            flat = [
                np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)])
                for g in gradients
            ]
            bound = 1e-5 * np.abs(flat[0]).max()
            np.testing.assert_allclose(flat[1], flat[0], rtol=0, atol=bound)
            assert abs(metrics_one["loss"] - metrics_four["loss"]) < 1e-5
    for a, b in zip(*map(jax.tree.leaves, (one.params, four.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert largest_difference(one.batch_stats, four.batch_stats) < 1e-4


def test_the_state_keeps_its_structure_and_the_loss_falls():
    _, step, state = parts(None, optimizer="adam", rate=1e-2, augment="none")
    run = jax.jit(chex.assert_max_traces(step, n=1))
    before = jax.eval_shape(lambda: state)
    values = []
    for _ in range(25):
        state, metrics = run(state, a_batch())
        values.append(float(metrics["loss"]))
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(lambda: state), before)
    assert values[-1] < 0.6 * values[0], values
    assert int(state.step) == 25
    assert int(state.bad_step) == -1


def test_terms_are_logged_and_sum_to_the_loss():
    _, step, state = parts(None)
    _, metrics = jax.jit(step)(state, a_batch())
    total = 0.5 * metrics["loss/cross_entropy_loss"] + metrics["loss/dice_loss"]
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-6)


def test_a_step_moves_nothing_between_host_and_device():
    _, step, state = parts(None)
    run = jax.jit(step)
    batch = jax.device_put(a_batch())
    state, _ = run(state, batch)
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(run(state, batch))


@pytest.mark.parametrize("poison", ["image", "gradient"])
def test_the_first_step_that_is_not_finite_is_remembered(poison):
    model, step, state = parts(None, augment="none")
    run = jax.jit(step)
    state, _ = run(state, a_batch())
    batch = a_batch()
    if poison == "image":
        batch["scale"] = np.full_like(batch["scale"], np.nan)
    else:
        state = state.replace(lr_scale=jnp.float32(np.inf))
    state, _ = run(state, batch)
    assert int(state.bad_step) == 2
    state, _ = run(state, a_batch())
    assert int(state.bad_step) == 2


def test_one_poisoned_shard_stops_every_replica():
    _, step, state = parts(parallel.AXIS, augment="none")
    run = parallel.train_step(step)
    batch = a_batch()
    batch["scale"][6] = np.nan
    state, _ = run(parallel.replicate(state), parallel.shard(batch))
    found = [int(shard.data) for shard in state.bad_step.addressable_shards]
    assert found == [1, 1, 1, 1]


def test_bfloat16_keeps_parameters_and_loss_in_float32():
    _, step, state = parts(None, dtype=jnp.bfloat16)
    state, metrics = jax.jit(step)(state, a_batch())
    assert metrics["loss"].dtype == jnp.float32
    chex.assert_tree_all_finite(state.params)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}


def test_the_learning_rate_scale_of_the_state_scales_the_update():
    _, step, state = parts(None, augment="none")
    run = jax.jit(step)
    full, _ = run(state, a_batch())
    half, _ = run(state.replace(lr_scale=jnp.float32(0.5)), a_batch())
    moved = jax.tree.map(lambda a, b: a - b, full.params, state.params)
    moved_half = jax.tree.map(lambda a, b: a - b, half.params, state.params)
    chex.assert_trees_all_close(
        moved_half, jax.tree.map(lambda x: x / 2, moved), atol=1e-6
    )


def test_running_statistics_of_one_step_are_those_of_its_batch():
    # Not 99 % of the initial variance, which would hide every cell.
    model, step, state = parts(None, augment="none")
    state, _ = jax.jit(step)(state, a_batch())
    stats = variables_of(state, model.momentum)["batch_stats"]
    projected = np.asarray(a_batch()["image"], np.float32) / 255
    kernel = parts(None)[2].params["colorspace"]
    values = projected * np.float32(kernel["kernel"]).item()
    first = jax.tree.leaves(stats["enc1"])
    found_mean, found_var = (np.ravel(x)[0] for x in first[:2])
    np.testing.assert_allclose(found_mean, values.mean(), rtol=1e-3)
    np.testing.assert_allclose(found_var, values.var(), rtol=1e-2)


def test_the_eval_step_is_the_same_on_four_devices():
    model, train_step, state = parts(None)
    state, _ = jax.jit(train_step)(state, a_batch())
    step = make_eval_step(model, create_loss(LOSS), scaling_kind="fixed")
    variables = variables_of(state, model.momentum)
    batch = a_batch()
    probs, values = jax.jit(step)(variables, batch)
    shared = parallel.eval_step(step)(
        parallel.replicate(variables), parallel.shard(batch)
    )
    chex.assert_shape(probs, (8, 16, 16))
    np.testing.assert_allclose(np.reshape(shared[0], probs.shape), probs, atol=1e-6)
    np.testing.assert_allclose(np.ravel(shared[1]), values, rtol=1e-5)


def test_labels_are_foreground_or_background_and_foreground():
    instances = jnp.array([[[0, 2], [7, 0]]])
    np.testing.assert_array_equal(labels_of(instances, 1)[0, ..., 0], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(labels_of(instances, 2)[0, ..., 0], [[1, 0], [0, 1]])


def test_every_supervised_output_is_trained_and_the_first_is_scored():
    class TwoHeads(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            fine = nn.Conv(1, (1, 1), name="fine")(x)
            coarse = nn.Conv(1, (1, 1), name="coarse")(x[:, ::2, ::2])
            coarsest = nn.Conv(1, (1, 1), name="coarsest")(x[:, ::4, ::4])
            return [fine, coarse, coarsest]

    model, loss = TwoHeads(), create_loss(LOSS)
    optimizer = create_optimizer("sgd", create_schedule("constant", 0.1, 10))
    options = {"scaling_kind": "fixed"}
    step = make_train_step(
        model, loss, optimizer, key=jax.random.key(3), augment=None, **options
    )
    image = jnp.zeros((1, 16, 16, 1))
    state = create_state(model, optimizer, jax.random.key(0), image)
    new, metrics = jax.jit(step)(state, a_batch())
    moved = {
        name: float(jnp.abs(new.params[name]["kernel"] - old["kernel"]).max())
        for name, old in state.params.items()
    }
    assert moved["fine"] > 0 and moved["coarse"] > 0 and moved["coarsest"] == 0
    assert np.isfinite(metrics["loss"])
    probs, _ = make_eval_step(model, loss, **options)(
        variables_of(state, 0.9), a_batch()
    )
    assert probs.shape == (8, 16, 16)


def test_a_gap_is_left_only_where_cells_touch():
    instances = jnp.array([[[1, 1, 1, 2, 2, 0, 3]]] * 1)
    found = labels_of(instances, 1, touching_gap=1)[0, 0, :, 0]
    np.testing.assert_array_equal(found, [1, 1, 0, 0, 1, 0, 1])
    wider = labels_of(instances, 1, touching_gap=2)[0, 0, :, 0]
    np.testing.assert_array_equal(wider, [1, 0, 0, 0, 0, 0, 0])


def test_an_instance_loss_sees_no_instance_where_labels_say_background():
    def loss(logits, labels, *, instances, where):
        apart = jnp.sum((instances > 0) != (labels[..., 0] > 0)).astype(jnp.float32)
        return jnp.mean(logits**2), {"apart": apart, "cells": jnp.sum(labels)}

    model = create_model("cresunet", base_features=4, axis_name=None)
    optimizer = create_optimizer("sgd", create_schedule("constant", 0.1, 10))
    step = make_train_step(
        model,
        loss,
        optimizer,
        key=jax.random.key(0),
        scaling_kind="fixed",
        augment=None,
        touching_gap=1,
        count_instances=True,
    )
    batch = a_batch(2)
    batch["instances"][:] = 0
    batch["instances"][:, 4:8, 4:8], batch["instances"][0, 8:12, 4:8] = 1, 500
    key = jax.random.key(0, impl="rbg")
    state = create_state(model, optimizer, key, jnp.zeros((1, 16, 16, 1)))
    _, metrics = jax.jit(step)(state, jax.tree.map(jnp.asarray, batch))
    assert metrics["loss/apart"] == 0
    assert metrics["loss/cells"] == 3 * 16 - 2 * 4  # a row of each cell is the gap
    assert metrics["most_instances"] == 2


def test_the_capacity_of_a_sum_is_that_of_its_smallest_term():
    assert instance_capacity(LOSS) is None
    few = Term("ici", options={"max_instances": 9})
    assert instance_capacity((*LOSS, Term("blob"), few)) == 9
    nested = Term("weighted_sum", options={"terms": (("dice", 1.0), ("blob", 1.0))})
    assert instance_capacity((nested,)) == 256
