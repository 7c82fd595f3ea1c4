"""A traced function as one flat list of operations, with the calls between functions written out.

jax traces a function into a tree: a jitted function inside it, a rematerialised one or one with a
derivative of its own is a single equation that holds equations. Here such calls are replaced by what they
do. Loops and branches stay one operation, because what is inside them runs any number of times.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex

from toolshed.insight.source import is_transposed

# What only calls other equations, and the names under which they hold them.
_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call",
    "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin",
}  # fmt: skip
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")

# Operations that move values about: what they give is as near to an input as what they take.
_MOVES = {
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "convert_element_type", "copy",
    "copy_p", "slice", "stop_gradient", "optimization_barrier", "reduce_precision",
}  # fmt: skip
# An operation that runs once is compiled for longer than it runs; so it takes a third of the time.
_QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_NEAREST = 4  # inputs that are remembered for each value

Label = tuple[int, str]
"""How many operations away an input is, and its name."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """A number that is written in the program."""

    value: Any


Atom = int | Constant
"""Where an operation finds a value: a numbered place, or the program itself."""


@dataclasses.dataclass(eq=False)
class Operation:
    """One equation.

    Attributes:
      eqn: as jax traced it.
      inside: the jaxpr that it stands in.
      ins: where its arguments are.
      outs: where its results go; None for one that nobody uses.
      trail: this equation and those that called it, the innermost first.
      scope: the names of the scopes around it, joined by ``/``, with jax's marks of transformations.
    """

    eqn: Any
    inside: Any
    ins: tuple[Atom, ...]
    outs: tuple[int | None, ...]
    trail: tuple[Any, ...]
    scope: str

    @property
    def name(self) -> str:
        """The name of jax's primitive."""
        return self.eqn.primitive.name

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """The results for some arguments."""
        kind = _Kind(self.eqn, self.inside)
        function = _compiled(kind) if kind.is_shared else _compile(kind)
        results = iter(function(*values))
        return [None if isinstance(v, jex.DropVar) else next(results) for v in self.eqn.outvars]


class _Kind:
    """What an equation does, whatever it is given: equations of one kind are compiled once."""

    def __init__(self, eqn: Any, inside: Any):
        self.eqn, self.inside = eqn, inside
        dropped = tuple(isinstance(v, jex.DropVar) for v in eqn.outvars)
        avals = tuple(v.aval for v in (*eqn.invars, *eqn.outvars))
        self._identity = (eqn.primitive, tuple(sorted(eqn.params.items(), key=_first)), avals, dropped)
        try:
            self._hash = hash(self._identity)
        except TypeError:
            self._hash = None

    @property
    def is_shared(self) -> bool:
        """True if kinds can be told from each other."""
        return self._hash is not None

    def __hash__(self) -> int:
        return self._hash or 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and self._identity == other._identity


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _compile(kind: _Kind) -> Callable[..., Any]:
    """An equation as a compiled function of all its arguments."""
    eqn = kind.eqn.replace(invars=[jex.Var(v.aval) for v in kind.eqn.invars])
    outs = [v for v in eqn.outvars if not isinstance(v, jex.DropVar)]
    alone = kind.inside.replace(
        constvars=[], invars=eqn.invars, outvars=outs, eqns=[eqn], effects=eqn.effects
    )
    function = jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))
    return jax.jit(function, compiler_options=_QUICKLY if jax.default_backend() == "cpu" else None)


_compiled = functools.lru_cache(maxsize=2048)(_compile)


