"""What every public loss, metric and operator promises, whatever it computes.

A new function is one row: a name of `fluojax.losses`, `fluojax.metrics` or
`fluojax.ops`, with `/variant` after it if it has several rows, and a function of
arrays. Losses take logits and labels `[B, H, W, 1]`, metrics two label maps
`[H, W]` with the ids 1 to 4, operators one image `[H, W]` in [0, 1].
"""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from fluojax import losses, metrics, ops


def _mask(metric):
    """A metric of masks as one of label maps."""
    return lambda true, pred: metric(true > 0, pred > 0)


def _sure(metric):
    """A metric of a mask and probabilities, which are high at cells."""
    return lambda true, pred: metric(true > 0, jnp.where(pred > 0, 0.9, 0.2))


def _few(metric, **options):
    return functools.partial(metric, max_instances=8, **options)


def _counts(metric):
    """A metric of the counts of several images, rows standing for images."""
    return lambda true, pred: metric((true > 0).sum(1), (pred > 0).sum(1))


LOSSES = (
    ("cross_entropy_loss", losses.cross_entropy_loss),
    (
        "cross_entropy_loss/weights",
        functools.partial(
            losses.cross_entropy_loss, pos_weight=50.0, normalize="weights"
        ),
    ),
    ("focal_loss", losses.focal_loss),
    ("focal_loss/fraction", functools.partial(losses.focal_loss, gamma=0.5, alpha=0.8)),
    ("dice_loss", losses.dice_loss),
    ("dice_loss/unsmoothed", functools.partial(losses.dice_loss, smooth=0.0)),
    ("dice_loss/l1", functools.partial(losses.dice_loss, soft_labels="l1")),
    ("jaccard_loss", losses.jaccard_loss),
    ("tversky_loss", losses.tversky_loss),
    ("focal_tversky_loss", losses.focal_tversky_loss),
    ("power_mae_loss", losses.power_mae_loss),
    ("power_mae_loss/fraction", functools.partial(losses.power_mae_loss, exponent=0.5)),
    ("generalized_dice_loss", losses.generalized_dice_loss),
    ("lovasz_loss", losses.lovasz_loss),
    ("unified_focal_loss", losses.unified_focal_loss),
    (
        "unified_focal_loss/symmetric",
        functools.partial(losses.unified_focal_loss, asymmetric=False, gamma=0.2),
    ),
    ("contour_weighted_loss", losses.contour_weighted_loss),
    ("separable_contour_loss", losses.separable_contour_loss),
    ("boundary_loss", losses.boundary_loss),
    ("hausdorff_loss", losses.hausdorff_loss),
    ("hausdorff_loss/odd", functools.partial(losses.hausdorff_loss, alpha=1.5)),
    ("soft_cldice_loss", functools.partial(losses.soft_cldice_loss, num_iters=3)),
    ("dice_cldice_loss", functools.partial(losses.dice_cldice_loss, num_iters=3)),
    ("cbdice_loss", functools.partial(losses.cbdice_loss, num_iters=3)),
    ("local_moment_loss", functools.partial(losses.local_moment_loss, scales=(1, 2))),
    (
        "local_moment_loss/local",
        functools.partial(
            losses.local_moment_loss, scales=(1.5,), normalization="local"
        ),
    ),
    ("instance_moment_loss", _few(losses.instance_moment_loss)),
    ("global_moment_loss", functools.partial(losses.global_moment_loss, order=2)),
    ("residual_moment_loss", functools.partial(losses.residual_moment_loss, order=2)),
    ("blob_loss", _few(losses.blob_loss)),
    ("blob_loss/both", _few(losses.blob_loss, loss="dice_cross_entropy")),
    ("ici_loss", _few(losses.ici_loss)),
    ("ici_loss/soft", _few(losses.ici_loss, center="soft", loss="tversky")),
    ("dual_ici_loss", _few(losses.dual_ici_loss)),
    ("cc_dice_loss", _few(losses.cc_dice_loss)),
    ("imsahlo_loss", functools.partial(losses.imsahlo_loss, num_iters=3)),
    ("combined_loss", losses.combined_loss),
    ("combined_focal_tversky_loss", losses.combined_focal_tversky_loss),
)
PRESETS = tuple(
    (name, losses.create_loss(name))
    for name in losses.list_losses()
    if not hasattr(losses, name)
)
METRICS = (
    ("confusion", _mask(metrics.confusion)),
    ("confusion/classes", functools.partial(metrics.confusion, num_classes=5)),
    ("accuracy", _mask(metrics.accuracy)),
    ("precision", _mask(metrics.precision)),
    ("recall", _mask(metrics.recall)),
    ("specificity", _mask(metrics.specificity)),
    ("dice", _mask(metrics.dice)),
    ("iou", _mask(metrics.iou)),
    ("mcc", _mask(metrics.mcc)),
    ("per_class", functools.partial(metrics.per_class, num_classes=5)),
    ("balanced_accuracy", _mask(metrics.balanced_accuracy)),
    ("macro_f1", _mask(metrics.macro_f1)),
    ("micro_f1", _mask(metrics.micro_f1)),
    ("weighted_f1", _mask(metrics.weighted_f1)),
    ("match_by_iou", _few(metrics.match_by_iou)),
    ("match_by_iou/many_to_one", _few(metrics.match_by_iou, rule="many_to_one")),
    ("match_by_distance", _few(metrics.match_by_distance, threshold=3.0)),
    ("average_precision", _few(metrics.average_precision)),
    ("panoptic_quality", _few(metrics.panoptic_quality)),
    ("aggregated_jaccard", _few(metrics.aggregated_jaccard)),
    ("ensemble_dice", _few(metrics.ensemble_dice)),
    ("seg_score", _few(metrics.seg_score)),
    ("det_score", _few(metrics.det_score)),
    ("hausdorff", _mask(metrics.hausdorff)),
    ("hausdorff/95", _mask(functools.partial(metrics.hausdorff, percentile=95))),
    ("average_surface_distance", _mask(metrics.average_surface_distance)),
    ("surface_dice", _mask(metrics.surface_dice)),
    ("surface_dice_subpixel", _mask(metrics.surface_dice_subpixel)),
    ("boundary_f1", _mask(metrics.boundary_f1)),
    ("boundary_iou", _mask(metrics.boundary_iou)),
    ("cldice", _mask(metrics.cldice)),
    ("betti_error", _mask(metrics.betti_error)),
    ("betti_error/patch", _mask(functools.partial(metrics.betti_error, patch=5))),
    ("expected_calibration_error", _sure(metrics.expected_calibration_error)),
    ("brier_score", _sure(metrics.brier_score)),
    ("mae", _counts(metrics.mae)),
    ("medae", _counts(metrics.medae)),
    ("mpe", _counts(metrics.mpe)),
    ("mpe_fluocells", _counts(metrics.mpe_fluocells)),
    ("mape", _counts(metrics.mape)),
    ("rmse", _counts(metrics.rmse)),
)

