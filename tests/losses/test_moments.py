"""Losses of spatial moments."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import losses, ops

WHOLE = [
    losses.local_moment_loss,
    losses.global_moment_loss,
    losses.residual_moment_loss,
]
each = pytest.mark.parametrize("loss", WHOLE, ids=lambda f: f.__name__)


def run(function, *arrays, **options):
    """`function` compiled once, with all arrays among the options as arguments."""
    maps = {k: jnp.asarray(v) for k, v in options.items() if hasattr(v, "shape")}
    static = {k: v for k, v in options.items() if k not in maps}
    call = jax.jit(lambda arrays, maps: function(*arrays, **maps, **static))
    return call(arrays, maps)


def disc(row, column, radius=3.0, shape=(24, 24)):
    rows, columns = np.indices(shape)
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return inside.astype(np.float32)


def maps(labels, probs):
    """Logits and labels `[1, H, W, 1]`."""
    probs = np.clip(probs, 1e-6, 1 - 1e-6)
    logits = np.log(probs) - np.log1p(-probs)
    return tuple(jnp.asarray(a[None, ..., None], jnp.float32) for a in (logits, labels))


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


@pytest.mark.parametrize("normalization", ["mass", "none", "local"])
def test_the_local_loss_holds_in_a_slow_loop(make, normalization):
    logits, labels = make((1, 6, 14, 1))
    scales, weights = (0.7, 1.0), (1.0, 0.5, 0.25)
    p, y = sigmoid(logits)[0, ..., 0], np.asarray(labels, np.float64)[0, ..., 0]

    def field(f, scale, index):
        taps = ops.moment_taps(scale)
        radius = len(taps.weights) // 2
        found = np.zeros_like(f)
        for place in np.ndindex(f.shape):
            for other in np.ndindex(f.shape):
                step = np.subtract(other, place)
                if np.all(np.abs(step) <= radius):
                    at = step + radius
                    factor = np.prod(taps.weights[at])
                    factor *= np.prod(
                        [taps.polynomials[a][i] for a, i in zip(index, at, strict=True)]
                    )
                    found[place] += factor * f[other]
        return found

    values = []
    for scale in scales:
        around = field(0.5 * (p + y), scale, (0, 0))
        total = sum(
            weights[sum(a)] * field(p - y, scale, a) ** 2
            for a in ops.moment_indices(2, 2)
        )
        values.append(
            {
                "mass": total.sum() / ((p + y).sum() + 1),
                "none": total.mean(),
                "local": (total / (around + 0.01)).sum() / (around.sum() + 0.01) / 4,
            }[normalization]
        )
    found = run(
        losses.local_moment_loss,
        logits,
        labels,
        scales=scales,
        order_weights=weights,
        normalization=normalization,
    )
    np.testing.assert_allclose(found, [np.mean(values)], rtol=1e-5)


def test_a_window_of_one_pixel_makes_the_dice_loss_of_hard_masks():
    logits, labels = maps(disc(10, 10), disc(12, 11))
    local = run(
        losses.local_moment_loss,
        50 * logits,
        labels,
        scales=(0.05,),
        order=0,
        order_weights=(1.0,),
    )
    dice = losses.dice_loss(50 * logits, labels, smooth=1.0)
    chex.assert_trees_all_close(local, dice, rtol=1e-5)


def test_the_local_loss_is_bounded_by_the_squared_error(make):
    logits, labels = make((3, 20, 9, 1), soft=True)
    p, y = sigmoid(logits), np.asarray(labels)
    bound = ((p - y) ** 2).sum((1, 2, 3)) / ((p + y).sum((1, 2, 3)) + 1)
    value = run(losses.local_moment_loss, logits, labels, scales=(0.5, 1.0))
    assert np.all(value > 0) and np.all(value <= bound)


def test_the_local_loss_pulls_where_dice_no_longer_does():
    loss = jax.jit(losses.local_moment_loss)
    apart = [maps(disc(12, 6), disc(12, 6 + t)) for t in (0, 2, 8, 11)]
    local = [float(loss(*pair)[0]) for pair in apart]
    dice = [float(losses.dice_loss(*pair)[0]) for pair in apart]
    assert np.all(np.diff(local) > 0), local
    assert local[3] > 1.02 * local[2]
    assert dice[3] - dice[2] < 1e-4


def test_global_and_residual_moments_by_hand():
    # p = 1/2 in a 1 x 2 image with one cell at the left: residuals -1/2 and 1/2 at
    # x = -1/2 and 1/2, y = 0; mass 2, below it ½ · 2 + 1 = 2.
    labels = jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    logits = jnp.zeros_like(labels)
    # Order 0: 0, order 1: ¼ + ¼ = ½ over 2, squared.
    found = run(losses.global_moment_loss, logits, labels, order=1)
    np.testing.assert_allclose(found, [1 / 16], rtol=1e-6)
    # In [0, 1] the row is at ½, columns at ¼ and ¾: means of ½ · ½ and of ½ · x.
    found = run(losses.residual_moment_loss, logits, labels, order=1)
    np.testing.assert_allclose(found, [1 / 4 + 1 / 4], rtol=1e-6)


@each
def test_a_perfect_prediction_costs_nothing_and_less_than_any_other(loss):
    labels = disc(10, 10)
    logits, labels = maps(labels, labels)
    call = jax.jit(loss)
    sure = call(50 * logits, labels)
    np.testing.assert_allclose(sure, [0.0], atol=1e-10)
    moved = jnp.roll(logits, 2, axis=1)
    assert call(moved, labels)[0] > call(logits, labels)[0] + 1e-3


@each
def test_gradients_agree_with_finite_differences(
    float64, make, finite_differences, loss
):
    logits, labels = make((1, 4, 14, 1), dtype=jnp.float64)
    fixed = losses.local_moment_loss is not loss
    options = {} if fixed else {"scales": (1.0,), "normalization": "none"}
    if loss is losses.global_moment_loss:  # whose denominator is held fixed
        options["order"] = 0
        y = float(jnp.sum(labels))
        mass = float(jnp.sum(jax.nn.sigmoid(logits)))
        expected = 2 * (mass - y) / (0.5 * (mass + y) + 1) ** 2
        expected = expected * sigmoid(logits) * sigmoid(-logits)
    call = jax.jit(lambda z: loss(z, labels, **options).sum())
    if loss is not losses.global_moment_loss:
        expected = finite_differences(lambda z: float(call(z)), logits)
    found = jax.jit(jax.grad(call))(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@each
def test_where_makes_pixels_empty_in_prediction_and_labels(make, loss):
    logits, labels = make((2, 7, 8, 1))
    where = jnp.ones((2, 7, 8, 1), bool).at[:, 5:].set(False).at[1].set(False)
    empty = jnp.where(where, logits, -200.0), jnp.where(where, labels, 0.0)
    spoilt = jnp.where(where, logits, jnp.nan)
    call = jax.jit(lambda z, y, w=None: loss(z, y, where=w))
    found = call(spoilt, labels, where)
    factor = 8 / 5 if loss is losses.residual_moment_loss else 1.0  # pixels counted
    expected = call(*empty) * (7 / 5 if factor > 1 else 1.0)
    chex.assert_trees_all_close(found[0], expected[0], rtol=1e-5)
    assert found[1] == 0.0


@each
def test_classes_are_averaged_without_the_background(make, loss):
    logits, labels = make((1, 6, 7, 3))
    probs = jax.nn.softmax(logits, axis=-1)
    own = jnp.log(probs) - jnp.log1p(-probs)
    alone = [run(loss, own[..., k : k + 1], labels[..., k : k + 1])[0] for k in (1, 2)]
    chex.assert_trees_all_close(run(loss, logits, labels)[0], sum(alone) / 2, rtol=1e-4)


def touching():
    """Two cells side by side that touch, and one apart; ids leave out numbers."""
    instances = np.zeros((1, 14, 20), np.int32)
    instances[0, 2:7, 2:7], instances[0, 2:7, 7:12], instances[0, 9:12, 14:18] = (
        9,
        4,
        300,
    )
    return instances


def slow_instances(probs, instances, weights, margin):
    """The definition, one cell after the other."""
    ids = [k for k in np.unique(instances) if k]
    places = np.stack(np.indices(instances.shape), -1).astype(float)
    apart = np.stack(
        [
            np.min(
                np.linalg.norm(places[..., None, :] - places[instances == k], axis=-1),
                -1,
            )
            for k in ids
        ]
    )
    values = []
    for number, k in enumerate(ids):
        cell = instances == k
        area, centre = cell.sum(), places[cell].mean(0)
        spread = ((places[cell] - centre) ** 2).mean()
        u = (places - centre) / np.sqrt(max(spread, 0.25))
        region = (apart.argmin(0) == number) & (apart[number] <= margin)
        e = probs * region - cell
        area_part = (e.sum() / area) ** 2
        centre_part = (
            sum((e * u[..., i]).sum() ** 2 for i in range(u.shape[-1])) / area**2
        )
        form = sum(
            (e * (u[..., i] ** 2 - 1)).sum() ** 2 / 2 for i in range(u.shape[-1])
        )
        for i in range(u.shape[-1]):
            form += sum((e * u[..., i] * u[..., j]).sum() ** 2 for j in range(i))
        values.append(np.dot(weights, (area_part, centre_part, form / area**2)))
    return np.mean(values)


def test_instance_moments_hold_in_a_slow_loop(make):
    instances = touching()
    logits, labels = make((1, 14, 20, 1))
    for weights in ((1.0, 0.0, 0.0), (0.5, 1.0, 0.3)):
        found = run(
            losses.instance_moment_loss,
            logits,
            labels,
            instances=instances,
            order_weights=weights,
            margin=2.5,
        )
        expected = slow_instances(
            sigmoid(logits)[0, ..., 0], instances[0], weights, 2.5
        )
        np.testing.assert_allclose(found, [expected], rtol=1e-4)


def test_instance_moments_of_a_volume_hold_in_a_slow_loop(make):
    instances = np.zeros((1, 4, 6, 7), np.int32)
    instances[0, 1:3, 1:4, 1:4], instances[0, 3, 5, 6] = 2, 1
    logits, labels = make((1, 4, 6, 7, 1))
    found = run(losses.instance_moment_loss, logits, labels, instances=instances)
    weights = (1.0, 1.0, 0.1)
    expected = slow_instances(sigmoid(logits)[0, ..., 0], instances[0], weights, 4.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-4)


def test_a_border_moved_between_touching_cells_costs_only_with_instances():
    instances = touching()
    moved = np.where(instances == 9, 0, instances)
    moved[0, 2:7, 2:9] = 9  # two columns of the other cell
    logits, labels = maps((instances[0] > 0) * 1.0, (instances[0] > 0) * 1.0)
    call = functools.partial(run, losses.instance_moment_loss, logits, labels)
    assert call(instances=instances)[0] < 0.02
    # The mask has not changed, so that a loss of masks would not see it.
    assert np.array_equal(moved > 0, instances > 0)
    swapped = np.where(instances == 4, 9, np.where(instances == 9, 4, instances))
    chex.assert_trees_all_close(
        call(instances=swapped), call(instances=instances), rtol=1e-4
    )


def test_given_regions_are_used_as_they_are(make):
    instances = jnp.asarray(touching())
    logits, labels = make((1, 14, 20, 1))
    nearest = ops.nearest_instance(instances[0])
    regions = jnp.where(nearest.distances[0] <= 3, nearest.ids[0], 0)[None]
    own = run(
        losses.instance_moment_loss, logits, labels, instances=instances, margin=3
    )
    given = run(
        losses.instance_moment_loss,
        logits,
        labels,
        instances=instances,
        regions=regions,
        margin=0,
    )
    chex.assert_trees_all_close(own, given, rtol=1e-5)


def test_cells_beyond_the_bound_leave_the_mean(make):
    instances = jnp.asarray(touching())
    logits, labels = make((1, 14, 20, 1))
    call = functools.partial(run, losses.instance_moment_loss)
    found = call(logits, labels, instances=instances, max_instances=1)
    nearest = ops.nearest_instance(instances[0])
    regions = jnp.where(nearest.distances[0] <= 4, nearest.ids[0], 0)
    first = jnp.where(instances == 4, 4, 0)  # the lowest id
    alone = call(
        logits, labels, instances=first, regions=jnp.where(regions == 4, 4, 0)[None]
    )
    chex.assert_trees_all_close(found, alone, rtol=1e-5)


def test_an_image_without_a_cell_costs_nothing(make):
    logits, labels = make((2, 8, 9, 1))
    instances = jnp.zeros((2, 8, 9), jnp.int32).at[0, 2:5, 3:6].set(1)
    call = jax.value_and_grad(
        lambda z, y, i: losses.instance_moment_loss(z, y, instances=i).sum()
    )
    value, slope = jax.jit(call)(logits, labels, instances)
    assert value > 0 and not slope[1].any() and np.all(np.isfinite(slope))


@pytest.mark.parametrize(
    ("loss", "options", "text"),
    [
        (
            losses.local_moment_loss,
            {"normalization": "sum"},
            "must be one of mass, none",
        ),
        (
            losses.local_moment_loss,
            {"order": 1},
            "one number for each order 0..1, got 3",
        ),
        (losses.local_moment_loss, {"scales": ()}, "scales must hold at least one"),
        (losses.global_moment_loss, {"order": -1}, "order must be >= 0, got -1"),
        (losses.residual_moment_loss, {"order": 0}, "order must be >= 1, got 0"),
        (losses.instance_moment_loss, {"order_weights": (1.0,)}, "three numbers"),
        (losses.instance_moment_loss, {"margin": -1}, "margin must be >= 0, got -1"),
        (
            losses.instance_moment_loss,
            {"max_instances": 0},
            "max_instances must be >= 1",
        ),
    ],
)
def test_options_that_are_refused(make, loss, options, text):
    logits, labels = make((1, 4, 4, 1))
    with pytest.raises(ValueError, match=f"{loss.__name__}: .*{text}"):
        loss(logits, labels, **options)
