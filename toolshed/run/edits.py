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
from toolshed.run.recording import hyperparameters_of, is_injected
from toolshed.state import TrainState


def editable(state: TrainState) -> dict[str, Any]:
    """The scalars that can be set: injected hyperparameters, and those of a dict ``loss_fn_state``."""
    found = dict(hyperparameters_of(state.opt_state))
    if isinstance(state.loss_fn_state, Mapping):
        for name, value in state.loss_fn_state.items():
            found.setdefault(name, value)
    return {name: value for name, value in found.items() if getattr(value, "shape", None) == ()}


def set_values(state: TrainState, values: Mapping[str, Any]) -> TrainState:
    """The state with other hyperparameters. Shapes and dtypes stay, so nothing is compiled again.

    Raises:
      RunError: there is none of that name, or the value is no number.
    """
    known = editable(state)
    for name, value in values.items():
        if name not in known:
            close = paths.nearest(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            there = (
                f" There are {', '.join(known)}.{hint}"
                if known
                else (
                    " Make the optimiser with optax.inject_hyperparams(optax.adam)(learning_rate=1e-3) to"
                    " have its hyperparameters at hand."
                )
            )
            raise RunError(f"There is no hyperparameter {name!r} that can be set while training.{there}")
        if isinstance(value, str) or np.ndim(value) or not np.isreal(value):
            raise RunError(f"{name} is {paths.describe(value)}; expected one number.")
    set_ones = {name: _like(known[name], value) for name, value in values.items()}
    injected = hyperparameters_of(state.opt_state)
    opt_state = _replaced(state.opt_state, {k: v for k, v in set_ones.items() if k in injected})
    loss_fn_state = state.loss_fn_state
    rest = {name: value for name, value in set_ones.items() if name not in injected}
    if rest:
        loss_fn_state = {**loss_fn_state, **rest}
    return state.replace(opt_state=opt_state, loss_fn_state=loss_fn_state)


def _like(old: jax.Array, value: Any) -> jax.Array:
    new = jnp.asarray(value, old.dtype)
    return jax.device_put(new, old.sharding) if old.committed else new


def _replaced(node: Any, values: Mapping[str, Any]) -> Any:
    """An optimiser's state with other hyperparameters wherever it keeps some of these names."""
    if not values or not isinstance(node, tuple):
        return node
    parts = [_replaced(part, values) for part in node]
    new: Any = type(node)(*parts) if hasattr(node, "_fields") else tuple(parts)
    if not is_injected(node):
        return new
    held = {name: values.get(name, old) for name, old in node.hyperparams.items()}  # type: ignore[attr-defined]
    return new._replace(hyperparams=held)


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