_TURN = jnp.array([[0.8, -0.6], [0.6, 0.8]], jnp.float32)
_PLACES = ops.affine_coordinates((9, 7), _TURN)
_CROSS = ops.ellipse(3)
_KEY = jax.random.key(0)


def _halves(operator, *args, **options):
    """An operator of masks as one of pictures in [0, 1]."""
    return lambda image: operator(image > 0.5, *args, **options)


def _ids(operator, *args, **options):
    """An operator of label maps: four quarters of the picture, with gaps."""

    def of(image):
        rows, columns = jnp.indices(image.shape)
        quarter = 2 * (rows > 5) + (columns > 5) + 1
        return operator(jnp.where(image > 0.3, quarter, 0), *args, **options)

    return of


def _known(operator):
    """What is documented as undefined (NaN) as 0."""
    return lambda image: jax.tree.map(jnp.nan_to_num, operator(image))


def _drawn(coordinates, **options):
    """Random places, which do not depend on the image."""
    return lambda image: coordinates(_KEY, image.shape, **options)


def _marked(image):
    markers = jnp.zeros(image.shape, jnp.int32).at[2, 2].set(1).at[9, 8].set(2)
    return ops.watershed(image, markers, mask=image > 0.2, line=True)


_STUDY = {
    "max_hole_size": 2,
    "min_object_size": 3,
    "max_filter_size": 3,
    "footprint": 4,
}
OPS = (
    ("sample", lambda image: ops.sample(image, _PLACES)),
    ("sample/nearest", lambda image: ops.sample(image, _PLACES, order=0)),
    ("sample/constant", lambda image: ops.sample(image, _PLACES, mode="constant")),
    ("affine", lambda image: ops.affine(image, _TURN)),
    ("affine_coordinates", lambda image: ops.affine_coordinates(image.shape, _TURN)),
    ("brightness_contrast", lambda image: ops.brightness_contrast(image, 0.1, -0.3)),
    ("label_components", _halves(ops.label_components)),
    ("label_components/faces", _halves(ops.label_components, 1)),
    ("label_components/values", _ids(ops.label_components, 1, equal_values=True)),
    ("count_instances", _ids(ops.count_instances)),
    ("relabel", _ids(ops.relabel)),
    ("distance_transform", _halves(ops.distance_transform)),
    ("distance_transform/spacing", _halves(ops.distance_transform, spacing=(2, 0.5))),
    ("signed_distance", _halves(ops.signed_distance)),
    ("expand_labels", _ids(ops.expand_labels)),
    ("nearest_instance", _ids(ops.nearest_instance)),
    ("erode", lambda image: ops.erode(image, _CROSS)),
    ("dilate", _halves(ops.dilate, _CROSS, iterations=2)),
    ("open", lambda image: ops.open(image, ops.ellipse(5))),
    ("close", _halves(ops.close, _CROSS, border=0)),
    ("gradient", lambda image: ops.gradient(image, _CROSS)),
    ("tophat", lambda image: ops.tophat(image, _CROSS)),
    ("maximum_filter", lambda image: ops.maximum_filter(image, 4)),
    ("contour_map", _halves(ops.contour_map)),
    ("soft_erode", ops.soft_erode),
    ("soft_dilate", ops.soft_dilate),
    ("soft_open", ops.soft_open),
    ("soft_skeleton", functools.partial(ops.soft_skeleton, num_iters=3)),
    ("topological_skeleton", _halves(lambda m: ops.topological_skeleton(m * 1.0, 2))),
    ("skeletonize", _halves(ops.skeletonize)),
    ("fill_holes", _halves(ops.fill_holes)),
    ("remove_small_holes", _halves(ops.remove_small_holes, 3)),
    ("remove_small_objects", _halves(ops.remove_small_objects, 3)),
    ("remove_small_objects/ids", _ids(ops.remove_small_objects, 20)),
    ("unet_border_weights", _ids(ops.unet_border_weights)),
    ("overcrowding_weights", _halves(ops.overcrowding_weights, min_object=2)),
    ("class_balance_weights", _halves(ops.class_balance_weights)),
    ("moments", ops.moments),
    ("central_moments", ops.central_moments),
    ("normalized_moments", _known(ops.normalized_moments)),
    ("hu_moments", ops.hu_moments),
    ("centroids", ops.centroids),
    ("local_moments", lambda image: ops.local_moments(image, 1.5)),
    ("region_moments", _ids(_known(_few(ops.region_moments)))),
    ("clahe", lambda image: ops.clahe(image, 3.0, (2, 3))),
    ("gaussian_blur", lambda image: ops.gaussian_blur(image, 1.5)),
    ("normalize_percentile", ops.normalize_percentile),
    ("resize_area", lambda image: ops.resize_area(image, (5, 9))),
    ("resize_instances", _ids(ops.resize_instances, (5, 9))),
    ("elastic", lambda image: ops.elastic(_KEY, image, alpha=9.0, sigma=2.0)),
    ("elastic_coordinates", _drawn(ops.elastic_coordinates, alpha=9.0, sigma=2.0)),
    ("grid_distortion", lambda image: ops.grid_distortion(_KEY, image)),
    ("grid_distortion_coordinates", _drawn(ops.grid_distortion_coordinates)),
    ("peak_local_max", lambda image: ops.peak_local_max(image, 3)),
    ("watershed", _marked),
    ("h_maxima", lambda image: ops.h_maxima(image, 0.2)),
    ("reconstruct", lambda image: ops.reconstruct(image - 0.2, image)),
    ("split_necks", _halves(ops.split_necks)),
    ("split_touching", _halves(ops.split_touching, **_STUDY)),
    ("fluocells_postprocess", _halves(ops.fluocells_postprocess, **_STUDY)),
)
# Rows that take seconds without jit.
SLOW = (
    "fluocells_postprocess",
    "nearest_instance",
    "overcrowding_weights",
    "skeletonize",
    "split_necks",
    "split_touching",
    "topological_skeleton",
    "unet_border_weights",
    "watershed",
)
# Functions of sizes, not of an image.
TABLES = {"ellipse", "moment_indices", "moment_taps"}

