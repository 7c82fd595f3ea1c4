"""The training step: ``(state, batch) -> (state, Context)``, compiled once per batch shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from toolshed import paths
from toolshed.errors import BatchError, NonFiniteError, StateError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.loss_function import check_is_batch
from toolshed.state import TrainState
from toolshed.training.carried import Carried
from toolshed.training.compiled import Program, Ready
from toolshed.training.context import FIELDS, FROM_AUX, Context, make_context
from toolshed.training.packing import Packed, Packing
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
      donate: let the step reuse the memory of the state it is given. That state's arrays are gone
        afterwards, and so is the model that it was made from. What ``fields`` asks to keep from before
        the update is not donated.
      steps_per_call: make k steps in one dispatch. Each entry of the batch then has a first axis of k,
        and so has each computed field of the Context; ``step``, ``params``, ``model_state`` and
        ``opt_state`` are those before the first of the k steps.
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
      traces: how often the step was traced, which is how often it was compiled.
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
        self._programs: dict[Any, Program] = {}
        self._ready: Ready | None = None
        self._ready_packed: tuple[Any, Packing, Ready] | None = None

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
            if (
                ready is None
                or old["model_without_params"] is not ready.skeleton
                or old["root_rng"] is not ready.root_rng
                or old["optimizer_def"] is not ready.optimizer_def
                or (
                    (old["metrics"] is not None or ready.metrics is not None)
                    and not ready.has_metrics_of(old["metrics"])
                )
            ):
                ready = self._ready = self._prepare(state)
                old = state.__dict__
            metrics = old["metrics"]
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
            _explain(error, state, batch)
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
            kept = {name: old[name] for name in self._kept if name != "batch"}
            if "batch" in self._kept:
                kept["batch"] = batch
            out = {**kept, **out}
        if self._check_finite:
            self._raise_if_not_finite(out.pop("finite"), old)
        new_state = _new_object(TrainState)
        _set(new_state, "__dict__", new)
        return new_state, make_context(out)

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
            _explain(error, state, batch)
            raise
        kept = {name: getattr(state, name) for name in self._kept if name != "batch"}
        return Context(**{**kept, "batch": batch, **fields})

    def call_packed(
        self,
        like: TrainState,
        packing: Packing,
        carried: tuple[Packed, Any],
        batches: tuple[Any, ...],
        count: int,
        tape: Tape,
    ) -> tuple[Packed, Any]:
        """Steps on values that stay packed, of a step that donates; what `Stepper` calls.

        Args:
          like: a state with the model, optimiser and key; its values are not looked at.
          packing: how the values are packed.
          carried: parameters, optimiser state and model state, packed; and the step's number, the loss
            function's state and the metric states. Given away.
          batches: one for each call that this stands for, of one structure and equal shapes.
          count: how many of them to use; one program is compiled for each number of batches, not for
            each count.
          tape: where to record the steps' scalars.

        Returns:
          What is carried, after the last step. Raises as a call does.
        """
        ready = self._ready_packed
        rows = count * self.steps_per_call
        try:
            if ready is None or ready[0] is not like or ready[1] is not packing:
                ready = self._ready_packed = (like, packing, self._prepare(like, packing))
            run, constants, key = ready[2].run, ready[2].constants, ready[2].key
            block = tape.reserve(self.record, rows, carried[1][0])
            carried, _, block = run(*carried, constants, key, batches, block, np.int32(count))
        except Exception as error:
            _explain(error, like, batches[0])
            raise
        tape.wrote(block, rows, carried[1][0])
        return carried

    def _prepare(self, state: Any, packing: Packing | None = None) -> Ready:
        """What is the same for all steps with this state's skeleton, key and optimiser."""
        if not isinstance(state, TrainState):
            raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
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

    def _raise_if_not_finite(self, finite: jax.Array, old: Mapping[str, Any]) -> None:
        flags = np.asarray(finite)
        if flags.all():
            return
        # Inside the step dicts are in jax's order, which sorts their keys.
        names = ["the loss", *(f"grads/{path}" for path in sorted(old["params"]))]
        bad = [name for name, ok in zip(names, flags, strict=True) if not ok]
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        step = int(old["step"])
        raise NonFiniteError(
            f"Step {step} is not finite in {', '.join(bad[:4])}{more}. The state from before the step is"
            " unchanged. A lower learning rate, gradient clipping or a look at this batch may help.",
            step=step,
        )


_new_object = object.__new__
_set = object.__setattr__


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


def _explain(error: Exception, state: Any, batch: Any) -> None:
    """Raises a clearer error where the cause of a failed call can be told."""
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.") from None
    if isinstance(error, (RuntimeError, ValueError)) and "deleted" in str(error):
        state.check_alive()
    if isinstance(error, TypeError) and not isinstance(batch, dict):
        check_is_batch(batch)
    if isinstance(error, TypeError) and isinstance(batch, dict):
        for name, leaf in paths.flatten(batch).items():
            if not isinstance(leaf, (int, float, complex)) and not hasattr(leaf, "named_shape"):
                dtype = getattr(leaf, "dtype", None)
                if dtype is None or getattr(dtype, "kind", "f") in "OSUMm":
                    raise BatchError(
                        f"batch/{name} is {paths.describe(leaf)}; expected numbers in an array. Leave it"
                        " out of the batch, or encode it (characters as integers, say)."
                    ) from error
