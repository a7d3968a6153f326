"""Rows of metrics, and that other programs find the same numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from fluojax.bench import metric_rows, peers_metrics

NAMES = {"match_iou_100", "match_iou_1000", "average_precision_1000",
         "match_centre_100", "match_centre_1000", "surface_distance"}  # fmt: skip


def test_rows_have_their_names():
    found = {row.name for row in metric_rows.metric_rows("A")}
    assert found == {f"metric/{name}" for name in NAMES}


def test_the_prediction_hits_and_misses():
    arrays = metric_rows.scored_image("small", 10)
    true, pred = arrays["true"], arrays["pred"]
    assert len(np.unique(true)) == 11 and len(np.unique(pred)) == 10
    assert not np.array_equal(true > 0, pred > 0)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("match_iou_100", "SciPy"),
        ("match_centre_100", "scikit-image"),
        pytest.param("average_precision_1000", "SciPy", marks=pytest.mark.slow),
        pytest.param("match_centre_100", "SciPy", marks=pytest.mark.slow),
    ],
)
def test_peers_agree(name, peer):
    (row,) = (r for r in metric_rows.metric_rows("small") if r.kind == name)
    arrays = row.arrays()
    ours = np.asarray(row.function({k: jnp.asarray(v) for k, v in arrays.items()}))
    _, build = peers_metrics.METRICS[name][peer]
    assert row.agree([ours], [np.asarray(build(arrays)())])
    assert ours.max() > 0


@pytest.mark.slow
def test_the_surface_row_by_a_loop():
    (row,) = (
        r for r in metric_rows.metric_rows("small") if r.kind == "surface_distance"
    )
    arrays = row.arrays()
    ours = float(row.function({k: jnp.asarray(v) for k, v in arrays.items()}))

    def edge(mask):
        inner = np.pad(mask, 1)
        faces = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        return np.argwhere(mask & ~faces)

    one, other = edge(arrays["true"] > 0), edge(arrays["pred"] > 0)
    far = np.linalg.norm(one[:, None] - other[None], axis=-1)
    expected = max(np.percentile(far.min(axis), 95) for axis in (0, 1))
    assert ours == pytest.approx(expected, rel=1e-5)
