"""Four CPU devices and one compilation cache for the whole run."""

import gc
import itertools
import os
from pathlib import Path

_CACHE = Path(__file__).resolve().parent.parent / ".jax_cache"
# The environment also reaches the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
# Tracing makes and drops many small objects; a rarer collection saves a fifth of it.
gc.set_threshold(200_000, 20, 50)


_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def _few_programs():
    """Each compiled program holds memory maps, of which Linux gives 65,530."""
    yield
    if next(_tests) % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def strict_promotion():
    """No silent mixing of dtypes or ranks: for tests of losses, metrics, ops."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