each_loss = pytest.mark.parametrize("loss", [pytest.param(f, id=n) for n, f in LOSSES])
each_preset = pytest.mark.parametrize(
    "loss", [pytest.param(f, id=n) for n, f in LOSSES + PRESETS]
)
each_metric = pytest.mark.parametrize(
    "metric", [pytest.param(f, id=n) for n, f in METRICS]
)


def _logits_and_labels(shape=(3, 8, 8, 1), seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < 0.3).astype(np.float32)
    if shape[-1] > 1:
        labels = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
    logits = rng.normal(0.0, 3.0, shape)
    return jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.float32)


def _label_maps(seed=0):
    """Four cells, and the same with one moved, one lost and one added."""
    true, pred = np.zeros((2, 12, 12), np.int32)
    true[1:4, 1:4], true[1:4, 7:11], true[7:11, 1:4], true[8:11, 7:9] = 1, 2, 3, 4
    pred[1:4, 1:4], pred[2:5, 7:11], pred[8:11, 7:10], pred[5, 5:7] = 2, 1, 3, 4
    pred = np.roll(pred, seed, axis=1)
    return jnp.asarray(true), jnp.asarray(pred)


def test_every_public_loss_metric_and_operator_has_a_row():
    rows = {name.split("/")[0] for name, _ in LOSSES}
    public = {name for name in losses.__all__ if name.endswith("_loss")}
    assert rows == public - {"create_loss"}
    rows = {name.split("/")[0] for name, _ in METRICS}
    public = {
        name
        for name in metrics.__all__
        if list(_parameters(metrics, name))[:2] == ["true", "pred"]
    }
    assert public - {"pixel_sums"} <= rows  # which takes a batch
    functions = {
        name for name in ops.__all__ if not inspect.isclass(getattr(ops, name))
    }
    assert {name.split("/")[0] for name, _ in OPS} == functions - TABLES


