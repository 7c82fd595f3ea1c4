"""A state that goes on from step to step in memory of its own.

Small steps cost more to ask for than to make: a compiled program takes some 30 microseconds to call,
however little it computes. So where a state is small, several steps are made in one call, each on a batch
of its own. Larger steps gain by it, too, on a CPU: there the thread that calls takes its time from those
that compute. One program makes them, be it one step or sixteen, and so a step's bits do not depend on the
steps that it was made with. Where such a program would be slow, each step is a call of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.state import TrainState
from toolshed.state.train_state import with_fields
from toolshed.training.context import Context
from toolshed.training.packing import Packing, hold, is_on_cpu, is_on_one_device, packing_for
from toolshed.training.step import TrainStep
from toolshed.training.tape import Tape

_AT_ONCE = 16  # steps in a call
_LONGEST_CALL = 0.1  # seconds of steps in a call: whoever looks or stops them hardly sees that they wait
_SMALL_STATE = 2**18  # bytes that a step changes
_SMALL_ON_CPU = 2**24  # bytes, likewise, where calling and computing share the processor
_SMALL_BATCH = 2**16  # bytes: more take longer to copy than to step on


class Stepper:
    """Steps on from a state, donating memory from each step to the next.

    It begins with a copy, for the state that it was given is not its own to give away. Many small arrays
    are carried packed (`toolshed.training.packing`), which changes no bit of what a step computes. Belongs
    to one thread.

    Args:
      state: where to begin.

    Attributes:
      most: how many steps one call makes at the most. The first call may find that it is one.
    """

    def __init__(self, state: TrainState):
        values = (state.params, state.opt_state, state.model_state)
        self._packing = packing_for(values)
        self.most = 1
        size = _bytes_of(values)
        self._is_small = size <= _SMALL_STATE
        if size <= (_SMALL_ON_CPU if is_on_cpu(values) else _SMALL_STATE) and is_on_one_device(values):
            self.most = _AT_ONCE
            self._packing = self._packing or Packing(values, together=1)
        state = copied(state)
        self._state = state if self._packing is None else hold(state, self._packing)

    @property
    def may_hand_out(self) -> bool:
        """Whether a program that hands fields out is worth its compilation.

        Small steps are computed again in no time, and for many small arrays it takes long to compile one.
        """
        return not self._is_small and (self._packing is None or not self._packing.stacks)

    @property
    def state(self) -> TrainState:
        """The state after the last completed step. Its memory is used by the next one."""
        return self._state

    def copy(self) -> TrainState:
        """The state after the last completed step, in memory that no step will use."""
        return copied(self.state)

    def reset_metrics(self) -> None:
        """Has the metrics begin anew."""
        self._state = self._state.reset_metrics()

    def __call__(self, step: TrainStep, batches: Sequence[Any], tape: Tape, *, anew: bool = False) -> Context:
        """Calls of a step that donates, one for each batch, with its scalars on the tape.

        Args:
          step: makes the step.
          batches: at least one, at most `most`, all of one `kind_of`.
          tape: takes the scalars.
          anew: have the metrics begin anew with the first of these steps.

        Returns:
          The fields that the step was built to hand out, of the last of these steps.

        Raises as the step does; the state is then the one from before, unless the device failed in it.
        """
        if not anew:
            return self._make(step, batches, tape)
        before = self._state
        self.reset_metrics()
        try:
            return self._make(step, batches, tape)
        except BaseException:
            self._state = before
            raise

    def _make(self, step: TrainStep, batches: Sequence[Any], tape: Tape) -> Context:
        if self._packing is not None:
            count, some = len(batches), tuple(batches)
            if self.most > 1 and kind_of(some[0]) is not None:
                some += (some[-1],) * (self.most - count)  # what fills up is not looked at
            made = step.call_together(self._state, some, count, tape)
            if made is not None:
                self._state, context = made
                return context
            self._packing, self.most = None, 1
            self._state = with_fields(self._state.attributes_dict())
        first, *others = batches
        self._state, context = step(self._state, first, tape)
        for batch in others:
            self._state, context = step(self._state, batch, tape)
        return context


def kind_of(batch: Any) -> Hashable:
    """What batches have in common that can be stepped on in one call; None for one that has to be alone."""
    leaves, structure = jax.tree.flatten(batch)
    if (
        not all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
        or _bytes_of(leaves) > _SMALL_BATCH
    ):
        return None
    return structure, *((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)


def at_once(most: int, steps: int, seconds: float) -> int:
    """How many steps to make in a call, by how long some took.

    Args:
      most: no more than these.
      steps: that were made.
      seconds: that they took.
    """
    return max(1, min(most, int(steps / max(seconds, 1e-9) * _LONGEST_CALL)))


def _bytes_of(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


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
