"""Context: what one step knew, addressed by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from penzai import pz

from toolshed import paths
from toolshed.errors import FieldNotFilled
from toolshed.state import TrainState
from toolshed.structs import struct

# The fields in the order in which a step fills them, each with the way to have it filled.
FIELDS: dict[str, str] = {
    "step": "it is filled from the state: Context.from_state_and_batch",
    "batch": "it is filled from the batch: Context.from_state_and_batch",
    "params": "ask for it: build_train_step(…, fields=('params',))",
    "model_state": "ask for it: build_train_step(…, fields=('model_state',))",
    "opt_state": "ask for it: build_train_step(…, fields=('opt_state',))",
    "rng": "ask for it: build_train_step(…, fields=('rng',))",
    "aux": "ask for it: build_train_step(…, fields=('aux',))",
    "preds": "let the loss function return aux={'preds': …}, and ask for the field",
    "interms": "note values with toolshed.tap('name', value) or toolshed.capture(model, …), and ask for it",
    "loss_states": "ask for it: build_train_step(…, fields=('loss_states',))",
    "loss_total": "ask for it: build_train_step(…, fields=('loss_total',))",
    "grads": "ask for it: build_train_step(…, fields=('grads',))",
    "updates": "ask for it: build_train_step(…, fields=('updates',))",
    "metric_states": "give the state metrics: TrainState.initial_state(…, metrics=…)",
    "summary_states": "let the loss function return aux={'summary_states': …}, and ask for the field",
}
# What a loss function may give under these names in its aux.
FROM_AUX = ("preds", "interms", "loss_states", "summary_states")


@struct(eq=False)
class AuxState(pz.Struct):
    """The parts of a Context that are reported: each None unless it was asked for.

    Attributes:
      loss_states: the loss by name.
      metric_states: this step's metric states.
      summary_states: this step's summaries.
    """

    loss_states: Any = None
    metric_states: Any = None
    summary_states: Any = None


@jax.tree_util.register_pytree_with_keys_class
class Context:
    """What one step knew, with fields in the order in which the step fills them.

    ``params``, ``model_state`` and ``opt_state`` are the values *before* the update and ``step`` is the
    number before the increment, so that everything in a Context belongs together:
    ``optax.apply_updates(context.params, context.updates)`` is the next state's ``params``.

    A field that this step did not compute is absent. Reading it is an error that says how to ask for
    it; it is never None by default.

    Attributes:
      step: number of steps done before this one, int32[].
      batch: the batch by name.
      params, model_state, opt_state: as in `toolshed.TrainState`, before the update.
      rng: this step's key.
      aux: what the loss function returned beside the loss.
      preds: the model's output, ``aux["preds"]``.
      interms: what was tapped (`toolshed.tap`, `toolshed.capture`) and ``aux["interms"]``, by name.
      loss_states: the separate losses by name: ``aux["loss_states"]``, or ``{"loss": loss_total}``.
      loss_total: the scalar that was differentiated, float32[].
      grads: its gradients by parameter path.
      updates: what the optimiser made of them, by parameter path; added to ``params``.
      metric_states: the metric states of this batch alone.
      summary_states: summaries, ``aux["summary_states"]``.

    Example:
      ``context["loss_total"]``, ``context["batch/label"]``, and with ``*`` (within a segment) and
      ``**`` (over segments) all leaves that match: ``context["grads/mlp/**/weights"]``.

    References:
      kauldron's ``kd.train.Context``.
    """

    def __init__(self, *, step: Any, batch: Any, **fields: Any):
        _check_names(fields)
        values = {"step": step, "batch": batch, **fields}
        object.__setattr__(self, "__dict__", {name: values[name] for name in FIELDS if name in values})

    @classmethod
    def from_state_and_batch(cls, *, state: TrainState, batch: Any) -> Context:
        """The Context at the start of a step: what is known before the forward pass."""
        return cls(
            step=state.step,
            batch=batch,
            params=state.params,
            model_state=state.model_state,
            opt_state=state.opt_state,
            rng=jax.random.fold_in(state.root_rng, state.step),
        )

    @property
    def filled(self) -> tuple[str, ...]:
        """The names of the fields that this step filled, in the order of `FIELDS`."""
        return tuple(name for name in FIELDS if name in self.__dict__)

    def __getattr__(self, name: str) -> Any:
        # Python asks here only for what is not in the instance: an unfilled field, or a typo.
        if name in FIELDS:
            raise FieldNotFilled(f"This step did not fill Context.{name}; {FIELDS[name]}.")
        if name.startswith("__"):
            raise AttributeError(name)
        close = paths.nearest(name, FIELDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(FIELDS)}."
        raise AttributeError(f"Context has no field {name!r}.{hint}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("A Context does not change.")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"A Context does not change. Use context.replace({name}=…).")

    def __getitem__(self, path: str) -> Any:
        """The leaf or subtree at a path; for a path with ``*``, a dict of all leaves that match.

        Raises:
          FieldNotFilled: the path starts in a field that this step did not fill.
          ContextKeyError: nothing is there, or nothing matches; the nearest real paths are named.
        """
        field = path.split("/", 1)[0]
        if field in FIELDS and field not in self.__dict__:
            getattr(self, field)  # raises, saying how to ask for it
        return paths.find(self, path, "this Context")

    def __contains__(self, path: str) -> bool:
        """True if ``context[path]`` gives something."""
        try:
            self[path]
        except (KeyError, FieldNotFilled):
            return False
        return True

    def flatten(self) -> dict[str, Any]:
        """Every leaf of the filled fields by its path."""
        return paths.flatten(self)

    def replace(self, **fields: Any) -> Context:
        """The same Context with other values in some fields."""
        return Context(**{**self.__dict__, **fields})

    def get_aux_state(
        self, *, return_losses: bool = False, return_metrics: bool = False, return_summaries: bool = False
    ) -> AuxState:
        """The states to be reported for this step; a part that is asked for must be filled."""
        return AuxState(
            loss_states=self.loss_states if return_losses else None,
            metric_states=self.metric_states if return_metrics else None,
            summary_states=self.summary_states if return_summaries else None,
        )

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """The filled fields as jax children."""
        names = self.filled
        return [(jax.tree_util.GetAttrKey(name), self.__dict__[name]) for name in names], names

    def tree_flatten(self) -> tuple[list[Any], tuple[str, ...]]:
        """The filled fields as jax children, without their keys."""
        names = self.filled
        return [self.__dict__[name] for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Any) -> Context:
        """The inverse of `tree_flatten`."""
        return make_context(dict(zip(names, values, strict=True)))

    def __repr__(self) -> str:
        def show(name: str, value: Any) -> str:
            count = len(jax.tree.leaves(value))
            return f"{name}={paths.describe(value) if paths.is_arraylike(value) else f'<{count} leaves>'}"

        return f"Context({', '.join(show(name, self.__dict__[name]) for name in self.filled)})"


def make_context(
    fields: Mapping[str, Any], new: Callable[..., Any] = object.__new__, put: Any = object.__setattr__
) -> Context:
    """A Context of fields that are known to be right: what the step path uses."""
    context = new(Context)
    put(context, "__dict__", fields)
    return context


def _check_names(names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in FIELDS:
            close = paths.nearest(name, FIELDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(FIELDS)}."
            raise TypeError(f"Context has no field {name!r}.{hint}")
