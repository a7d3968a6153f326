"""Four CPU devices and one compilation cache for the whole run."""

import os
from pathlib import Path

_CACHE = Path(__file__).resolve().parent.parent / ".jax_cache"
# The environment also reaches the processes that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# Four devices on two busy cores may wait long for each other.
_WAIT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_WAIT}".strip()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture
def strict_promotion():
    """No silent mixing of dtypes or ranks: for tests of losses, metrics, ops."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
