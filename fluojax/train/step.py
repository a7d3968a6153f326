"""The pure train and evaluation steps: no devices, no files, no clocks.

A step sees the part of the batch that lies on its device. With `axis_name`
gradients, statistics and metrics are averaged over that axis; with None the
same body runs alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fluojax import losses, ops
from fluojax.config import Term
from fluojax.data import scaling
from fluojax.data.augment import Augmentation
from fluojax.models import foreground_probability, main_output
from fluojax.train.state import TrainState
from fluojax.train.supervision import supervised

Batch = Mapping[str, jax.Array]
_DROPOUT = 0x7FFFFFFF  # a number that no position in a batch takes
LossTerms = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]


def create_loss(terms: Sequence[Term]) -> LossTerms:
    """`f(logits, labels, **context)` -> mean loss and the mean of each term.

    Names and options are looked up here, before anything is compiled.
    """
    functions = [losses.create_loss(term.name, **term.options) for term in terms]

    def value(logits, labels, **context):
        parts = {}
        total = 0.0
        for term, function in zip(terms, functions, strict=True):
            part = jnp.mean(function(logits, labels, **context))
            parts[term.name] = part
            total = total + term.weight * part
        return total, parts

    return value


def squashed_twice(loss: LossTerms) -> LossTerms:
    """`loss` of a network whose probabilities are taken for scores once more.

    The loss study's network returns (1 - p, p) and its losses apply softmax to
    them: the logit 2p - 1, a probability between 0.269 and 0.731.
    """

    def value(logits, labels, **context):
        return loss(2 * jax.nn.sigmoid(logits) - 1, labels, **context)

    return value


def pooled(loss: LossTerms) -> LossTerms:
    """`loss` of the batch as one tall image, for losses of pixels."""

    def value(logits, labels, *, where, **_):
        tall = [x.reshape(1, -1, *x.shape[2:]) for x in (logits, labels, where)]
        return loss(*tall[:2], where=tall[2])

    return value


def instance_capacity(terms: Sequence[Term]) -> int | None:
    """Instances per image that every term takes; None if no term takes any."""
    each = [losses.instance_capacity(term.name, **term.options) for term in terms]
    return min((n for n in each if n is not None), default=None)


def labels_of(
    instances: jax.Array, num_classes: int, touching_gap: int = 0
) -> jax.Array:
    """Foreground `[..., 1]`, or background and foreground `[..., 2]`, float32.

    Args:
      instances: `[B, *S]` int32.
      num_classes: 1 or 2.
      touching_gap: pixels of a cell within so many rows and columns of another
        cell count as background, so that a network can learn to leave cells
        apart that touch; 0 leaves the mask as it is.
    """
    inside = instances > 0
    if touching_gap:
        inside &= ~near_another(instances, touching_gap)
    inside = inside.astype(jnp.float32)[..., None]
    return inside if num_classes == 1 else jnp.concatenate([1 - inside, inside], -1)


def near_another(instances: jax.Array, reach: int) -> jax.Array:
    """Pixels of `[B, *S]` whose window of 2 reach + 1 holds another cell too."""
    window = (1,) + (2 * reach + 1,) * (instances.ndim - 1)
    steps = (1,) * instances.ndim
    lowest, highest = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    ids = jnp.where(instances > 0, instances, highest)
    least = jax.lax.reduce_window(ids, highest, jax.lax.min, window, steps, "SAME")
    ids = jnp.where(instances > 0, instances, lowest)
    most = jax.lax.reduce_window(ids, lowest, jax.lax.max, window, steps, "SAME")
    return (instances > 0) & (least != most)


def prepare(
    batch: Batch, key: jax.Array, kind: scaling.Scaling, augment: Augmentation | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scaled and augmented images, instances and `where` of a batch.

    Draws are keyed by the position in the global batch, so that they do not
    depend on how many devices share it.
    """
    image = scaling.apply(batch["image"], batch["scale"], kind)
    instances, where = batch["instances"], batch["where"]
    if augment is None:
        return image, instances, where
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
    return jax.vmap(augment)(keys, image, instances, where)


