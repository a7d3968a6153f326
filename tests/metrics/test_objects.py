"""Matches of objects: by hand, against loops and SciPy, and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metrics_cells import iou_table, moved, random_cells
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from fluojax import metrics

pytestmark = pytest.mark.usefixtures("strict_promotion")

BOUND = {"max_instances": 16}
SHAPES = [(24, 28), (12, 13, 14)]
# Two true cells of 4 pixels; the prediction covers half of both.
HALVES_TRUE = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
HALVES_PRED = np.array([[0, 0, 7, 7, 7, 7, 0, 0]])


def counts(match):
    return tuple(int(value) for value in match[:3])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_one_to_one_counts_equal_an_assignment_by_scipy(seed, threshold, shape):
    true = random_cells(seed, shape)
    pred = moved(true, seed)
    iou = iou_table(true, pred)
    hit = iou >= threshold
    cost = -hit.astype(float) - iou / (2 * min(iou.shape))
    rows, columns = linear_sum_assignment(cost)
    tp = hit[rows, columns].sum()
    match = metrics.match_by_iou(true, pred, threshold=threshold, **BOUND)
    assert counts(match) == (tp, iou.shape[1] - tp, iou.shape[0] - tp)
    score_sum = iou[rows, columns][hit[rows, columns]].sum()
    np.testing.assert_allclose(match.score_sum, score_sum, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_many_to_one_counts_equal_a_loop(seed, shape):
    true = random_cells(seed, shape)
    pred = moved(true, seed)
    iou = iou_table(true, pred)
    expected = (
        sum(row.max() > 0.4 for row in iou),
        sum(column.max() <= 0.4 for column in iou.T),
        sum(row.max() <= 0.4 for row in iou),
    )
    options = {"threshold": 0.4, "rule": "many_to_one", "strict": True}
    assert counts(metrics.match_by_iou(true, pred, **options, **BOUND)) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", ["many_to_one", "optimal"])
@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_scipy_centres(seed, rule, shape):
    true = random_cells(seed, shape)
    pred = random_cells(seed + 50, shape)
    centres = [
        np.array(ndimage.center_of_mass(m > 0, m, np.unique(m[m > 0])))
        for m in (true, pred)
    ]
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=-1)
    near = distance <= 4.0
    if rule == "many_to_one":
        tp, fp = near.any(1).sum(), (~near.any(0)).sum()
        total = distance.min(1)[near.any(1)].sum()
    else:
        cost = np.where(near, -1 - (1 - distance / 8) / (2 * min(near.shape)), 0.0)
        pairs = linear_sum_assignment(cost)
        tp = near[pairs].sum()
        fp, total = near.shape[1] - tp, distance[pairs][near[pairs]].sum()
    match = metrics.match_by_distance(true, pred, threshold=4.0, rule=rule, **BOUND)
    assert counts(match) == (tp, fp, near.shape[0] - tp)
    np.testing.assert_allclose(match.score_sum, total, rtol=1e-5, atol=1e-5)


def test_an_iou_of_exactly_the_threshold_counts_unless_strict():
    true, pred = np.array([[1, 1]]), np.array([[0, 1]])
    assert counts(metrics.match_by_iou(true, pred)) == (1, 0, 0)
    assert counts(metrics.match_by_iou(true, pred, strict=True)) == (0, 1, 1)


def test_a_cell_moved_by_exactly_the_threshold_counts():
    # Three pixels in a corner have their centre at thirds of pixels.
    true = np.zeros((4, 60), int)
    true[0, 1] = true[1, 1] = true[1, 2] = 1
    pred = np.roll(true, 40, axis=1)
    match = metrics.match_by_distance(true, pred, threshold=40.0)
    assert counts(match) == (1, 0, 0)
    assert counts(metrics.match_by_distance(true, np.roll(true, 41, axis=1))) == (
        0,
        1,
        1,
    )


def test_one_prediction_serves_several_objects_only_many_to_one():
    options = {"threshold": 0.3, **BOUND}
    assert counts(metrics.match_by_iou(HALVES_TRUE, HALVES_PRED, **options)) == (
        1,
        0,
        1,
    )
    many = metrics.match_by_iou(HALVES_TRUE, HALVES_PRED, rule="many_to_one", **options)
    assert counts(many) == (2, 0, 0)


def test_criteria_divide_by_the_union_the_truth_or_the_prediction():
    true, pred = np.array([[1, 1, 1, 1, 0]]), np.array([[0, 0, 2, 2, 2]])
    sums = {
        criterion: metrics.match_by_iou(
            true, pred, threshold=0.3, criterion=criterion
        ).score_sum
        for criterion in ("iou", "iot", "iop")
    }
    expected = {"iou": 2 / 5, "iot": 2 / 4, "iop": 2 / 3}
    for criterion, value in expected.items():
        np.testing.assert_allclose(sums[criterion], value, rtol=1e-6)


def test_several_thresholds_equal_one_at_a_time():
    true = random_cells(3)
    pred = moved(true, 3)
    thresholds = (0.2, 0.5, 0.8)
    together = metrics.match_by_iou(true, pred, threshold=thresholds, **BOUND)
    for k, threshold in enumerate(thresholds):
        alone = metrics.match_by_iou(true, pred, threshold=threshold, **BOUND)
        assert counts(alone) == tuple(int(value[k]) for value in together[:3])
        np.testing.assert_array_equal(together.match[k], alone.match)


@pytest.mark.parametrize("spread", [1, 11, 123_457])
def test_ids_may_be_permuted_and_far_apart(spread):
    true = random_cells(8)
    pred = moved(true, 8)
    order = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(9)]) * spread
    for match in (metrics.match_by_iou, metrics.match_by_distance):
        options = {"threshold": 0.4 if match is metrics.match_by_iou else 2.0}
        plain = match(true, pred, **options, **BOUND)
        other = np.roll(order[1:], 4)
        renamed = match(order[true], np.append(0, other)[pred], **options, **BOUND)
        assert counts(plain) == counts(renamed)


def test_the_pixels_of_one_id_need_not_touch():
    true, pred = np.array([[3, 0, 3, 0]]), np.array([[5, 0, 5, 5]])
    match = metrics.match_by_iou(true, pred, threshold=0.6)
    assert counts(match) == (1, 0, 0)
    assert match.match[np.flatnonzero(match.true_ids)[0]] == 5


def test_objects_beyond_the_bound_stay_unmatched_and_are_counted():
    labels = np.arange(1, 13).reshape(3, 4)
    for rule in ("optimal", "many_to_one"):
        match = metrics.match_by_iou(labels, labels, rule=rule, max_instances=5)
        assert counts(match) == (5, 7, 7)
        assert (match.n_true, match.n_pred) == (12, 12)


def test_empty_sides_give_worst_scores_and_two_of_them_none():
    empty, cell = np.zeros((4, 4), int), np.eye(4, dtype=int)
    for true, pred in ((empty, cell), (cell, empty)):
        for match in (metrics.match_by_iou, metrics.match_by_distance):
            found = match(true, pred)
            assert counts(found)[0] == 0 and sum(counts(found)) == 1
        assert metrics.average_precision(true, pred).max() == 0
        assert metrics.object_scores(*found[:3]).f1 == 0
    nothing = metrics.match_by_iou(empty, empty)
    assert counts(nothing) == (0, 0, 0)
    assert np.isnan(metrics.average_precision(empty, empty)).all()


def test_scores_from_counts_by_hand():
    scores = metrics.object_scores(3, 1, 2, score_sum=2.4)
    expected = (3 / 4, 3 / 5, 6 / 9, 3 / 6, 2.4 / 5, 2.4 / 3, 2.4 / 4.5)
    np.testing.assert_allclose(np.array(scores), expected, rtol=1e-6)


def test_stardist_calls_undefined_scores_zero():
    ours = metrics.object_scores(jnp.zeros(2), jnp.array([0.0, 1.0]), jnp.zeros(2))
    theirs = metrics.object_scores(0, 0, 0, score_sum=0.0, convention="stardist")
    assert np.isnan(ours.f1[0]) and ours.f1[1] == 0 and np.isnan(ours.recall[1])
    assert all(value == 0 for value in theirs)


def test_the_legacy_summary_by_hand():
    # Image 1: 3 true objects, 2 found by IoU, 3 by distance. Image 2: 1 true.
    by_iou = np.array([[2, 1, 1], [1, 0, 0]])
    by_distance = np.array([[3, 0, 0], [0, 1, 1]])
    summary = metrics.fluocells_summary_legacy(by_iou, by_distance)
    precision, recall = 3 / 4.01, 3 / 4.01
    np.testing.assert_allclose(summary.precision, precision, rtol=1e-6)
    np.testing.assert_allclose(
        summary.f1, 2 * precision * recall / (2 * precision), rtol=1e-6
    )
    np.testing.assert_allclose(summary.accuracy, 3 / 5.01, rtol=1e-6)
    # Targets 2 + 0 and 1 + 1, predicted 3 and 1.
    assert (summary.mae, summary.medae, summary.mpe) == (1.0, 1.0, (0.5 - 0.5) / 2)
    empty = metrics.fluocells_summary_legacy(0 * by_iou, 0 * by_iou, by="distance")
    assert np.isnan(empty.f1) and empty.mae == 0


@pytest.mark.parametrize("name", ["match_by_iou", "match_by_distance"])
@pytest.mark.parametrize("rule", ["optimal", "many_to_one"])
def test_a_batch_under_vmap_equals_its_images(name, rule):
    true = np.stack([random_cells(s) for s in range(4)])
    pred = np.stack([moved(t, s) for s, t in enumerate(true)])
    pred[1] *= 1000
    threshold = 0.3 if name == "match_by_iou" else 3.0

    def match(t, p):
        return getattr(metrics, name)(t, p, threshold=threshold, rule=rule, **BOUND)

    batch = jax.jit(jax.vmap(match))(true, pred)
    for k in range(4):
        single = match(true[k], pred[k])
        jax.tree.map(
            lambda b, s, k=k: np.testing.assert_allclose(b[k], s, rtol=1e-6),
            batch,
            single,
        )


def test_nothing_calls_the_host_and_programs_do_not_grow_with_objects():
    def program(bound):
        def everything(t, p):
            return (
                metrics.average_precision(
                    t, p, thresholds=(0.3, 0.5), max_instances=bound
                ),
                metrics.match_by_distance(t, p, max_instances=bound),
                metrics.aggregated_jaccard(t, p, plus=True, max_instances=bound),
            )

        image = jnp.zeros((8, 8), jnp.int32)
        return str(jax.make_jaxpr(everything)(image, image))

    small, large = program(8), program(512)
    assert "callback" not in small
    for operation in ("while[", "scan[", "scatter-add[", "sort[", "reduce_sum["):
        assert small.count(operation) == large.count(operation) > 0, operation


def test_options_outside_the_list_are_refused():
    image = np.zeros((2, 2), int)
    with pytest.raises(
        ValueError, match="rule must be optimal or many_to_one, got 'all'"
    ):
        metrics.match_by_iou(image, image, rule="all")
    with pytest.raises(
        ValueError, match="criterion must be iou, iot or iop, got 'dice'"
    ):
        metrics.match_by_iou(image, image, criterion="dice")
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 40"):
        metrics.match_by_iou(image, image, threshold=40)
    with pytest.raises(ValueError, match="threshold must be >= 0, got -1"):
        metrics.match_by_distance(image, image, threshold=-1.0)
    with pytest.raises(ValueError, match="convention must be nan or stardist"):
        metrics.object_scores(1, 1, 1, convention="zero")
    with pytest.raises(ValueError, match=r"counts must be \[images, 3\]"):
        metrics.fluocells_summary_legacy(np.zeros((2, 2)), np.zeros((2, 2)))