def _parameters(module, name):
    value = getattr(module, name)
    return {} if inspect.isclass(value) else inspect.signature(value).parameters


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.named_parameters(*LOSSES)
    def test_a_batch_is_its_images_one_by_one(self, loss):
        logits, labels = _logits_and_labels()
        batched = self.variant(loss)(logits, labels)
        if batched.ndim == 2:  # pmap: one copy per device
            chex.assert_trees_all_equal(*batched)
            batched = batched[0]
        chex.assert_shape(batched, (3,))
        single = jax.jit(loss)
        alone = [single(logits[i : i + 1], labels[i : i + 1])[0] for i in range(3)]
        chex.assert_trees_all_close(batched, jnp.stack(alone), rtol=2e-6)

    # What they are compared with is jitted; pmap compiles as jit does.
    @chex.variants(without_jit=True, with_pmap=True)
    @parameterized.named_parameters(*METRICS)
    def test_a_batch_of_images_is_vmap(self, metric):
        pairs = [_label_maps(seed) for seed in (0, 2)]
        true, pred = (jnp.stack(maps) for maps in zip(*pairs, strict=True))
        batched = self.variant(jax.vmap(metric))(true, pred)
        single = jax.jit(metric)
        alone = jax.tree.map(lambda *x: jnp.stack(x), *(single(*p) for p in pairs))
        ndim = jax.tree.leaves(alone)[0].ndim
        if jax.tree.leaves(batched)[0].ndim > ndim:  # pmap: one copy per device
            batched = jax.tree.map(lambda x: x[0], batched)
        chex.assert_trees_all_close(batched, alone, rtol=2e-6)

    @chex.variants(without_jit=True, with_pmap=True)
    @parameterized.named_parameters(*(row for row in OPS if row[0] not in SLOW))
    def test_a_batch_of_one_operator_is_vmap(self, operator):
        self.assert_a_batch_is_vmap(operator)

    @chex.variants(with_pmap=True)
    @parameterized.named_parameters(*(row for row in OPS if row[0] in SLOW))
    def test_a_batch_of_a_slow_operator_is_vmap(self, operator):
        self.assert_a_batch_is_vmap(operator)

    def assert_a_batch_is_vmap(self, operator):
        images = jnp.asarray(np.random.default_rng(0).random((3, 12, 11)), jnp.float32)
        batched = self.variant(jax.vmap(operator))(images)
        single = jax.jit(operator)
        alone = jax.tree.map(lambda *x: jnp.stack(x), *map(single, images))
        ndim = jax.tree.leaves(alone)[0].ndim
        if jax.tree.leaves(batched)[0].ndim > ndim:  # pmap: one copy per device
            batched = jax.tree.map(lambda x: x[0], batched)
        jax.tree.map(_assert_close_scaled, batched, alone)


