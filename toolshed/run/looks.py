"""What looks at the steps of a run while they are made, and how it comes by what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.errors import RunError
from toolshed.keys import raw_key
from toolshed.run.events import one_line
from toolshed.run.leaf_history import LeafHistory
from toolshed.run.programs import Programs
from toolshed.run.publisher import Publisher
from toolshed.run.watch import LeafWatch
from toolshed.state import TrainState
from toolshed.training import TrainStep
from toolshed.training.stepper import Stepper
from toolshed.training.tape import Tape

# Fields of the Context that a step computes. It has the others before it begins, and gives them away.
_COMPUTED = frozenset(("grads", "updates", "aux", "interms", "preds", "loss_states"))


class Looks:
    """The watches of a run. Belongs to the run's thread.

    A step hands out what it computes itself, where that changes no bit of the next state, which is found
    out by trying. Elsewhere it is computed again beside the step, for one more pass forward and back.

    Args:
      programs: make the steps.
      publisher: writes down what is seen.
      tell: says something to whoever looks at the run.

    Attributes:
      watches: by pattern. Never changed, only replaced, so that any thread can read it.
    """

    def __init__(self, programs: Programs, publisher: Publisher, tell: Callable[[str, str], None]):
        self.watches: dict[str, LeafWatch] = {}
        self._programs = programs
        self._publisher = publisher
        self._tell = tell
        self._tried: dict[Any, TrainStep | None] = {}
        self._tried_for: Any = None  # the skeleton

    def begin(self, watch: LeafWatch, state: TrainState, batch: Any) -> LeafHistory:
        """Begins a watch, in place of one of the same pattern.

        Raises:
          RunError: it matches nothing.
        """
        history = watch.begin(state, batch, self._publisher)
        self.watches = {**self.watches, watch.pattern: watch}
        return history

    def end(self, pattern: str) -> None:
        """Ends a watch.

        Raises:
          RunError: there is none of this pattern.
        """
        if pattern not in self.watches:
            raise RunError(f"Nothing watches {pattern!r}; watched are {', '.join(self.watches) or 'none'}.")
        self._drop(pattern)

    def _drop(self, pattern: str) -> None:
        self.watches = {name: one for name, one in self.watches.items() if name != pattern}

    def hand_over(self, branch: str) -> None:
        """Has what was seen written down."""
        for watch in self.watches.values():
            watch.hand_over(branch, self._publisher)

    def wants_alone(self, stepper: Stepper, number: int) -> bool:
        """Whether the step from a number has a call of its own: a call hands out its last step's fields."""
        return stepper.may_hand_out and bool(self._due(number)[1])

    def _due(self, number: int) -> tuple[list[LeafWatch], tuple[str, ...]]:
        """The watches that look at the step from a number, and the fields of theirs that it computes."""
        due = [watch for watch in self.watches.values() if number % watch.every == 0]
        return due, tuple(sorted({watch.field for watch in due} & _COMPUTED))

    def make(self, stepper: Stepper, number: int, batches: Sequence[Any], tape: Tape) -> None:
        """Makes the steps from a number on, and looks at the first."""
        due, fields = self._due(number)
        step = self._handing_out(stepper, number, fields, batches[0]) if fields else None
        handed = [] if step is None else [watch for watch in due if watch.field in fields]
        for watch in due:
            if watch not in handed:
                self._guard(watch, watch.look, stepper.state, number, batches[0])
        context = self._programs.make(stepper, number, batches, tape, step)
        for watch in handed:
            self._guard(watch, watch.take, number, {watch.field: getattr(context, watch.field)})

    def _guard(self, watch: LeafWatch, look: Callable[..., None], *arguments: Any) -> None:
        """Calls what looks at a step. A watch that fails is left out."""
        try:
            look(*arguments)
        except Exception as error:
            self._drop(watch.pattern)
            self._tell("note", f"{watch.pattern} is watched no more: {one_line(error)}")

    def _handing_out(
        self, stepper: Stepper, number: int, fields: tuple[str, ...], batch: Any
    ) -> TrainStep | None:
        """A program that makes this step with the same bits and hands out the fields, or None."""
        if not stepper.may_hand_out:
            return None
        if stepper.state.model_without_params is not self._tried_for:
            self._tried, self._tried_for = {}, stepper.state.model_without_params
        plain, shapes = self._programs.of(number), tuple(map(np.shape, jax.tree.leaves(batch)))
        kind = (fields, plain, shapes)
        if kind not in self._tried:
            step = self._programs.handing_out(number, fields)
            self._tried[kind] = step if make_the_same(plain, step, stepper.state, batch) else None
        return self._tried[kind]


def make_the_same(plain: TrainStep, other: TrainStep, state: TrainState, batch: Any) -> bool:
    """Whether two steps that donate make the same of a state and a batch, bit for bit; tries it.

    What cannot be tried, for lack of memory say, counts as not the same.
    """
    try:
        made = []
        for step in (plain, other):
            tape = step.tape()
            stepper = Stepper(state)
            stepper(step, [batch], tape)
            made.append((stepper.state, tape.take().values))
        (one, row), (two, other_row) = made
        return row.tobytes() == other_row.tobytes() and bool(_are_same(*map(_arrays, (one, two))))
    except Exception:
        return False


def _arrays(state: TrainState) -> list[Any]:
    return [raw_key(leaf) for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]


@jax.jit
def _are_same(these: list[jax.Array], those: list[jax.Array]) -> jax.Array:
    return jnp.stack([_is_same(one, other) for one, other in zip(these, those, strict=True)]).all()


def _is_same(one: jax.Array, other: jax.Array) -> jax.Array:
    if not jnp.issubdtype(one.dtype, jnp.inexact):
        return (one == other).all()
    signs = jnp.signbit(one.real) == jnp.signbit(other.real)
    return (((one == other) & signs) | (jnp.isnan(one) & jnp.isnan(other))).all()
