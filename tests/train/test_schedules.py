"""Learning rates at known steps, optimisers against optax, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fluojax.train.schedules import create_optimizer, create_schedule, momentum_cycle


def rates(name, steps, num_steps=400, peak=1.0):
    schedule = create_schedule(name, peak, num_steps)
    return [float(schedule(step)) for step in steps]


def test_constant_and_plateau_stay_at_the_peak():
    assert rates("constant", (0, 399)) == [1, 1]
    assert rates("plateau", (0, 399)) == [1, 1]


def test_cosine_rises_over_a_twentieth_and_ends_at_a_hundredth():
    low, half, top, end = rates("cosine", (0, 10, 20, 400))
    assert (low, half, top) == (0, 0.5, 1)
    assert end == pytest.approx(0.01)


def test_one_cycle_is_that_of_the_study():
    # Up from peak/25 over a quarter, down to peak/1e5, both as half a cosine.
    start, rising, top, falling, end = rates("one_cycle", (0, 50, 100, 250, 400))
    assert start == pytest.approx(1 / 25)
    assert rising == pytest.approx((1 + 1 / 25) / 2)
    assert top == pytest.approx(1)
    assert falling == pytest.approx((1 + 1e-5) / 2)
    assert end == pytest.approx(1e-5)


def test_cyclical_draws_four_triangles():
    found = rates("cyclical", (0, 50, 100, 150, 350, 400))
    assert found == pytest.approx([0.1, 1, 0.1, 1, 1, 0.1])


@pytest.mark.parametrize("num_steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["cosine", "one_cycle", "cyclical"])
def test_runs_of_a_few_steps_have_finite_rates(name, num_steps):
    assert np.isfinite(rates(name, range(num_steps + 1), num_steps)).all()


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("adam", {}, optax.adam(0.1)),
        ("adam", {"b2": 0.9, "eps": 1e-5}, optax.adam(0.1, b2=0.9, eps=1e-5)),
        ("sgd", {"momentum": 0.9}, optax.sgd(0.1, momentum=0.9)),
        (
            "adamw",
            {},
            optax.adamw(0.1, weight_decay=0.3, mask={"kernel": True, "bias": False}),
        ),
    ],
)
def test_optimizers_equal_those_of_optax(name, options, reference):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    ours = create_optimizer(
        name, create_schedule("constant", 0.1, 10), weight_decay=0.3, options=options
    )
    grads = {"kernel": jnp.full((2, 2), 0.3), "bias": jnp.array([0.1, -2.0])}
    states = ours.init(params), reference.init(params)
    for _ in range(3):
        update, first = ours.update(grads, states[0], params)
        expected, second = reference.update(grads, states[1], params)
        states = first, second
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), update, expected
        )


def test_a_pair_for_b1_cycles_as_the_formulas_of_adam_say():
    steps, (high, low), b2, eps = 8, (0.95, 0.85), 0.99, 1e-5
    cycle = momentum_cycle(high, low, steps)
    np.testing.assert_allclose([cycle(0), cycle(2), cycle(8)], [high, low, high])
    ours = create_optimizer(
        "adam",
        create_schedule("constant", 0.1, steps),
        options={"b1": [high, low], "b2": b2, "eps": eps},
        num_steps=steps,
    )
    params = {"kernel": jnp.zeros(3)}
    state = ours.init(params)
    first, second = np.zeros(3), np.zeros(3)
    for t, grad in enumerate(np.random.default_rng(0).normal(size=(steps, 3)), 1):
        update, state = ours.update({"kernel": jnp.asarray(grad)}, state, params)
        b1 = float(cycle(t - 1))
        first = b1 * first + (1 - b1) * grad
        second = b2 * second + (1 - b2) * grad**2
        mean, square = first / (1 - b1**t), second / (1 - b2**t)
        expected = -0.1 * mean / (np.sqrt(square) + eps)
        np.testing.assert_allclose(update["kernel"], expected, rtol=1e-4)


def test_gradients_are_clipped_by_their_common_norm():
    optimizer = create_optimizer(
        "sgd", create_schedule("constant", 1.0, 10), clip_norm=1.0
    )
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    update, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(
        [update["a"][0], update["b"][0]], [-0.6, -0.8], rtol=1e-6
    )


def test_unknown_names_and_options_are_refused():
    with pytest.raises(ValueError, match="known are constant, cosine"):
        create_schedule("cosin", 1.0, 10)
    with pytest.raises(ValueError, match="known are adam, adamw, sgd"):
        create_optimizer("lion", lambda step: 1.0)
    with pytest.raises(TypeError, match="adam has no option"):
        create_optimizer("adam", lambda step: 1.0, options={"momentum": 0.9})
    for wrong in ((0.9, 0.8, 0.9), (0.9, 0.8)):  # the pair lacks num_steps
        with pytest.raises(ValueError, match="b1 must be a number, or a pair"):
            create_optimizer("adam", lambda step: 1.0, options={"b1": wrong})
