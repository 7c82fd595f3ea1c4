"""Changes to a state in the middle of a run: a hyperparameter, or the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolshed import paths
from toolshed.errors import RunError
from toolshed.run.logged import is_number
from toolshed.run.recording import hyperparameters_of, injected_in, is_injected
from toolshed.state import TrainState


def editable(state: TrainState) -> dict[str, Any]:
    """The scalars that can be set: injected hyperparameters, and those of a dict ``loss_fn_state``.

    Not those that a schedule sets anew in each step.
    """
    scheduled = _scheduled(state.opt_state)
    found = {k: v for k, v in hyperparameters_of(state.opt_state).items() if k not in scheduled}
    if isinstance(state.loss_fn_state, Mapping):
        for name, value in state.loss_fn_state.items():
            found.setdefault(name, value)
    return {name: value for name, value in found.items() if is_number(value)}


def set_values(state: TrainState, values: Mapping[str, Any]) -> TrainState:
    """The state with other hyperparameters. Shapes and dtypes stay, so nothing is compiled again.

    Raises:
      RunError: there is none of that name, or the value is no number.
    """
    known = editable(state)
    for name, value in values.items():
        if name not in known:
            raise RunError(_not_there(name, known, state))
        _check_value(name, value, known[name].dtype)
    if not values:
        raise RunError(f"There is nothing to set. There are {', '.join(known) or 'no hyperparameters'}.")
    set_ones = {name: _like(known[name], value) for name, value in values.items()}
    injected = hyperparameters_of(state.opt_state)
    opt_state = _replaced(state.opt_state, {k: v for k, v in set_ones.items() if k in injected})
    loss_fn_state = state.loss_fn_state
    rest = {name: value for name, value in set_ones.items() if name not in injected}
    if rest:
        loss_fn_state = {**loss_fn_state, **rest}
    return state.replace(opt_state=opt_state, loss_fn_state=loss_fn_state)


def _not_there(name: str, known: Mapping[str, Any], state: TrainState) -> str:
    if name in _scheduled(state.opt_state):
        return (
            f"A schedule sets {name!r} anew in each step, so it cannot be set. Give the optimiser a number to"
            " have it at hand."
        )
    close = paths.nearest(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    there = (
        f" There are {', '.join(known)}.{hint}"
        if known
        else (
            " Make the optimiser with optax.inject_hyperparams(optax.adam)(learning_rate=1e-3) to have its"
            " hyperparameters at hand."
        )
    )
    return f"There is no hyperparameter {name!r} that can be set while training.{there}"


def _check_value(name: str, value: Any, dtype: Any) -> None:
    if not is_number(value) or (isinstance(value, (bool, np.bool_)) and dtype.kind != "b"):
        raise RunError(f"{name} is {paths.describe(value)}; expected one number.")
    if not jnp.issubdtype(dtype, jnp.floating) and not float(value).is_integer():
        raise RunError(f"{name} is to be {value}; it is of type {dtype}, so expected a whole number.")


def _like(old: jax.Array, value: Any) -> jax.Array:
    new = jnp.asarray(value, old.dtype)
    return jax.device_put(new, old.sharding) if old.committed else new


def _replaced(node: Any, values: Mapping[str, Any]) -> Any:
    """An optimiser's state with other hyperparameters wherever it keeps some of these names."""
    if not values:
        return node
    if isinstance(node, dict):
        return {name: _replaced(part, values) for name, part in node.items()}
    if not isinstance(node, (tuple, list)):
        return node
    parts = [_replaced(part, values) for part in node]
    if not is_injected(node):
        return type(node)(*parts) if hasattr(node, "_fields") else type(node)(parts)
    held = {name: values.get(name, old) for name, old in node.hyperparams.items()}
    return type(node)(*parts)._replace(hyperparams=held)


def _scheduled(opt_state: Any) -> set[str]:
    """The names of hyperparameters that a schedule sets, wherever they are."""
    nodes = [(set(node.hyperparams), set(_schedules_of(node))) for node in injected_in(opt_state)]
    by_number = {name for held, by_schedule in nodes for name in held - by_schedule}
    return {name for _, by_schedule in nodes for name in by_schedule} - by_number


def _schedules_of(node: Any) -> Mapping[str, Any]:
    return getattr(node, "hyperparams_states", {})


class ModelChange(NamedTuple):
    """What became of a state's values when its model was changed, by path.

    Attributes:
      kept: parameters and optimiser values that went over as they were.
      dropped: those that the new model has no place for.
      new: those that it brought.
    """

    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.kept)} values kept, {len(self.dropped)} dropped, {len(self.new)} new"


def change_model(state: TrainState, model: Any) -> tuple[TrainState, ModelChange]:
    """The state with another model: its optimiser values stay wherever path, shape and dtype still fit.

    Args:
      state: the state before.
      model: the changed model, with values.

    Returns:
      The new state, at the same step, and what became of the values.
    """
    fresh = TrainState.initial_state(
        model, state.optimizer_def, state.root_rng, state.loss_fn_state, state.metrics
    )
    before = _leaves(state)
    after = _leaves(fresh)
    kept = [path for path, leaf in after.items() if path in before and _fits(before[path], leaf)]
    old_values = dict(zip(*_flat(state.opt_state), strict=True))

    def carry(path: str, leaf: Any) -> Any:
        old = old_values.get(path)
        return old if old is not None and _fits(old, leaf) else leaf

    names, leaves = _flat(fresh.opt_state)
    opt_state = jax.tree.unflatten(
        jax.tree.structure(fresh.opt_state), [carry(*pair) for pair in zip(names, leaves, strict=True)]
    )
    change = ModelChange(
        tuple(kept),
        tuple(path for path in before if path not in kept),
        tuple(path for path in after if path not in kept),
    )
    return dataclasses.replace(fresh, opt_state=opt_state, step=state.step), change


def _flat(tree: Any) -> tuple[list[str], list[Any]]:
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [paths.path_string(keys) for keys, _ in pairs], [leaf for _, leaf in pairs]


def _leaves(state: TrainState) -> dict[str, Any]:
    parts = {"params": state.params, "opt_state": state.opt_state, "model_state": state.model_state}
    return {
        f"{name}/{path}": leaf
        for name, tree in parts.items()
        for path, leaf in zip(*_flat(tree), strict=True)
    }


def _fits(old: Any, new: Any) -> bool:
    return getattr(old, "shape", None) == new.shape and old.dtype == new.dtype
