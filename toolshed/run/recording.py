"""What a run records of each step, on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
import optax

from toolshed.paths import flatten
from toolshed.run.timeline import size_of
from toolshed.state import TrainState
from toolshed.training import Scalar
from toolshed.training.tape import Rows

_SMALL = 2**18  # bytes that a step changes


class Recording(NamedTuple):
    """The columns of a run's tape.

    Attributes:
      scalars: what is recorded, one a column; the loss comes first.
      between: the same without the norms, for the steps that have none, where that is a program of its
        own. A small program runs much faster without the branch that would leave them out; a large one
        would only be compiled twice.
      names: what the columns are called in the history.
      every: in which steps a column has a value: those whose number divides by it.
      norms_every: in every how many steps norms are computed; 1 where they are not.
    """

    scalars: tuple[Scalar, ...]
    between: tuple[Scalar, ...]
    names: tuple[str, ...]
    every: tuple[int, ...]
    norms_every: int

    def columns(self, rows: Rows) -> list[tuple[str, Any, Any]]:
        """The rows as ``(name, steps, values)`` of each column, steps counted as steps done."""
        columns = []
        for name, every, values in zip(self.names, self.every, rows.values.T, strict=True):
            has = rows.steps % every == 0
            columns.append((name, rows.steps[has].astype(np.int64) + 1, values[has]))
        return columns


def recording_for(state: TrainState, *, norms_every: int | None) -> Recording:
    """What is recorded of states like this one: loss, learning rate, norms of gradients and updates.

    Args:
      state: tells whether the learning rate can be read.
      norms_every: in every how many steps the norms are computed, for they read every gradient; 0 for
        never, None for 50 where the program is small, and so the steps are fast, or else 10.
    """
    columns: list[tuple[str, Callable[..., Any], int]] = [("train/loss", _loss, 1)]
    rate = hyperparameters_of(state.opt_state).get("learning_rate")
    if getattr(rate, "shape", None) == ():
        columns.append(("optim/learning_rate", _learning_rate, 1))
    between = [Scalar(name, of) for name, of, _ in columns]
    apart = size_of(state) <= _SMALL
    if norms_every is None:
        norms_every = 50 if apart else 10
    if norms_every:
        for name, field in (("optim/grad_norm", "grads"), ("optim/update_norm", "updates")):
            columns.append((name, _norm(field, 1 if apart else norms_every), norms_every))
            between.append(Scalar(name, _absent if apart else columns[-1][1]))
    names, functions, every = zip(*columns, strict=True)
    return Recording(tuple(map(Scalar, names, functions)), tuple(between), names, every, norms_every or 1)


def hyperparameters_of(opt_state: Any) -> dict[str, jax.Array]:
    """The arrays that `optax.inject_hyperparams` keeps in an optimiser's state, by name.

    Where two transformations have one of the same name, it is that of the first.
    """
    found: dict[str, jax.Array] = {}
    for node in injected_in(opt_state):
        for name, value in node.hyperparams.items():
            found.setdefault(name, value)
    return found


def injected_in(opt_state: Any) -> list[Any]:
    """The states of `optax.inject_hyperparams` in an optimiser's state, outer ones first."""
    found, nodes = [], [opt_state]
    while nodes:
        node = nodes.pop(0)
        if is_injected(node):
            found.append(node)
        if isinstance(node, (tuple, list)):
            nodes.extend(node)
        elif isinstance(node, dict):
            nodes.extend(node.values())
    return found


def is_injected(node: Any) -> TypeGuard[optax.InjectStatefulHyperparamsState]:
    """Whether this is the state of `optax.inject_hyperparams`."""
    return isinstance(node, tuple) and isinstance(getattr(node, "hyperparams", None), dict)


def _absent(context: Any, opt_state: Any) -> Any:
    del context, opt_state
    return jnp.float32(jnp.nan)


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