def make_train_step(
    model: Any,
    loss: LossTerms,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array,
    scaling_kind: scaling.Scaling,
    augment: Augmentation | None,
    num_classes: int = 1,
    touching_gap: int = 0,
    count_instances: bool = False,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """`step(state, batch) -> (state, metrics)` with metrics as 0-d arrays.

    Metrics are `loss`, `grad_norm`, `foreground` (predicted share),
    `foreground_true`, `loss/<term>` where there are several terms, and with
    `count_instances` the `most_instances` of an image of the batch.
    """

    def train_step(state: TrainState, batch: Batch):
        step_key = jax.random.fold_in(key, state.step)
        image, instances, where = prepare(batch, step_key, scaling_kind, augment)
        labels = labels_of(instances, num_classes, touching_gap)
        # Instances end where the labels say background: no loss sees both.
        instances = jnp.where(labels[..., -1] > 0, instances, 0)
        dropout = jax.random.fold_in(step_key, _DROPOUT)
        if axis_name is not None:
            dropout = jax.random.fold_in(dropout, jax.lax.axis_index(axis_name))

        def objective(params):
            outputs, changed = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                image,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": dropout},
            )
            total, parts = supervised(
                loss, outputs, labels, instances=instances, where=where[..., None]
            )
            logits = main_output(outputs)
            shares = {
                "foreground": jnp.mean(logits[..., -1] > _background(logits)),
                "foreground_true": jnp.mean(labels[..., -1]),
            }
            return total, (changed.get("batch_stats", {}), parts, shares)

        (total, aux), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        total, grads, (stats, parts, shares) = mean((total, grads, aux), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: u * state.lr_scale, updates)
        metrics = {"loss": total, "grad_norm": optax.tree.norm(grads), **shares}
        if len(parts) > 1:
            metrics |= {f"loss/{name}": part for name, part in parts.items()}
        if count_instances:
            most = jnp.max(jax.vmap(ops.count_instances)(instances))
            metrics["most_instances"] = largest(most, axis_name)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=stats,
            opt_state=opt_state,
        )
        fine = all_finite((total, metrics["grad_norm"], new.params, stats))
        first_bad = jnp.where(fine | (state.bad_step >= 0), state.bad_step, new.step)
        return new.replace(bad_step=first_bad), metrics

    return train_step


def make_eval_step(
    model: Any,
    loss: LossTerms,
    *,
    scaling_kind: scaling.Scaling,
    num_classes: int = 1,
    touching_gap: int = 0,
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
    """`step(variables, batch) -> (probs [B, *S], loss [B])`, whole images."""

    def eval_step(variables, batch: Batch):
        image = scaling.apply(batch["image"], batch["scale"], scaling_kind)
        logits = main_output(model.apply(variables, image, train=False))
        labels = labels_of(batch["instances"], num_classes, touching_gap)
        shown = jnp.where(labels[..., -1] > 0, batch["instances"], 0)

        def one(logits, labels, instances, where):
            context = {"instances": instances[None], "where": where[None, ..., None]}
            return loss(logits[None], labels[None], **context)[0]

        values = jax.vmap(one)(logits, labels, shown, batch["where"])
        return foreground_probability(logits), values

    return eval_step


def _background(logits: jax.Array) -> jax.Array | float:
    return 0.0 if logits.shape[-1] == 1 else jnp.max(logits[..., :-1], -1)


def mean(tree: Any, axis_name: str | None) -> Any:
    """Average over the devices; the tree itself where there is no axis."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def largest(value: jax.Array, axis_name: str | None) -> jax.Array:
    """Maximum over the devices; the value itself where there is no axis."""
    return value if axis_name is None else jax.lax.pmax(value, axis_name)


def all_finite(tree: Any) -> jax.Array:
    """One boolean for all floating-point leaves."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))
