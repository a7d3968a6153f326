"""The module that knows about devices."""

import jax
import numpy as np
import pytest

from fluojax.errors import UserError
from fluojax.train import parallel


def test_replicas_have_memory_of_their_own():
    # Shared memory would be written once per device by a donating step.
    aligned = np.zeros(1024, np.float32)
    placed = parallel.replicate({"x": aligned})["x"]
    places = {s.data.unsafe_buffer_pointer() for s in placed.addressable_shards}
    assert len(places) == jax.local_device_count() == 4


def test_what_is_fetched_outlives_a_donating_step():
    step = parallel.train_step(lambda state, batch: (state + batch.sum(), batch.sum()))
    state = parallel.replicate(np.float32(1))
    before = parallel.fetch(state)
    after, _ = step(state, parallel.shard({"b": np.ones(4, np.float32)})["b"])
    assert float(before) == 1
    assert float(parallel.fetch(after)) == 2
    assert state.is_deleted()


def test_a_batch_is_shared_in_order():
    shared = parallel.shard({"index": np.arange(8)})["index"]
    np.testing.assert_array_equal(shared, [[0, 1], [2, 3], [4, 5], [6, 7]])


def test_the_compiled_step_tells_its_memory():
    step = parallel.train_step(lambda state, batch: (state * 2, batch.sum()))
    state = parallel.replicate(np.ones(1000, np.float32))
    batch = parallel.shard({"b": np.ones((4, 10), np.float32)})["b"]
    compile_step = parallel.compiler(step)
    compiled, need = compile_step(state, batch)
    assert compile_step(state, batch)[0] is compiled
    # The state is donated: one copy of it, the batch, and little else.
    assert 4000 <= need < 3 * 4000
    new, _ = compiled(state, batch)
    assert float(new[0]) == 2


def test_too_much_memory_is_refused_with_a_batch_that_fits(monkeypatch):
    monkeypatch.setattr(parallel, "memory_limit", lambda: 10_000_000_000)
    parallel.check_memory(9_000_000_000, 32)
    with pytest.raises(UserError, match=r"40\.0 GB per device, 10\.0 GB are there.*"
                       r"--batch-size 8 fits.*MEM_FRACTION"):  # fmt: skip
        parallel.check_memory(40_000_000_000, 32)


@pytest.mark.parametrize(("size", "nearest"), [(6, "4, --batch-size 8"), (3, "4")])
def test_a_batch_that_devices_cannot_share_names_the_nearest(size, nearest):
    with pytest.raises(UserError, match=f"nearest: --batch-size {nearest}"):
        parallel.check_batch_size(size)
