"""A program run again, operation by operation, to find the one that made a value not finite.

Each operation is compiled by itself, once for all places where it stands with the same shapes, so that a
model of many equal layers costs hardly more than one of them. Loops run compiled, and are looked into only
where what they give is not finite.

Each value that is not finite carries its origins along, and only what leads to a result that is not finite
counts in the end: a -∞ that masks a softmax harms nobody.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolshed.insight import loops
from toolshed.insight.autopsy import Iteration
from toolshed.insight.events import NOWHERE, Around, Log, Origins, fault_of, fused_fault, written_fault
from toolshed.insight.finite import INF, NAN, nonfinite, on_host
from toolshed.insight.operations import Atom, Constant, Label, Operation, Program

# Operations that compute each value of the result from the values in the same place.
_ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "igamma", "igammac", "integer_pow", "lgamma", "log", "log1p", "logistic", "max",
    "min", "mul", "neg", "nextafter", "polygamma", "pow", "reduce_precision", "regularized_incomplete_beta",
    "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh",
    "zeta",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Frame:
    """One call of a program.

    Attributes:
      program: what runs.
      around: what is around its operations.
      values: by place, what is known so far.
      origins: by place, where a value that is not finite comes from.
    """

    program: Program
    around: Around
    values: dict[int, Any]
    origins: dict[int, Origins]

    def read(self, atom: Atom) -> Any:
        """The value of an atom; None for one that was not computed."""
        return atom.value if isinstance(atom, Constant) else self.values.get(atom)

    def labels_of(self, atom: Atom) -> tuple[Label, ...]:
        """The inputs that an atom comes from."""
        return () if isinstance(atom, Constant) else self.around.labels.get(atom, ())


class Replay:
    """Runs programs and notes what makes values not finite.

    Args:
      between: called between two operations; what it raises ends the replay.

    Attributes:
      log: what was seen.
      operations: how many operations ran one by one.
    """

    def __init__(self, between: Callable[[], None] | None = None) -> None:
        self.log = Log()
        self.operations = 0
        self._between = between

    def run(
        self,
        program: Program,
        arguments: Sequence[Any],
        origins: Sequence[Origins],
        labels: Sequence[tuple[Label, ...]],
        iterations: tuple[Iteration, ...] = (),
        forward: Sequence[bool] | None = None,
        enough: Sequence[bool] | None = None,
    ) -> tuple[list[Any], list[Origins]]:
        """The results of a program, and the origins of those that are not finite.

        Args:
          program: what to run.
          arguments: its arguments.
          origins: for each argument, where it comes from if it is not finite.
          labels: for each argument, the inputs that it comes from.
          iterations: the loops around it.
          forward: which results are wanted for their own sake, not for a derivative's; by default all.
          enough: results any of which may end the run early: when it is not finite, and nothing that comes
            later can be the first cause. What was not computed is None then. By default none.
        """
        wanted = [True] * len(program.outputs) if forward is None else forward
        around = Around(program.labels(labels), iterations, program.forward(wanted))
        known = {place: origin for place, origin in zip(program.inputs, origins, strict=True) if origin}
        values = {**program.constants, **dict(zip(program.inputs, arguments, strict=True))}
        frame = Frame(program, around, values, known)
        final = {
            a for a, ends in zip(program.outputs, enough or (), strict=False) if ends and isinstance(a, int)
        }
        for number, operation in enumerate(program.operations):
            if self._between is not None:
                self._between()
            self._run_operation(frame, number)
            ended = final.intersection(operation.outs) and final.intersection(frame.origins)
            if ended and self.log.is_settled(NOWHERE.union(*(frame.origins[place] for place in ended))):
                break
        outputs = [frame.read(atom) for atom in program.outputs]
        return outputs, [
            frame.origins.get(atom, NOWHERE) if isinstance(atom, int) else NOWHERE for atom in program.outputs
        ]

    def _run_operation(self, frame: Frame, number: int) -> None:
        operation = frame.program.operations[number]
        arguments = [frame.read(atom) for atom in operation.ins]
        results = operation(arguments)
        self.operations += 1
        bad = [bool(nonfinite(result)) for result in results]
        if any(bad):
            origins = self._origins(frame, operation, arguments, results)
            for place, value, origin, is_bad in zip(operation.outs, results, origins, bad, strict=True):
                if place is not None and is_bad:
                    frame.origins[place] = origin or self.log.add(fused_fault(operation, frame.around, value))
        last_use = frame.program.last_use
        for place, result in zip(operation.outs, results, strict=True):
            if place in last_use:
                frame.values[place] = result
        for atom in operation.ins:
            if isinstance(atom, int) and last_use[atom] == number:
                frame.values.pop(atom, None)

    def _origins(
        self, frame: Frame, operation: Operation, arguments: list[Any], results: list[Any]
    ) -> list[Origins]:
        """For each result of an operation, the events that made it not finite."""
        given = [
            self._origin_of(frame, operation, atom, value)
            for atom, value in zip(operation.ins, arguments, strict=True)
        ]
        if operation.name in loops.INSIDE:
            labels = [frame.labels_of(atom) for atom in operation.ins]
            forward = [place in frame.around.forward for place in operation.outs]
            call = loops.Call(operation, arguments, given, labels, frame.around.iterations, forward)
            return loops.INSIDE[operation.name](self.run, call)
        if operation.name in _ELEMENTWISE and len(results) == 1:
            return [self._by_place(frame, operation, arguments, given, results[0])]
        return [self._as_a_whole(frame, operation, arguments, given, result) for result in results]

    def _origin_of(self, frame: Frame, operation: Operation, atom: Atom, value: Any) -> Origins:
        """Where an argument that is not finite comes from; nowhere if it is finite."""
        if not nonfinite(value):
            return NOWHERE
        if isinstance(atom, int) and atom in frame.origins:
            return frame.origins[atom]
        origin = self.log.add(written_fault(operation, frame.around, value))
        if isinstance(atom, int):
            frame.origins[atom] = origin
        return origin

    def _event(
        self,
        frame: Frame,
        operation: Operation,
        arguments: list[Any],
        result: Any,
        fresh: np.ndarray | None,
        causes: Origins = NOWHERE,
    ) -> Origins:
        if self.log.is_full:
            return causes or frozenset([len(self.log.events) - 1])
        fault = fault_of(operation, frame.around, arguments, result, fresh)
        return self.log.add(fault, causes)

    def _by_place(
        self, frame: Frame, operation: Operation, arguments: list[Any], given: list[Origins], result: Any
    ) -> Origins:
        """The origins of an element-wise result: each value has those of the arguments in its place."""
        values = on_host(result)
        bad = np.asarray(~np.isfinite(values))
        inputs = [(on_host(x), origin) for x, origin in zip(arguments, given, strict=True) if origin]
        bad_inputs = [(np.broadcast_to(~np.isfinite(x), bad.shape), origin) for x, origin in inputs]
        some_bad, some_nan = np.zeros(bad.shape, bool), np.zeros(bad.shape, bool)
        for x, _ in inputs:
            some_bad |= ~np.isfinite(x)
            some_nan |= np.isnan(x)
        fresh = np.asarray(bad & ~some_bad)
        turned = np.asarray(bad & some_bad & np.isnan(values) & ~some_nan)
        rest = np.asarray(bad & some_bad & ~turned)

        def origins_at(where: np.ndarray) -> Origins:
            return NOWHERE.union(*(origin for b, origin in bad_inputs if (b & where).any()))

        origins = origins_at(rest)
        if fresh.any():
            origins |= self._event(frame, operation, arguments, result, fresh)
        if turned.any():
            origins |= self._event(frame, operation, arguments, result, turned, origins_at(turned))
        return origins

    def _as_a_whole(
        self, frame: Frame, operation: Operation, arguments: list[Any], given: list[Origins], result: Any
    ) -> Origins:
        """The origins of a result each of whose values depends on many of the arguments'."""
        bits = nonfinite(result)
        bits_given = [nonfinite(value) for value in arguments]
        origins = NOWHERE.union(*given)
        if not origins or (bits & NAN and not any(given_bits & NAN for given_bits in bits_given)):
            return self._event(frame, operation, arguments, result, None, origins)
        alike = [
            origin
            for origin, given_bits in zip(given, bits_given, strict=True)
            if given_bits & (NAN if bits & NAN else INF)
        ]
        return NOWHERE.union(*alike) or origins
