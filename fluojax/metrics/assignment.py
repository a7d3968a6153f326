"""Exact assignment of rows to columns, with fixed shapes and no host.

Shortest augmenting paths: rows are added one at a time, each by Dijkstra's
algorithm on reduced costs, as in Jonker and Volgenant, Computing 1987, and
Crouse, IEEE Trans. Aerosp. Electron. Syst. 2016. One turn of the inner loop
costs O(columns); there are at most rows x rows of them, about one per row
where rows do not compete.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike


class _Partial(NamedTuple):
    """Assignment of the rows done so far, and the dual variables that prove it."""

    pending: jax.Array  # [R] rows still to be assigned
    column_of: jax.Array  # [R], -1 without
    row_of: jax.Array  # [C], -1 without
    row_dual: jax.Array  # [R]
    column_dual: jax.Array  # [C]


class _Path(NamedTuple):
    """Dijkstra's state: shortest reduced costs from one row to the columns."""

    cost: jax.Array  # [C]
    via: jax.Array  # [C] row from which the column was reached
    done: jax.Array  # [C] columns whose cost is final
    row: jax.Array  # the row to expand next
    length: jax.Array  # cost of the path to that row
    end: jax.Array  # the free column found, -1 before


@jax.jit
def minimum_assignment(cost: ArrayLike, *, rows: ArrayLike | None = None) -> jax.Array:
    """Column of each row, so that the sum of the costs is as small as possible.

    min(R, C) rows are assigned, each to a column of its own. With `rows`, only
    those marked are. Of several optima any one is returned.

    Args:
      cost: `[R, C]` finite costs of any sign, float32 or float64.
      rows: `[R]` bool; needs R <= C.

    Returns:
      `[R]` int32, -1 for rows without a column.

    Raises:
      ValueError: `cost` is no matrix, or `rows` is given with R > C.
    """
    cost = jnp.asarray(cost)
    if cost.ndim != 2 or (rows is not None and cost.shape[0] > cost.shape[1]):
        raise ValueError(
            "minimum_assignment: cost must be [rows, columns], with a selection of "
            f"rows at least as many columns, got {cost.shape}"
        )
    if cost.shape[0] > cost.shape[1]:
        row_of = minimum_assignment(cost.T)
        column = jnp.arange(cost.shape[1], dtype=jnp.int32)
        return jnp.full(cost.shape[0], -1, jnp.int32).at[row_of].set(column)
    pending = jnp.ones(cost.shape[0], bool) if rows is None else jnp.asarray(rows)
    start = _Partial(
        pending=pending,
        column_of=jnp.full(cost.shape[0], -1, jnp.int32),
        row_of=jnp.full(cost.shape[1], -1, jnp.int32),
        row_dual=jnp.zeros_like(cost, shape=cost.shape[:1]),
        column_dual=jnp.zeros_like(cost, shape=cost.shape[1:]),
    )
    done = lax.while_loop(
        lambda state: jnp.any(state.pending), lambda state: _add_row(cost, state), start
    )
    return done.column_of


def _add_row(cost: jax.Array, state: _Partial) -> _Partial:
    """Assigns one more row along the shortest alternating path."""
    start = jnp.argmax(state.pending).astype(jnp.int32)
    path = _shortest_path(cost, state, start)
    slack = jnp.where(path.done, path.length - path.cost, 0)
    # The rows in the tree are the start and the partners of the final columns.
    partner = jnp.where(path.done, state.row_of, -1)
    partner = jnp.where(partner < 0, cost.shape[0], partner)
    row_dual = state.row_dual.at[partner].add(slack, mode="drop")
    column_of, row_of = _flip(state, path, start)
    return _Partial(
        pending=state.pending.at[start].set(False),
        column_of=column_of,
        row_of=row_of,
        row_dual=row_dual.at[start].add(path.length),
        column_dual=state.column_dual - slack,
    )


def _shortest_path(cost: jax.Array, state: _Partial, start: jax.Array) -> _Path:
    def expand(path: _Path) -> _Path:
        reduced = path.length + cost[path.row] - state.row_dual[path.row]
        reduced = reduced - state.column_dual
        better = ~path.done & (reduced < path.cost)
        best = jnp.where(better, reduced, path.cost)
        via = jnp.where(better, path.row, path.via)
        open_cost = jnp.where(path.done, jnp.inf, best)
        nearest = ~path.done & (open_cost == jnp.min(open_cost))
        # Among columns at one distance a free one ends the search.
        free = state.row_of < 0
        preference = nearest.astype(jnp.int32) * (1 + free.astype(jnp.int32))
        column = jnp.argmax(preference).astype(jnp.int32)
        return _Path(
            cost=best,
            via=via,
            done=path.done.at[column].set(True),
            row=state.row_of[column],
            length=best[column],
            end=jnp.where(free[column], column, -1),
        )

    columns = cost.shape[1]
    nowhere = _Path(
        cost=jnp.full_like(cost, jnp.inf, shape=(columns,)),
        via=jnp.full(columns, -1, jnp.int32),
        done=jnp.zeros(columns, bool),
        row=start,
        length=jnp.zeros_like(cost, shape=()),
        end=jnp.full((), -1, jnp.int32),
    )
    return lax.while_loop(lambda path: path.end < 0, expand, nowhere)


def _flip(
    state: _Partial, path: _Path, start: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Exchanges assigned and free edges along the path, from its end back."""

    def back(carry):
        column, column_of, row_of = carry
        row = path.via[column]
        before = jnp.where(row == start, -1, column_of[row])
        return before, column_of.at[row].set(column), row_of.at[column].set(row)

    carry = (path.end, state.column_of, state.row_of)
    return lax.while_loop(lambda carry: carry[0] >= 0, back, carry)[1:]


@jax.jit
def one_to_one(cost: jax.Array, positive: jax.Array, wanted: jax.Array) -> jax.Array:
    """Column of each row of a square table, solved only where rows compete.

    If no row and no column has two `wanted` pairs these pairs are the answer,
    and no search takes place. Otherwise rows that are alone with their partner
    keep it, and the others are assigned at the smallest cost. The column of a
    row without a wanted pair is arbitrary.

    Args:
      cost: `[N, N]`, 0 where not `positive`, else negative.
      positive: bool `[N, N]`, pairs that have a score.
      wanted: bool `[N, N]`, pairs that may become matches, all positive.
    """
    per_row, per_column = jnp.sum(wanted, axis=1), jnp.sum(wanted, axis=0)
    contested = jnp.any(per_row > 1) | jnp.any(per_column > 1)
    shared_column = jnp.sum(positive, axis=0) > 1
    competes = jnp.sum(positive, axis=1) > 1
    competes |= jnp.any(positive & shared_column[None], axis=1)
    rows = competes & contested
    solved = minimum_assignment(cost, rows=rows)
    return jnp.where(rows, solved, jnp.argmax(wanted, axis=1).astype(jnp.int32))
