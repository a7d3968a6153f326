"""Stored weights and outputs of reference networks."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

TESTS = Path(__file__).resolve().parent.parent


def conformance():
    path = TESTS / "conformance" / "models.py"
    spec = importlib.util.spec_from_file_location("conformance_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["unet", "resenc_unet"])
def stored(request):
    path = TESTS / "reference" / "models" / f"{request.param}.npz"
    with np.load(path, allow_pickle=False) as archive:
        yield request.param, dict(archive)


@pytest.mark.parametrize("x64", [False, True])
def test_the_stored_logits_come_back(stored, x64):
    with jax.enable_x64(x64):
        checks = dict(conformance().answers(*stored))
        assert checks
        for check in checks.values():
            check()


def test_a_changed_output_fails(stored):
    stem, archive = stored
    record = next(iter(dict(conformance().answers(stem, archive))))
    archive[record] = archive[record].copy()
    archive[record][0, 3, 4] += 2e-4 * archive[record].std()
    checks = dict(conformance().answers(stem, archive))
    with pytest.raises(AssertionError, match=f"{stem}: {record}: differs by 0.0002"):
        checks[record]()


def test_a_model_that_is_not_built_is_a_reason():
    archive = {
        "input": np.zeros((1, 32, 32, 1)),
        "output/1": np.zeros((1, 32, 32, 1)),
        "output/2": np.zeros((1, 16, 16, 1)),
        "meta": np.array('{"name": "hypernet", "config": {}}'),
    }
    found = dict(conformance().answers("hypernet", archive))
    reason = "not built yet: hypernet"
    assert found == {"output/1": reason, "output/2": reason}