class Program:
    """A traced function: where its inputs are, its operations in order, where its outputs are.

    Args:
      closed: the function as ``jax.make_jaxpr`` gives it.
      trail: the equations that call it, the innermost first.
      scope: the scopes around them.

    Attributes:
      operations: in the order in which they run.
      inputs: places of the arguments.
      outputs: places of the results.
      constants: values by place that the function closes over.
      last_use: by place, the number of the last operation that reads it; that of the one after the last
        for outputs.
    """

    def __init__(self, closed: Any, trail: tuple[Any, ...] = (), scope: str = ""):
        self.operations: list[Operation] = []
        self.constants: dict[int, Any] = {}
        self._places = 0
        self.inputs = tuple(self._new() for _ in closed.jaxpr.invars)
        self.outputs = tuple(self._write_out(closed.jaxpr, closed.consts, list(self.inputs), trail, scope))
        self.last_use: dict[int, int] = {}
        for number, operation in enumerate(self.operations):
            self.last_use.update(dict.fromkeys(_places(operation.ins), number))
        self.last_use.update(dict.fromkeys(_places(self.outputs), len(self.operations)))

    def _new(self) -> int:
        self._places += 1
        return self._places - 1

    def _write_out(
        self, jaxpr: Any, consts: Sequence[Any], arguments: list[Atom], trail: tuple[Any, ...], scope: str
    ) -> list[Atom]:
        """Adds the equations of a function that is called with some arguments; gives its results."""
        at: dict[Any, Atom] = dict(zip(jaxpr.invars, arguments, strict=True))
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            at[variable] = place = self._new()
            self.constants[place] = value

        def read(variable: Any) -> Atom:
            if isinstance(variable, jex.Literal):
                return Constant(np.asarray(variable.val, getattr(variable.aval, "dtype", None)))
            return at[variable]

        for eqn in jaxpr.eqns:
            ins = [read(variable) for variable in eqn.invars]
            inside = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
            called = _called(eqn)
            if called is not None:
                results = self._write_out(*called, ins, (eqn, *trail), inside)
            else:
                results = [None if isinstance(v, jex.DropVar) else self._new() for v in eqn.outvars]
                operation = Operation(eqn, jaxpr, tuple(ins), tuple(results), (eqn, *trail), inside)
                self.operations.append(operation)
            at.update(
                (variable, place)
                for variable, place in zip(eqn.outvars, results, strict=True)
                if place is not None
            )
        return [read(variable) for variable in jaxpr.outvars]

    def labels(self, inputs: Sequence[tuple[Label, ...]]) -> dict[int, tuple[Label, ...]]:
        """By place, the inputs that its value comes from most directly, the nearest first.

        Args:
          inputs: the same for the program's inputs.
        """
        found = dict(zip(self.inputs, inputs, strict=True))
        for operation in self.operations:
            step = 0 if operation.name in _MOVES else 1
            nearest: dict[str, int] = {}
            for place in _places(operation.ins):
                for distance, name in found.get(place, ()):
                    nearest[name] = min(distance + step, nearest.get(name, distance + step))
            label = tuple(sorted((distance, name) for name, distance in nearest.items())[:_NEAREST])
            found.update((place, label) for place in operation.outs if place is not None)
        return found

    def forward(self, outputs: Sequence[bool]) -> set[int]:
        """The places of values that some outputs depend on otherwise than through the way back.

        On the way forward jax also computes factors of derivatives. Those are read on the way back alone.

        Args:
          outputs: which outputs count.
        """
        found = {a for a, counts in zip(self.outputs, outputs, strict=True) if counts and isinstance(a, int)}
        ahead = [operation for operation in self.operations if not is_transposed(operation.scope)]
        if not any(found.intersection(operation.outs) for operation in ahead):
            # Gradients alone were asked for: what other operations on the way forward read must do.
            found.update(place for operation in ahead for place in _places(operation.ins))
        for operation in reversed(ahead):
            if found.intersection(operation.outs):
                found.update(_places(operation.ins))
        return found


def _places(atoms: Iterable[Atom]) -> list[int]:
    return [atom for atom in atoms if isinstance(atom, int)]


def _called(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
    """The function that an equation calls, with its constants; None if it does something itself."""
    if eqn.primitive.name not in _CALLS:
        return None
    for name in _BODIES:
        body = eqn.params.get(name)
        if isinstance(body, jex.ClosedJaxpr):
            return body.jaxpr, body.consts
        if isinstance(body, jex.Jaxpr) and not body.constvars:
            return body, ()
    return None
