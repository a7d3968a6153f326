"""Every record of every archive: answered, excused with a reason, or a failure.

A record is one stored expected array. The archives come from independent
programs; `exceptions.py` lists what is not reproduced.
"""

import importlib
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from conformance import exceptions, published
from conformance.conftest import Tally


def test_archive(vectors: Path, record_tally: Callable[[Tally], None]) -> None:
    stem = vectors.stem
    with np.load(vectors, allow_pickle=False) as file:
        archive = {key: file[key] for key in file.files}
    family = family_of(archive)
    records = records_of(family, archive)
    assert records, f"{vectors}: no record found"
    with jax.enable_x64(True):
        if family == "published":
            answers = dict(published.answers(vectors, archive))
        else:
            answers = answers_of(family, stem, archive)
        checked, skipped, failures = run(family, stem, archive, records, answers)
    name = f"{vectors.parent.name}/{vectors.name}"
    record_tally(Tally(name, len(records), checked, len(failures), skipped))
    stray = sorted(set(answers) - set(records))
    assert not stray, f"answers to records that do not exist: {stray}"
    assert not failures, f"{len(failures)} records fail:\n" + "\n".join(failures)


def test_64_bit_types_are_off_again_after_an_archive():
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("record", ["empty_gt/new_program/value", "other/dice/grad"])
def test_a_record_nobody_answers_is_a_failure(record):
    archive = {record: np.zeros(1)}
    checked, skipped, failures = run("losses", "dice", archive, [record], {})
    assert (checked, skipped) == (0, Counter())
    assert failures == [f"{record}: neither answered nor listed in exceptions.py"]


def run(
    family: str,
    stem: str,
    archive: Mapping[str, np.ndarray],
    records: list[str],
    answers: Mapping[str, Callable[[], None] | str],
) -> tuple[int, Counter, list[str]]:
    """Records checked, skipped by reason, and the messages of those that fail."""
    checked, skipped, failures = 0, Counter(), []
    for record in records:
        answer = exceptions.reason(family, stem, record, archive)
        answer = answers.get(record) if answer is None else answer
        if answer is None:
            failures.append(f"{record}: neither answered nor listed in exceptions.py")
        elif isinstance(answer, str):
            skipped[answer] += 1
        else:
            try:
                answer()
                checked += 1
            except Exception as error:  # any failure belongs to its record
                failures.append(f"{record}: {type(error).__name__}: {error}")
    return checked, skipped, failures


def family_of(archive: Mapping[str, np.ndarray]) -> str:
    """losses, metrics, ops, models, published or unknown, from the keys alone."""
    if any(key.startswith("inputs/") for key in archive):
        return "losses"
    if any(key.startswith("param/") for key in archive):
        return "models"
    meta = json.loads(str(archive["meta"])) if "meta" in archive else {}
    if "model" in meta:
        return "published"
    if "cases" not in meta:
        return "unknown"
    return "ops" if meta.get("op") in exceptions.OPERATORS else "metrics"


def records_of(family: str, archive: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the expected arrays."""
    if family == "losses":
        # `probe_weights` is the random map of a weighted sum, thus an input.
        aside = ("meta", "probe_weights", "signed_distance_int")
        return [
            key
            for key in archive
            if not key.startswith("inputs/") and key.split("/")[-1] not in aside
        ]
    if family in ("ops", "metrics"):
        return [key for key in archive if ".out_" in key]
    return [key for key in archive if key.split("/")[0] == "output"]


def answers_of(
    family: str, stem: str, archive: Mapping[str, np.ndarray]
) -> dict[str, Callable[[], None] | str]:
    """Checks and reasons of the family's module, by record."""
    if family == "unknown" or stem in exceptions.NOT_BUILT.get(family, ()):
        return {}
    module = f"conformance.{family}"
    if importlib.util.find_spec(module) is None:
        records = records_of(family, archive)
        return dict.fromkeys(records, f"not built yet: {family}")
    return dict(importlib.import_module(module).answers(stem, archive))
