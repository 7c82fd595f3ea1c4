"""What a run records of each step, on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.paths import flatten
from toolshed.state import TrainState
from toolshed.training import Scalar
from toolshed.training.tape import Rows


class Recording(NamedTuple):
    """The columns of a run's tape.

    Attributes:
      scalars: what is recorded, one a column; the loss comes first.
      names: what the columns are called in the history.
      every: in which steps a column has a value: those whose number divides by it.
    """

    scalars: tuple[Scalar, ...]
    names: tuple[str, ...]
    every: tuple[int, ...]

    def columns(self, rows: Rows) -> list[tuple[str, Any, Any]]:
        """The rows as ``(name, steps, values)`` of each column, steps counted as steps done."""
        columns = []
        for name, every, values in zip(self.names, self.every, rows.values.T, strict=True):
            has = rows.steps % every == 0
            columns.append((name, rows.steps[has].astype(np.int64) + 1, values[has]))
        return columns


def recording_for(state: TrainState, *, norms_every: int) -> Recording:
    """What is recorded of states like this one: loss, learning rate, norms of gradients and updates.

    Args:
      state: tells whether the learning rate can be read.
      norms_every: in every how many steps the norms are computed, for they read every gradient; 0 for
        never.
    """
    columns: list[tuple[str, Callable[..., Any], int]] = [("train/loss", _loss, 1)]
    rate = hyperparameters_of(state.opt_state).get("learning_rate")
    if getattr(rate, "shape", None) == ():
        columns.append(("optim/learning_rate", _learning_rate, 1))
    if norms_every:
        columns += [
            ("optim/grad_norm", _norm("grads", norms_every), norms_every),
            ("optim/update_norm", _norm("updates", norms_every), norms_every),
        ]
    names, functions, every = zip(*columns, strict=True)
    return Recording(tuple(map(Scalar, names, functions)), names, every)


def hyperparameters_of(opt_state: Any) -> dict[str, jax.Array]:
    """The arrays that `optax.inject_hyperparams` keeps in an optimiser's state, by name.

    Where two transformations have one of the same name, it is that of the first.
    """
    found: dict[str, jax.Array] = {}
    nodes = [opt_state]
    while nodes:
        node = nodes.pop(0)
        if is_injected(node):
            for name, value in node.hyperparams.items():
                found.setdefault(name, value)
        if isinstance(node, tuple):
            nodes.extend(node)
    return found


def is_injected(node: Any) -> bool:
    """Whether this is the state of `optax.inject_hyperparams`."""
    return isinstance(node, tuple) and isinstance(getattr(node, "hyperparams", None), dict)


def _loss(context: Any, opt_state: Any) -> Any:
    del opt_state
    return context.loss_total


def _learning_rate(context: Any, opt_state: Any) -> Any:
    """The one that the step used: a schedule writes it during the update."""
    del context
    return hyperparameters_of(opt_state)["learning_rate"]


@functools.cache  # the same function each time, so that a step that records it is compiled once
def _norm(field: str, every: int) -> Callable[[Any, Any], Any]:
    """The Euclidean norm over all leaves, in some steps; NaN, and nothing computed, in the others."""

    def norm(context: Any, opt_state: Any) -> Any:
        del opt_state
        leaves = list(flatten(getattr(context, field)).values())

        def compute() -> jax.Array:
            squares = [jnp.sum(jnp.square(jnp.abs(leaf).astype(jnp.float32))) for leaf in leaves]
            return jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))

        if every == 1:
            return compute()
        return jax.lax.cond(context.step % every == 0, compute, lambda: jnp.float32(jnp.nan))

    return norm
