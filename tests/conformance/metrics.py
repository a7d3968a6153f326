"""Answers to archives of metrics: `<case>.in_*` against `<case>.out_*`.

The archive's `meta` names the operation; cases and parameters come from it, so
that any vectors of the same format can be run. Where an arbiter has a
convention of its own for 0/0, the option of ours that names it is used, and
where it has none the record is skipped with the rule that ours follows.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from conformance import metrics_maps

from fluojax import metrics

Check = Callable[[], None]
Answer = Check | str
# Arbiters that take the smallest label for the background.
_LOSES_AN_OBJECT = ("aji_pq", "cellpose_metrics", "ctc_seg_det", "fluocells_objects")
_EMPTY = "the arbiter's own value for maps without objects; ours is NaN"


class Case(NamedTuple):
    """One case of an archive."""

    archive: Mapping[str, np.ndarray]
    name: str
    params: dict[str, Any]
    tol: float

    def input(self, name: str) -> np.ndarray:
        return self.archive[f"{self.name}.in_{name}"]

    def has(self, name: str) -> bool:
        return f"{self.name}.in_{name}" in self.archive

    def expected(self, name: str) -> np.ndarray:
        return self.archive[f"{self.name}.out_{name}"]

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        return self.input("true"), self.input("pred")


def answers(
    stem: str, archive: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, Answer]]:
    """(record, check that raises AssertionError) or (record, why it is skipped).

    Records that no function answers are left out.
    """
    meta = json.loads(str(archive["meta"]))
    op = meta.get("op", stem)
    for entry in meta["cases"]:
        tol = entry.get("tol", 1e-6)
        case = Case(archive, entry["name"], entry.get("params") or {}, tol)
        prefix = f"{case.name}.out_"
        for record in sorted(key for key in archive if key.startswith(prefix)):
            answer = _answer(op, case, record.removeprefix(prefix))
            if answer is not None:
                yield record, answer


def _answer(op: str, case: Case, output: str) -> Answer | None:
    if output.endswith("_error") and case.expected(output).dtype.kind == "U":
        return "the arbiter raised an error"
    loses = op in _LOSES_AN_OBJECT and output != "monai_pq"
    if case.params.get("no_background") and loses:
        return "the arbiter takes the smallest label for the background"
    return _FAMILIES[op](case, output) if op in _FAMILIES else None


def _pixel_metrics(case: Case, output: str) -> Answer:
    name, empty = output.removesuffix("_zd1"), float(output.endswith("_zd1"))
    true, pred = case.maps()
    labels = case.params.get("labels")
    classes = {} if labels is None else {"num_classes": len(labels)}
    simple = {"confusion", "accuracy", "balanced_accuracy"}
    if name in simple:
        function = getattr(metrics, name)
        return lambda: _same(
            function(true, pred, **classes), case.expected(output), case
        )
    if name in ("precision", "recall", "f1", "iou", "specificity", "mcc"):
        function = metrics.dice if name == "f1" else getattr(metrics, name)
        return lambda: _same(
            function(true, pred, empty_value=empty), case.expected(output), case
        )

    def check() -> None:
        actual = _class_average(true, pred, name, empty, classes)
        _same(actual, case.expected(output), case)

    return check


def _class_average(
    true: np.ndarray, pred: np.ndarray, name: str, empty: float, classes: dict[str, int]
) -> Any:
    """`macro_f1` and so on; averages without a function from the table of classes."""
    if name == "macro_f1":
        return metrics.macro_f1(true, pred, empty_value=empty, **classes)
    if name in ("micro_f1", "weighted_f1"):
        return getattr(metrics, name)(true, pred, **classes)
    scores = metrics.per_class(true, pred, empty_value=empty, **classes)
    kind, score = name.rsplit("_", 1)
    if kind == "per_class":
        return getattr(scores, score)
    if kind == "macro":
        return np.mean(getattr(scores, score))
    if kind == "weighted":
        return np.average(getattr(scores, score), weights=scores.support)
    right = metrics.micro_f1(true, pred, **classes)
    assert kind == "micro", name
    return right / (2.0 - right) if score == "iou" else right


def _fluocells_objects(case: Case, output: str) -> Answer:
    if output.startswith("summary_"):
        by = {"iou": "iou", "prox": "distance"}[output.removeprefix("summary_")]
        table = case.input("table")

        def check() -> None:
            summary = metrics.fluocells_summary_legacy(
                table[:, :3], table[:, 3:], by=by
            )
            _same(np.array(summary), case.expected(output), case)

        return check
    if output.startswith("count_true"):
        counts = case.input("n_true"), case.input("n_pred")
        functions = (metrics.mae, metrics.medae, metrics.mpe)
        return lambda: _same(
            np.array([function(*counts) for function in functions]),
            case.expected(output),
            case,
        )
    kind, threshold = output.rsplit("_", 1)
    if kind == "iou":
        options = {"threshold": float(threshold), "strict": True}
        match = metrics.match_by_iou
    else:
        options = {"threshold": float(threshold)}
        match = metrics.match_by_distance

    def check() -> None:
        true, pred = case.maps()
        bound = _bound(true, pred)
        counts = match(true, pred, rule="many_to_one", max_instances=bound, **options)
        _same(np.array(counts[:3]), case.expected(output), case)

    return check


def _stardist_matching(case: Case, output: str) -> Answer:
    if output in ("pairs", "scores", "tps"):
        return lambda: _matched_pairs(case, output)
    criterion, field = "iou", output
    if case.input("true").ndim > 0 and output.split("_")[0] in ("iou", "iot", "iop"):
        criterion, field = output.split("_", 1)
    data_set = "by_image" in case.params

    def check() -> None:
        true, pred = case.maps()
        images = zip(true, pred, strict=True) if data_set else [(true, pred)]
        counts = [_stardist_counts(*image, criterion, case) for image in images]
        if data_set and case.params["by_image"]:
            actual = _mean_over_images(counts, field)
        else:
            total = {key: sum(count[key] for count in counts) for key in counts[0]}
            actual = _stardist_field(total, field)
        actual = np.broadcast_to(actual, case.expected(output).shape)
        _same(actual, case.expected(output), case)

    return check


def _stardist_counts(
    true: np.ndarray, pred: np.ndarray, criterion: str, case: Case
) -> dict[str, np.ndarray]:
    match = metrics.match_by_iou(
        true,
        pred,
        threshold=case.params["thresholds"],
        criterion=criterion,
        max_instances=_bound(true, pred),
    )
    names = ("tp", "fp", "fn", "n_true", "n_pred", "score_sum")
    return {name: np.asarray(getattr(match, name)) for name in names}


def _stardist_field(counts: dict[str, np.ndarray], field: str) -> np.ndarray:
    if field in counts:
        return counts[field]
    scores = metrics.object_scores(
        counts["tp"],
        counts["fp"],
        counts["fn"],
        score_sum=counts["score_sum"],
        convention="stardist",
    )
    return np.asarray(getattr(scores, field))


def _mean_over_images(counts: list[dict[str, np.ndarray]], field: str) -> np.ndarray:
    """Counts are summed and scores averaged."""
    values = np.array([_stardist_field(count, field) for count in counts])
    return values.sum(axis=0) if field in counts[0] else values.mean(axis=0)


def _matched_pairs(case: Case, output: str) -> None:
    """The pairs at the threshold of 0.5; the arbiter lists others, of any score."""
    true, pred = case.maps()
    match = metrics.match_by_iou(true, pred, max_instances=_bound(true, pred))
    hit = np.asarray(match.match) != 0
    if output == "tps":
        assert case.expected("tps").size == hit.sum(), (case.expected("tps"), hit.sum())
        return
    chosen = case.expected("tps").astype(int)
    if output == "pairs":
        ours = np.stack([match.true_ids, match.match], axis=1)[hit]
        assert sorted(ours.tolist()) == sorted(case.expected("pairs")[chosen].tolist())
    else:
        _same(match.score_sum, case.expected("scores")[chosen].sum(), case)


def _cellpose_metrics(case: Case, output: str) -> Answer:
    if output == "aji" or output.startswith("b_"):
        return "cellpose's own definition (reference README, exceptions)"
    true, pred = case.maps()
    bound = _bound(true, pred)
    if output in ("iou", "preds"):
        return lambda: _cellpose_pairs(case, output)

    def check() -> None:
        thresholds = tuple(case.params["thresholds"])
        if output == "ap":
            actual = metrics.average_precision(
                true, pred, thresholds=thresholds, max_instances=bound
            )
        else:
            match = metrics.match_by_iou(
                true, pred, threshold=thresholds, max_instances=bound
            )
            actual = getattr(match, output)
        _same(actual, case.expected(output), case)

    return check


def _cellpose_pairs(case: Case, output: str) -> None:
    """Partners of an IoU of at least 0.5; the arbiter lists weaker ones too."""
    true, pred = case.maps()
    match = metrics.match_by_iou(true, pred, max_instances=_bound(true, pred))
    hit = np.asarray(match.match) != 0
    rows = np.asarray(match.true_ids)[hit] - 1
    iou = case.expected("iou")
    assert sorted(rows.tolist()) == np.flatnonzero(iou >= 0.5).tolist()
    if output == "preds":
        assert np.array_equal(
            case.expected("preds")[rows], np.asarray(match.match)[hit]
        )
    else:
        _same(match.score_sum, iou[rows].sum(), case)


def _aji_pq(case: Case, output: str) -> Answer:
    true, pred = case.maps()
    bound = {"max_instances": _bound(true, pred)}
    if not np.any(true) and not np.any(pred) and output != "monai_pq":
        return _EMPTY
    functions = {
        "aji": metrics.aggregated_jaccard,
        "aji_plus": lambda *a, **k: metrics.aggregated_jaccard(*a, plus=True, **k),
        "dice2": metrics.ensemble_dice,
    }

    def check() -> None:
        if output in functions:
            actual = functions[output](true, pred, **bound)
        else:
            kind, threshold = output.rsplit("_", 1)
            monai = output == "monai_pq"
            options = {} if monai else {"threshold": float(threshold)}
            score = metrics.panoptic_quality(true, pred, **options, **bound)
            fields = ("dq", "sq", "pq") if kind == "pq" else ("tp", "fp", "fn")
            fields = ("tp", "fp", "fn", "iou_sum") if monai else fields
            actual = np.array([getattr(score, field) for field in fields])
        _same(actual, case.expected(output), case)

    return check


def _ctc_seg_det(case: Case, output: str) -> Answer:
    if not case.has("true"):
        return lambda: _ctc_sequence(case, output)
    true, pred = case.maps()
    if not np.any(true) and output == "seg" and not np.any(pred):
        return _EMPTY

    def check() -> None:
        bound = _bound(true, pred)
        if output in ("det", "counts"):
            det = metrics.det_score(true, pred, max_instances=bound)
            actual = np.array(det[1:]) if output == "counts" else det.det
            _same(actual, case.expected(output), case)
            return
        seg = metrics.seg_score(true, pred, max_instances=bound)
        if output == "seg":
            _same(seg.seg, case.expected("seg"), case)
            return
        hit = np.asarray(seg.match) != 0
        pairs = np.stack([seg.true_ids, seg.match])
        actual = pairs[:, hit] if output == "match" else np.asarray(seg.iou)[hit]
        _same(actual, case.expected(output), case)

    return check


def _ctc_sequence(case: Case, output: str) -> None:
    """A sequence pools the frames of the cases named in its parameters."""
    frames = [case._replace(name=name).maps() for name in case.params["cases"]]
    # Frames without background as the arbiter sees them: without an object.
    frames = [[np.where(m == m.min(), 0, m) for m in frame] for frame in frames]
    bounded = [(true, pred, _bound(true, pred)) for true, pred in frames]
    seg = [metrics.seg_score(t, p, max_instances=n) for t, p, n in bounded]
    det = [metrics.det_score(t, p, max_instances=n) for t, p, n in bounded]
    counts = np.sum([[d.splits, d.fn, d.fp, d.n_true] for d in det], axis=0)
    splits, missed, invented, n_true = (float(count) for count in counts)
    anew = 10.0 * n_true
    values = {
        "counts": counts,
        "seg": sum(float(s.iou_sum) for s in seg) / n_true,
        "det": 1.0 - min(5.0 * splits + 10.0 * missed + invented, anew) / anew,
    }
    _same(values[output], case.expected(output), case)


def _counting(case: Case, output: str) -> Answer | None:
    functions = {"mpe_slides": metrics.mpe, "mpe_code": metrics.mpe_fluocells}
    function = functions.get(output) or getattr(metrics, output, None)
    if function is None:
        return None
    counts = case.input("n_true"), case.input("n_pred")
    return lambda: _same(function(*counts), case.expected(output), case)


def _bound(true: np.ndarray, pred: np.ndarray) -> int:
    """A power of two that holds all objects, so that few programs are compiled."""
    most = max(len(np.unique(true)), len(np.unique(pred)))
    return max(32, 1 << (most - 1).bit_length())


def _same(actual: Any, expected: np.ndarray, case: Case) -> None:
    np.testing.assert_allclose(
        np.asarray(actual), expected, rtol=case.tol, atol=case.tol, equal_nan=True
    )


_FAMILIES = {
    "aji_pq": _aji_pq,
    "cellpose_metrics": _cellpose_metrics,
    "counting": _counting,
    "ctc_seg_det": _ctc_seg_det,
    "fluocells_objects": _fluocells_objects,
    "pixel_metrics": _pixel_metrics,
    "stardist_matching": _stardist_matching,
    **metrics_maps.FAMILIES,
}
