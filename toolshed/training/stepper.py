"""A state that goes on from step to step in memory of its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from toolshed.state import TrainState
from toolshed.training.packing import Packed, packing_for
from toolshed.training.step import TrainStep
from toolshed.training.tape import Tape


class Stepper:
    """Steps on from a state, donating memory from each step to the next.

    It begins with a copy, for the state that it was given is not its own to give away. Many small arrays
    are carried packed (`toolshed.training.packing`), which changes no bit of what a step computes. Belongs
    to one thread.

    Args:
      state: where to begin.
    """

    def __init__(self, state: TrainState):
        values = (state.params, state.opt_state, state.model_state)
        self._packing = packing_for(values)
        self._state = copied(state)
        self._packed: tuple[Packed, Any] | None = None
        if self._packing is not None:
            self._packed = (self._packing.pack(_values(self._state)), _rest(self._state))

    @property
    def state(self) -> TrainState:
        """The state after the last completed step. Its memory is used by the next one."""
        if self._packing is None or self._packed is None:
            return self._state
        packed, (step, loss_fn_state, metric_states) = self._packed
        params, opt_state, model_state = self._packing.unpack(packed)
        metrics = self._state.metrics
        return self._state.replace(
            step=step,
            params=params,
            opt_state=opt_state,
            model_state=model_state,
            loss_fn_state=loss_fn_state,
            metrics=None if metrics is None else metrics.with_states(metric_states),
        )

    def copy(self) -> TrainState:
        """The state after the last completed step, in memory that no step will use."""
        return copied(self.state)

    def reset_metrics(self) -> None:
        """Has the metrics begin anew."""
        metrics = self._state.metrics
        if metrics is None:
            return
        if self._packed is None:
            self._state = self._state.reset_metrics()
        else:
            packed, (step, loss_fn_state, _) = self._packed
            self._packed = (packed, (step, loss_fn_state, metrics.reset().states))

    def __call__(self, step: TrainStep, batch: Any, tape: Tape, *, anew: bool = False) -> None:
        """One call of a step that donates, with its scalars on the tape.

        Args:
          step: makes the step.
          batch: for it.
          tape: takes its scalars.
          anew: have the metrics begin anew with this step.

        Raises as the step does; the state is then the one from before, unless the device failed in it.
        """
        if not anew:
            self._make(step, batch, tape)
            return
        before = self._state, self._packed
        self.reset_metrics()
        try:
            self._make(step, batch, tape)
        except BaseException:
            self._state, self._packed = before
            raise

    def _make(self, step: TrainStep, batch: Any, tape: Tape) -> None:
        if self._packing is None or self._packed is None:
            self._state, _ = step(self._state, batch, tape)
        else:
            self._packed = step.call_packed(self._state, self._packing, self._packed, batch, tape)


def _values(state: TrainState) -> tuple[Any, Any, Any]:
    return state.params, state.opt_state, state.model_state


def _rest(state: TrainState) -> tuple[Any, Any, Any]:
    return state.step, state.loss_fn_state, None if state.metrics is None else state.metrics.states


def copied(state: TrainState) -> TrainState:
    """The state with copies of whatever a step changes; the skeleton is shared."""
    changed = {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "model_state": state.model_state,
        "loss_fn_state": state.loss_fn_state,
    }
    if state.metrics is not None:
        changed["metrics"] = state.metrics
    return state.replace(**jax.tree.map(_copy_leaf, changed))


def _copy_leaf(leaf: Any) -> Any:
    return jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf
