"""Who still pulls where nothing is predicted: the collapse of the loss study.

Two of five runs with the study's focal Tversky program, which computes
`power_mae_loss`, ended in the empty prediction.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fluojax import losses

# A disc of 21 pixels in 64 x 64, half a percent.
Y, X = np.mgrid[:64, :64]
CELL = jnp.asarray(np.hypot(Y - 30, X - 20) <= 2.53, jnp.float32)[None, ..., None]


def pull(name, logit):
    """Norm of the gradient on the cell, at the same logit everywhere."""
    loss = losses.create_loss(name)
    slope = jax.grad(lambda z: loss(z, CELL).sum())(jnp.full(CELL.shape, logit))
    return float(jnp.linalg.norm(jnp.where(CELL > 0, slope, 0.0)))


def test_the_cell_is_half_a_percent():
    assert float(CELL.mean()) == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("logit", [-6.0, -9.0])
def test_at_the_empty_prediction_the_power_of_the_mean_error_has_let_go(logit):
    let_go = pull("power_mae_loss", logit)
    for name in ("focal_tversky_loss", "dice_loss", "cross_entropy_loss"):
        assert pull(name, logit) > 500 * let_go, name


def test_cross_entropy_alone_keeps_its_pull_however_empty_the_prediction():
    kept = [pull("cross_entropy_loss", z) / pull("cross_entropy_loss", -4.0)
            for z in (-9.0, -20.0)]  # fmt: skip
    assert min(kept) > 0.99
    for name in ("power_mae_loss", "focal_tversky_loss", "dice_loss"):
        assert pull(name, -20.0) < 1e-4 * pull(name, -4.0), name


def test_from_the_start_its_gradient_is_that_of_the_background():
    def shares(name):
        loss = losses.create_loss(name)
        slope = jax.grad(lambda z: loss(z, CELL).sum())(jnp.zeros(CELL.shape))
        inside = jnp.where(CELL > 0, slope, 0.0)
        return float(jnp.linalg.norm(inside) / jnp.linalg.norm(slope))

    assert shares("power_mae_loss") < 0.1
    assert shares("focal_tversky_loss") > 0.9
