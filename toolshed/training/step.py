"""The training step: ``(state, batch) -> (state, Context)``, compiled once per batch shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from toolshed import paths
from toolshed.errors import StateError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.state import TrainState
from toolshed.state.train_state import HELD, HELD_FIELDS, with_fields
from toolshed.training.carried import Carried
from toolshed.training.compiled import Program, Ready
from toolshed.training.context import FIELDS, FROM_AUX, Context, make_context
from toolshed.training.failures import explain, raise_if_not_finite
from toolshed.training.packing import Held, Packing, hold, packing_for, without_held
from toolshed.training.placement import Placement
from toolshed.training.program import Computation, Skeleton
from toolshed.training.tape import Scalar, Tape

# Fields that the caller has in hand already: nothing is computed or copied to fill them.
_FROM_ARGUMENTS = ("step", "batch", "params", "model_state", "opt_state")
_MAX_PROGRAMS = 8


def build_train_step(
    loss_fn: Callable[..., Any],
    *,
    fields: str | Iterable[str] | None = None,
    gradient_strategy: GradientStrategy = backprop,
    donate: bool = False,
    steps_per_call: int = 1,
    record: str | Iterable[str | Scalar] = ("loss_total",),
    train_state_shardings: Any = None,
    batch_shardings: Any = None,
    check_finite: bool = False,
) -> TrainStep:
    """Builds a compiled training step.

    Args:
      loss_fn: see `toolshed.LossFunction`. One function object is compiled once; a function defined
        anew (a cell run again) makes a new step.
      fields: the Context fields to compute; what nobody asks for is never computed. None asks for
        all, or with ``donate`` or ``steps_per_call`` for ``loss_total`` and ``aux`` alone. See the note
        on rounding.
      gradient_strategy: how gradients are found; see `toolshed.gradients`.
      donate: let the step reuse the memory of the state it is given. That state is gone afterwards, and
        so is the model that it was made from. What ``fields`` asks to keep from before the update is not
        donated. A state of more than 500 small arrays then stays packed in few large ones until somebody
        reads it: a step on it is many times faster, and takes longer to compile.
      steps_per_call: make k steps in one dispatch. Each entry of the batch then has a first axis of k,
        and so has each computed field of the Context; ``step``, ``params``, ``model_state`` and
        ``opt_state`` are those before the first of the k steps. Not for convolutions on a CPU, whose
        gradients XLA compiles to slow code in a loop.
      record: scalars that go on a `Tape`, where the step is given one: Context paths, or `Scalar`s for
        what has none.
      train_state_shardings: a TrainState with shardings for leaves, or one sharding for all of
        ``params``, ``opt_state`` and ``model_state``.
      batch_shardings: shardings for the batch: one, or a dict by name.
      check_finite: wait for each step and raise if its loss or a gradient is not finite.

    Returns:
      The step. Nothing is compiled before its first call.

    Raises:
      ValueError: an argument is out of range, or two exclude each other.

    Note:
      A compiler that must also hand out gradients fuses, and so rounds, a step differently: the next
      state can differ in its last bit. With ``fields=None`` this cannot happen. The fields are then
      computed by a second program from the same inputs, so that a step looked at gives bit for bit
      the state of a step that nobody looked at, at twice the arithmetic. Naming fields keeps it to
      one program.
    """
    if not callable(loss_fn):
        raise ValueError(f"Expected a loss function, got {paths.describe(loss_fn)}.")
    if not isinstance(steps_per_call, int) or steps_per_call < 1:
        raise ValueError(f"steps_per_call is {steps_per_call!r}; expected a whole number from 1.")
    if check_finite and (donate or steps_per_call > 1):
        raise ValueError(
            "check_finite stops before a bad update takes effect, for which it needs the state from before"
            " the step; donate and steps_per_call leave none. Use Trainer.fit, which checks afterwards."
        )
    lean = donate or steps_per_call > 1
    if fields is None:
        wanted = ("loss_total", "aux", *FROM_AUX) if lean else tuple(FIELDS)
    else:
        wanted = _checked_fields(fields)
    return TrainStep(
        loss_fn,
        fields=wanted,
        observed_apart=fields is None and not lean,
        gradient_strategy=gradient_strategy,
        donate=donate,
        steps_per_call=steps_per_call,
        record=(record,) if isinstance(record, str) else tuple(record),
        train_state_shardings=train_state_shardings,
        batch_shardings=batch_shardings,
        check_finite=check_finite,
    )


class TrainStep:
    """A training step as `build_train_step` makes it; call it with a state and a batch.

    It is pure but for its cache of compiled programs. Each call costs one dispatch: it walks no tree
    in Python, waits for nothing and fetches nothing.

    Attributes:
      traces: how often the step was traced, which is how often it was compiled; once more where it was
        found that it should not stand in a loop.
      record: the names of the scalars that go on a tape; those of the Context are paths.
      steps_per_call: steps that one call makes.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        *,
        fields: tuple[str, ...],
        observed_apart: bool,
        gradient_strategy: GradientStrategy,
        donate: bool,
        steps_per_call: int,
        record: tuple[str | Scalar, ...],
        train_state_shardings: Any,
        batch_shardings: Any,
        check_finite: bool,
    ):
        self.traces = 0
        self.record = tuple(item.name if isinstance(item, Scalar) else item for item in record)
        self._scalars = record
        self.steps_per_call = steps_per_call
        self._loss_fn = loss_fn
        self._observed_apart = observed_apart
        # A step that donates gives its number away, too; it is small enough to be computed anew.
        in_hand = _FROM_ARGUMENTS[1:] if donate else _FROM_ARGUMENTS
        self._kept = tuple(name for name in in_hand if name in fields)
        self._computed = tuple(name for name in fields if name not in in_hand)
        self._gradient_strategy = gradient_strategy
        self._donate = donate
        self._placement = Placement(train_state_shardings, batch_shardings)
        self._check_finite = check_finite
        # Very many small arrays stay packed from step to step where nobody is to see those from before one.
        self._may_hold = donate and not self._placement.is_given and not {*HELD_FIELDS} & {*self._kept}
        self._programs: dict[Any, Program] = {}
        self._ready: Ready | None = None
        self._ready_together: Ready | None = None

    def tape(self, capacity: int = 1024) -> Tape:
        """An empty tape for this step's recorded scalars, with ``capacity`` rows in a block."""
        return Tape(self.record, max(capacity, self.steps_per_call))

    def __call__(
        self, state: TrainState, batch: dict[str, Any], tape: Tape | None = None
    ) -> tuple[TrainState, Context]:
        """One training step, or ``steps_per_call`` of them.

        Args:
          state: the state before the step. It stays valid unless the step was built to donate.
          batch: arrays by the names that the loss function takes.
          tape: where to record this step's scalars, from `tape`.

        Returns:
          The state after the step, and what the step knew.

        Raises:
          BatchError: the batch does not fit the loss function, or differs in structure from the first.
          LossError: the loss function broke its protocol.
          StateError: the state is none, or its arrays were donated before.
          NonFiniteError: with ``check_finite``: the loss or a gradient is NaN or infinite.
        """
        # The step path. What varies from call to call are the values alone; all else is in `ready`.
        ready = self._ready
        try:
            old = state.__dict__
            metrics = old["metrics"]
            if (  # `Ready.fits`, without the call
                ready is None
                or old["model_without_params"] is not ready.skeleton
                or old["root_rng"] is not ready.root_rng
                or old["optimizer_def"] is not ready.optimizer_def
                or (None if metrics is None else metrics.definition) is not ready.metrics
            ):
                ready = self._ready = self._prepare(state)
            if ready.packing is not None:
                if HELD not in old or not old[HELD].packing.same_as(ready.packing):
                    ready = self._ready = self._prepare(state)  # for a state that no such step made
                if ready.packing is not None:
                    made = self._call_held(ready, hold(state, ready.packing), (batch,), 1, tape)
                    if made is not None:
                        return made[0], make_context({**self._in_hand(old, batch), **made[1]})
                    self._may_hold = False
                    ready = self._ready = self._prepare(state)
            if HELD in old:
                old = state.attributes_dict()
            block = None if tape is None else tape.reserve(self.record, self.steps_per_call, old["step"])
            params, opt_state, model_state = old["params"], old["opt_state"], old["model_state"]
            rest = (old["step"], old["loss_fn_state"], None if metrics is None else metrics.states)
            if ready.placement is not None and not ready.placement.fits(old["step"]):
                carried = Carried(params, opt_state, model_state, rest)
                params, opt_state, model_state, rest = ready.placement.place(carried)
                block = ready.placement.replicate(block)
            after, out, block = ready.run(
                params, opt_state, model_state, rest, ready.constants, ready.key, batch, block
            )
            if ready.observe is not None:
                observed = ready.observe(
                    params, opt_state, model_state, rest, ready.constants, ready.key, batch
                )
                out = {**out, **observed}
        except Exception as error:
            explain(error, state, batch)
            raise
        step, loss_fn_state, metric_states = after[3]
        if tape is not None:
            tape.wrote(block, self.steps_per_call, step)
        new = old.copy()
        new["step"] = step
        new["params"], new["opt_state"], new["model_state"] = after[0], after[1], after[2]
        new["loss_fn_state"] = loss_fn_state
        if metrics is not None:
            new["metrics"] = metrics.with_states(metric_states)
        if self._kept:
            out = {**self._in_hand(old, batch), **out}
        if self._check_finite:
            raise_if_not_finite(out.pop("finite"), old)
        new_state = _new_object(TrainState)
        _set(new_state, "__dict__", new)
        return new_state, make_context(out)

    def call_together(
        self, state: TrainState, batches: tuple[Any, ...], count: int, tape: Tape
    ) -> tuple[TrainState, Context] | None:
        """Several calls in one, of a step that donates; what `Stepper` uses.

        Args:
          state: a state whose values are held.
          batches: one for each call that this stands for, of one structure and equal shapes.
          count: how many of them to use; one program is compiled for each number of batches, not for
            each count.
          tape: where to record the steps' scalars.

        Returns:
          The state after the last step, held, and what that step computed; None if the steps are faster
          by themselves, and none was made. Raises as a call does.
        """
        ready, old = self._ready_together, state.__dict__
        try:
            packing = old[HELD].packing
            if ready is None or not ready.fits(old) or not packing.same_as(ready.packing):
                ready = self._ready_together = self._prepare(state, packing)
            made = self._call_held(ready, state, batches, count, tape)
            if made is None:
                return None
            return made[0], make_context(made[1])
        except Exception as error:
            explain(error, state, batches[0])
            raise

    def _call_held(
        self, ready: Ready, state: TrainState, batches: tuple[Any, ...], count: int, tape: Tape | None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Calls on values that stay packed until somebody reads them; None where they should not be."""
        old, packing, rows = state.__dict__, ready.packing, count * self.steps_per_call
        assert packing is not None
        held, metrics = old[HELD], old["metrics"]
        rest = (old["step"], old["loss_fn_state"], None if metrics is None else metrics.states)
        block = None if tape is None else tape.reserve(self.record, rows, rest[0])
        arguments = (held.packed, rest, ready.constants, ready.key, batches, block, np.int32(count))
        if ready.is_slow(*arguments):
            return None
        (packed, rest), out, block = ready.run(*arguments)
        if tape is not None:
            tape.wrote(block, rows, rest[0])
        new = without_held(state)
        new[HELD] = Held(packing, packed)
        new["step"], new["loss_fn_state"] = rest[0], rest[1]
        if metrics is not None:
            new["metrics"] = metrics.with_states(rest[2])
        return with_fields(new), out

    def _in_hand(self, old: Mapping[str, Any], batch: Any) -> dict[str, Any]:
        """The fields of the Context that the caller had already."""
        return {name: batch if name == "batch" else old[name] for name in self._kept}

    def observe(self, state: TrainState, batch: dict[str, Any]) -> Context:
        """The Context of a step that is not made, with all its fields; of a step built with no ``fields``.

        Raises as a call does.
        """
        if not self._observed_apart:
            raise ValueError("Only a step built with fields=None and without donate has a program for this.")
        try:
            ready = self._prepare(state)
            metrics = None if state.metrics is None else state.metrics.states
            rest = (state.step, state.loss_fn_state, metrics)
            carried = Carried(state.params, state.opt_state, state.model_state, rest)
            if ready.placement is not None and not ready.placement.fits(state.step):
                carried = ready.placement.place(carried)
            assert ready.observe is not None
            fields = ready.observe(*carried, ready.constants, ready.key, batch)
        except Exception as error:
            explain(error, state, batch)
            raise
        return Context(**{**self._in_hand(state.attributes_dict(), batch), **fields})

    def _prepare(self, state: Any, packing: Packing | None = None) -> Ready:
        """What is the same for all steps with this state's skeleton, key and optimiser."""
        if not isinstance(state, TrainState):
            raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
        if packing is None and self._may_hold:
            held = state.__dict__.get(HELD)
            packing = packing_for(_packable(state)) if held is None else held.packing
        skeleton = Skeleton(state.model_without_params)
        definition = None if state.metrics is None else state.metrics.definition
        key_kind = str(getattr(state.root_rng, "dtype", None))
        packed = None if packing is None else packing.identity
        identity = (skeleton.identity, id(state.optimizer_def), definition, key_kind, packed)
        program = self._programs.get(identity)
        if program is None:
            if len(self._programs) >= _MAX_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            program = self._programs[identity] = self._compile(state, skeleton, packing)
        return Ready(program, state, skeleton.constants, self._placement)

    def _compile(self, state: TrainState, skeleton: Skeleton, packing: Packing | None) -> Program:
        def computation(outputs: tuple[str, ...], *, check_finite: bool) -> Computation:
            return Computation(
                state,
                skeleton,
                loss_fn=self._loss_fn,
                gradient_strategy=self._gradient_strategy,
                outputs=outputs,
                record=self._scalars,
                steps_per_call=self.steps_per_call,
                check_finite=check_finite,
            )

        full = computation(self._computed, check_finite=self._check_finite)
        lean = computation(("loss_total",), check_finite=False) if self._observed_apart else full
        return Program(
            lean,
            observed=full if self._observed_apart else None,
            state=state,
            donate=self._donate,
            kept=self._kept,
            placement=self._placement,
            traced=self._traced,
            packing=packing,
        )

    def _traced(self) -> None:
        self.traces += 1


_new_object = object.__new__
_set = object.__setattr__


def _packable(state: TrainState) -> tuple[Any, Any, Any]:
    return state.params, state.opt_state, state.model_state


def _checked_fields(fields: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(fields, str):
        fields = (fields,)
    fields = tuple(fields)
    for name in fields:
        if name not in FIELDS:
            close = paths.nearest(name, FIELDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(FIELDS)}."
            raise ValueError(f"Context has no field {name!r}.{hint}")
    return fields
