import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fluojax.losses import dice_loss
from fluojax.losses.topology import cbdice_loss, dice_cldice_loss, soft_cldice_loss

LOSSES = (soft_cldice_loss, cbdice_loss)
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def skeleton(x, num_iters):
    def erode(x):
        cross = ndimage.generate_binary_structure(x.ndim, 1)
        return ndimage.grey_erosion(x, footprint=cross, mode="constant", cval=np.inf)

    def delta(x):
        wide = ndimage.grey_dilation(
            erode(x), (3,) * x.ndim, mode="constant", cval=-np.inf
        )
        return np.maximum(x - wide, 0)

    thin = delta(x)
    for _ in range(num_iters):
        x = erode(x)
        thin = thin + np.maximum(delta(x) - thin * delta(x), 0)
    return thin


def slow_cldice(p, g, num_iters, smooth):
    thin_p, thin_g = skeleton(p, num_iters), skeleton(g, num_iters)
    precision = ((thin_p * g).sum() + smooth) / (thin_p.sum() + smooth)
    sensitivity = ((thin_g * p).sum() + smooth) / (thin_g.sum() + smooth)
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def slow_cbdice(p, g, num_iters, smooth):
    tubes = []
    for mask in (p > 0.5, g > 0.5):
        thin = skeleton(mask.astype(float), num_iters) > 0.5
        distance = ndimage.distance_transform_edt(mask)
        reach = max(1.0, (distance * thin).max())
        weight = thin * ((reach - distance * thin + 1) / reach) ** (p.ndim - 1)
        tubes.append(
            [np.minimum(distance, reach) / reach, distance * thin / reach, weight]
        )
    tubes[0] = [values * p for values in tubes[0]]

    def agreement(one, other):
        radii = np.where((one[1] != 0) & (other[1] == 0), one[1], other[1])
        top, bottom = (one[2] * other[0]).sum(), (one[2] * radii).sum()
        return (top + smooth) / (bottom + smooth)

    precision, sensitivity = agreement(*tubes), agreement(*tubes[::-1])
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def scene(shape, seed=0):
    """Smooth logits and a mask beside them, `[2, *S, 1]`, both with structure."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, *shape))
    smooth = np.stack([ndimage.gaussian_filter(one, 1.5) for one in noise])
    smooth = smooth / smooth.std()
    labels = np.roll(smooth, 1, axis=1) + 0.3 * rng.normal(size=smooth.shape) > 0.3
    return 4 * smooth[..., None] - 1, labels[..., None].astype(float)


@pytest.mark.parametrize("shape", [(12, 11), (6, 7, 5)])
@pytest.mark.parametrize(
    ("loss", "slow"),
    [(soft_cldice_loss, slow_cldice), (cbdice_loss, slow_cbdice)],
    ids=["cldice", "cbdice"],
)
def test_values_are_those_of_a_slow_loop(float64, loss, slow, shape):
    logits, labels = scene(shape)
    found = loss(jnp.asarray(logits), jnp.asarray(labels), num_iters=3, smooth=0.5)
    pairs = zip(sigmoid(logits[..., 0]), labels[..., 0], strict=True)
    expected = [slow(p, g, 3, 0.5) for p, g in pairs]
    assert np.all(np.array(expected) > 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@each_loss
def test_gradients_are_finite_differences(float64, loss, finite_differences):
    logits, labels = (jnp.asarray(a[:1, :6, :5]) for a in scene((8, 8)))
    value = jax.jit(lambda z: loss(z, labels, num_iters=2)[0])
    slope = jax.grad(value)(logits)
    assert np.abs(slope).max() > 1e-3
    expected = finite_differences(value, logits)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-8)


def test_cldice_by_hand():
    # The skeleton of a line is the line. Its prediction misses one of 4 pixels
    # and has one too many: both ratios are (3 + 1) / (4 + 1).
    labels = jnp.zeros((1, 5, 8, 1)).at[:, 2, 2:6].set(1.0)
    logits = 100 * jnp.roll(labels, 1, axis=2) - 50
    found = soft_cldice_loss(logits, labels, num_iters=2)
    chex.assert_trees_all_close(found, jnp.array([0.2]), rtol=1e-5)


def test_cbdice_by_hand():
    # Radii are 1, so that all weights are 1 and it is clDice of hard skeletons.
    labels = jnp.zeros((1, 5, 8, 1)).at[:, 2, 2:6].set(1.0)
    logits = 100 * jnp.roll(labels, 1, axis=2) - 50
    found = cbdice_loss(logits, labels, num_iters=2)
    chex.assert_trees_all_close(found, jnp.array([0.2]), rtol=1e-5)


def test_cbdice_has_no_gradient_while_nothing_is_predicted(make):
    _, labels = make((1, 8, 8, 1))
    slope = jax.grad(lambda z: cbdice_loss(z, labels).sum())(
        jnp.full((1, 8, 8, 1), -1.0)
    )
    assert not np.any(slope)


def test_dice_and_cldice_are_mixed_by_alpha(make):
    logits, labels = make((2, 8, 9, 3))
    options = {"smooth": 0.7, "include_background": True}
    parts = (
        dice_loss(logits, labels, **options),
        soft_cldice_loss(logits, labels, num_iters=4, **options),
    )
    mixed = dice_cldice_loss(logits, labels, alpha=0.3, num_iters=4, **options)
    chex.assert_trees_all_close(mixed, 0.7 * parts[0] + 0.3 * parts[1], rtol=1e-6)


def test_a_broken_line_costs_more_than_a_thin_one():
    # Both predictions miss pixels: two columns in the middle of a line, or one
    # of its three rows, which has more of them.
    labels = jnp.zeros((1, 9, 16, 1)).at[:, 3:6, 1:15].set(1.0)
    broken = 16 * labels.at[:, 3:6, 7:9].set(0.0) - 8
    thin = 16 * labels.at[:, 3].set(0.0) - 8
    assert dice_loss(broken, labels) < dice_loss(thin, labels)
    assert soft_cldice_loss(broken, labels) > soft_cldice_loss(thin, labels)


@pytest.mark.parametrize("background", [False, True])
def test_several_classes_are_averaged(make, background):
    logits, labels = make((2, 8, 9, 3))
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    classes = range(0 if background else 1, 3)
    expected = [
        np.mean([slow_cldice(p[..., k], g[..., k], 3, 1.0) for k in classes])
        for p, g in zip(probs, np.asarray(labels, np.float64), strict=True)
    ]
    found = soft_cldice_loss(logits, labels, num_iters=3, include_background=background)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cbdice_takes_the_greatest_of_several_foregrounds(make):
    logits, labels = make((2, 8, 9, 3))
    ahead = logits[..., 1:].max(-1, keepdims=True) - logits[..., :1]
    expected = cbdice_loss(ahead, labels[..., 1:].sum(-1, keepdims=True))
    chex.assert_trees_all_close(cbdice_loss(logits, labels), expected, rtol=1e-6)


@each_loss
def test_a_two_class_head_equals_the_difference_of_its_logits(make, loss):
    logits, labels = make((2, 8, 7, 1))
    heads = jnp.concatenate([jnp.ones_like(logits), logits + 1.0], -1)
    pair = jnp.concatenate([1.0 - labels, labels], -1)
    chex.assert_trees_all_close(loss(heads, pair), loss(logits, labels), rtol=5e-6)


@each_loss
def test_masked_pixels_are_background_and_leave_the_sums(make, loss):
    logits, labels = make((2, 9, 8, 1))
    where = jnp.ones((2, 9, 8, 1), bool).at[:, 5:].set(False)
    masked = jnp.where(where, logits, -1e4), jnp.where(where, labels, 0.0)
    spoilt = jnp.where(where, logits, jnp.nan), jnp.where(where, labels, 9.0)
    run = jax.jit(jax.value_and_grad(lambda z, y: loss(z, y, where=where).sum()))
    value, slope = run(*spoilt)
    chex.assert_trees_all_close(value, loss(*masked).sum(), rtol=1e-6)
    assert np.all(np.isfinite(slope)) and not np.any(np.where(where, 0.0, slope))
    nowhere = jnp.zeros((2, 9, 8, 1), bool)
    chex.assert_trees_all_equal(loss(*spoilt, where=nowhere), jnp.zeros(2))


@each_loss
def test_extreme_images_have_finite_values_and_gradients_without_smoothing(loss):
    shape = (4, 6, 6, 1)
    one = jnp.zeros(shape[1:]).at[2, 3, 0].set(1.0)
    labels = jnp.stack([jnp.zeros(shape[1:]), jnp.ones(shape[1:]), one, 1.0 - one])
    run = jax.jit(jax.value_and_grad(lambda z: loss(z, labels, smooth=0.0).sum()))
    for logits in (jnp.full(shape, -1e4), jnp.full(shape, 1e4), 2e4 * labels - 1e4):
        chex.assert_tree_all_finite(run(logits))


def test_an_image_all_foreground_has_no_skeleton_and_costs_nothing():
    labels = jnp.zeros((1, 16, 16, 1)).at[:, 4:9, 3:12].set(1.0)
    assert soft_cldice_loss(jnp.full(labels.shape, 20.0), labels)[0] < 1e-6
    assert soft_cldice_loss(jnp.full(labels.shape, -20.0), labels)[0] > 0.5


def test_a_perfect_prediction_loses_no_digits():
    _, labels = scene((16, 16))
    found = soft_cldice_loss(40 * jnp.asarray(labels, jnp.float32) - 20, labels)
    assert np.all(found < 1e-7)


@each_loss
def test_a_negative_number_of_iterations_is_refused(make, loss):
    with pytest.raises(ValueError, match="num_iters must be 0 or more"):
        loss(*make((1, 6, 6, 1)), num_iters=-1)