@pytest.mark.parametrize("operator", [pytest.param(f, id=n) for n, f in OPS])
def test_an_operator_is_traced_once_and_computes_in_float32(operator):
    traced = _count_traces(operator, limit=2)
    image = jnp.asarray(np.random.default_rng(0).random((12, 11)), jnp.bfloat16)
    for shift in range(3):
        wide = traced(jnp.roll(image, shift).astype(jnp.float32))
        short = traced(jnp.roll(image, shift))
        jax.tree.map(_assert_close_scaled, short, wide)
        for leaf in jax.tree.leaves(wide):
            assert not np.any(np.isnan(leaf))
            assert leaf.dtype in (bool, np.int32, np.float32)


def _assert_close_scaled(found, expected):
    """Equal up to 1e-5 of the largest finite entry; grey values keep their type."""
    loose = 1e-2 if found.dtype == jnp.bfloat16 else 1e-5
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    largest = np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected))
    np.testing.assert_allclose(found, expected, rtol=loose, atol=loose * largest)


@each_loss
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 4, 5, 6, 1), (2, 4, 5, 6, 2)])
def test_every_rank_and_number_of_classes_gives_one_value_per_image(loss, shape):
    logits, labels = _logits_and_labels(shape)
    values = jax.jit(loss)(logits, labels)
    chex.assert_shape(values, (2,))
    chex.assert_tree_all_finite(values)
    alone = loss(logits[1:], labels[1:])
    chex.assert_trees_all_close(values[1:], alone, rtol=2e-6)


@each_loss
def test_short_floats_are_computed_in_float32(loss):
    logits, labels = _logits_and_labels()
    short = logits.astype(jnp.bfloat16)
    values = jax.jit(loss)(short, labels)
    same = jax.jit(loss)(short.astype(jnp.float32), labels)
    chex.assert_trees_all_close(values, same, rtol=1e-6)


@each_preset
@pytest.mark.parametrize("given", ["bfloat16", "float16", "float32", "float64"])
def test_values_have_float32_or_the_longer_type_given(loss, given):
    with jax.enable_x64(True):
        logits = jax.ShapeDtypeStruct((3, 8, 8, 1), given)
        values = jax.eval_shape(loss, logits, logits)
    assert values.dtype == ("float64" if given == "float64" else "float32")


@each_preset
def test_extreme_logits_and_images_have_finite_values_and_gradients(loss):
    shape = (4, 6, 6, 1)
    one = jnp.zeros(shape[1:]).at[2, 3, 0].set(1.0)
    scene = jnp.zeros(shape[1:]).at[1:4, 1:5, 0].set(1.0)
    labels = jnp.stack([jnp.zeros(shape[1:]), jnp.ones(shape[1:]), one, scene])
    ramp = jnp.linspace(-1e4, 1e4, 36).reshape(shape[1:])
    scales = [-1e4, -20.0, 0.0, 20.0, 1e4]
    logits = [jnp.full(shape, scale) for scale in scales]
    logits += [jnp.broadcast_to(ramp, shape), 1e4 * (2 * labels - 1)]
    logits += [-logits[-1], 20 * (2 * labels - 1)]
    values, pull = jax.vjp(
        jax.jit(lambda z: loss(z, jnp.tile(labels, (len(logits), 1, 1, 1)))),
        jnp.concatenate(logits),
    )
    (slopes,) = pull(jnp.ones_like(values))
    chex.assert_tree_all_finite((values, slopes))
    # ICI paints its boxes with 1 + 1e-7; boundaries have signed distances.
    assert np.all(values >= -1e-7) or loss is losses.boundary_loss


def _count_traces(function, limit):
    # chex reads the source of what it counts, which a partial has not.
    chex.clear_trace_counter()
    return jax.jit(chex.assert_max_traces(lambda *args: function(*args), n=limit))


@each_loss
def test_one_trace_per_shape(loss):
    traced = _count_traces(loss, limit=2)
    for shape in ((3, 8, 8, 1), (2, 8, 8, 1)):
        for seed in range(3):
            traced(*_logits_and_labels(shape, seed))


@each_metric
def test_a_metric_is_traced_once_per_shape(metric):
    traced = _count_traces(metric, limit=1)
    for seed in range(3):
        traced(*_label_maps(seed))


@each_metric
def test_a_metric_of_a_perfect_prediction_of_anything_is_never_infinite(metric):
    true, _ = _label_maps()
    for image in (true, jnp.zeros_like(true), jnp.ones_like(true)):
        for leaf in jax.tree.leaves(jax.jit(metric)(image, image)):
            assert not np.any(np.isinf(leaf))
