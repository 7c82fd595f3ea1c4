"""A step's computation as compiled code, and what is the same for all calls of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from toolshed.errors import RetraceWarning
from toolshed.keys import raw_key
from toolshed.loss_function import check_is_batch
from toolshed.state import TrainState
from toolshed.training.packing import Packed, Packing, is_on_cpu
from toolshed.training.placement import Placement
from toolshed.training.program import Computation
from toolshed.training.signature import Signature


class Program:
    """A computation, compiled by jax for each batch shape that comes.

    Args:
      computation: the step.
      observed: the computation of the Context, where that is a program of its own.
      state: any state that the computation is for.
      donate: whether the memory of what changes is given away.
      kept: Context fields that are the arguments themselves, so that those are not given away.
      placement: where the arguments lie.
      traced: called whenever the step is traced.
      packing: how the first three arguments are packed into one, or None. What is packed is donated.

    Attributes:
      packing: the same.
      run: the compiled step.
      observe: the compiled computation of the Context, or None.
    """

    def __init__(
        self,
        computation: Computation,
        *,
        observed: Computation | None,
        state: TrainState,
        donate: bool,
        kept: tuple[str, ...],
        placement: Placement,
        traced: Callable[[], None],
        packing: Packing | None = None,
    ):
        self._computation = computation
        self._report_trace = traced
        self._first: Signature | None = None
        self._taped: set[tuple[bool, int]] = set()  # traced with a tape or without, for how many steps
        self._is_slow: bool | None = None
        self._keep_alive = state.optimizer_def  # its id is part of the program's identity
        donated = [3, 7] if donate else [7]  # step, loss function's state, metrics; the tape's block
        for position, name in enumerate(("params", "opt_state", "model_state")):
            if donate and name not in kept:
                donated.append(position)
        self.packing = packing
        if packing is None:
            self.run = jax.jit(self._trace, donate_argnums=tuple(donated), **placement.jit_arguments())
        else:
            self.run = jax.jit(self._trace_packed, donate_argnums=(0, 1, 5))
        self.observe = None
        if observed is not None:
            self.observe = jax.jit(observed.fields, **placement.jit_arguments(observing=True))

    def is_slow(self, *arguments: Any) -> bool:
        """Whether steps on packed values take longer than by themselves, as they stand in a loop.

        XLA makes code of its own of the gradients of convolutions in a loop on a CPU, 4 to 20 times as slow
        as the library that it calls outside of one: https://github.com/jax-ml/jax/issues/12868.

        Args:
          *arguments: those of `run`. Nothing is computed; what is traced need not be traced again.
        """
        if self._is_slow is None:
            jaxpr = self.run.trace(*arguments).jaxpr.jaxpr
            self._is_slow = is_on_cpu(arguments[0]) and _contains(jaxpr, "conv_general_dilated")
        return self._is_slow

    def _trace_packed(
        self,
        packed: Packed,
        rest: Any,
        constants: Any,
        key: Any,
        batches: tuple[Any, ...],
        block: Any,
        count: Any,
    ) -> tuple[tuple[Packed, Any], dict[str, Any], Any]:
        """``count`` steps on packed values, each on its batch, and the Context fields of the last one.

        The step stands in a loop of a length that the compiler does not know. So it is compiled as it
        would be by itself, not fused with the packing or another step, and rounds every bit the same.
        """
        assert self.packing is not None
        for batch in batches:
            check_is_batch(batch)
        values = (*self.packing.unpack(packed), rest, block)
        first, *others = batches
        if self._first is not None:
            Signature(batch=first).check_batch_structure(self._first)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches) if others else None

        def body(number: Any, carried: Any) -> Any:
            (params, opt_state, model_state, rest, block), _ = carried
            batch = first if stacked is None else jax.tree.map(lambda leaf: _entry(leaf, number), stacked)
            after, fields, block = self._trace(
                params, opt_state, model_state, rest, constants, key, batch, block, at_once=len(batches)
            )
            return (*after, block), fields

        fields = {}
        if self._computation.outputs:  # a loop needs something to begin with
            shapes = jax.eval_shape(self._computation, *values[:4], constants, key, first, block)[1]
            fields = jax.tree.map(lambda leaf: jax.lax.full(leaf.shape, 0, leaf.dtype), shapes)
        (*after, rest, block), fields = jax.lax.fori_loop(0, count, body, (values, fields))
        return (self.packing.pack(tuple(after)), rest), fields, block

    def _trace(
        self,
        params: Any,
        opt_state: Any,
        model_state: Any,
        rest: Any,
        constants: Any,
        key: Any,
        batch: Any,
        block: Any,
        *,
        at_once: int = 1,
    ) -> Any:
        check_is_batch(batch)
        self._report_trace()
        signature = Signature(
            params=params, opt_state=opt_state, model_state=model_state, rest=rest, batch=batch
        )
        taped = (block is not None, at_once)
        known, self._taped = taped in self._taped, {*self._taped, taped}
        if self._first is None:
            out = self._computation(params, opt_state, model_state, rest, constants, key, batch, block)
            self._first = signature
            return out
        signature.check_batch_structure(self._first)
        if known or not signature.same_as(self._first):
            warnings.warn(
                f"The training step is compiled again: {signature.changes(self._first)}. Each shape is"
                " compiled once; to avoid it, drop or pad the last batch (last='drop', last='mask').",
                RetraceWarning,
                stacklevel=2,
            )
        return self._computation(params, opt_state, model_state, rest, constants, key, batch, block)


def _contains(jaxpr: Any, primitive: str) -> bool:
    """Whether a program, or one that it calls, has an operation."""
    return any(
        eqn.primitive.name == primitive
        or any(_contains(called, primitive) for called in jex.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _entry(stacked: jax.Array, number: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(stacked, number, keepdims=False)


class Ready:
    """Everything about a call that does not change from step to step, compared by identity."""

    __slots__ = (
        "constants",
        "is_slow",
        "key",
        "metrics",
        "observe",
        "optimizer_def",
        "packing",
        "placement",
        "root_rng",
        "run",
        "skeleton",
    )

    def __init__(self, program: Program, state: TrainState, constants: tuple[Any, ...], placement: Placement):
        self.run = program.run
        self.is_slow = program.is_slow
        self.observe = program.observe
        self.packing = program.packing
        self.skeleton = state.model_without_params
        self.root_rng = state.root_rng
        self.optimizer_def = state.optimizer_def
        self.metrics = None if state.metrics is None else state.metrics.definition
        self.placement = placement if placement.is_given else None
        self.constants = placement.replicate(constants)
        self.key = placement.replicate(raw_key(state.root_rng))

    def fits(self, state: Mapping[str, Any]) -> bool:
        """True if a state, given as its fields, has all that this was prepared for."""
        metrics = state["metrics"]
        return (
            state["model_without_params"] is self.skeleton
            and state["root_rng"] is self.root_rng
            and state["optimizer_def"] is self.optimizer_def
            and (None if metrics is None else metrics.definition) is self.metrics
        )
