"""What `first_nonfinite` found: where the first value that is not finite came from, and what became of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolshed.insight.source import Source
from toolshed.insight.summary import LeafSummary
from toolshed.insight.tables import number

_SHOWN = 4  # names that one line lists


@dataclasses.dataclass(frozen=True)
class Iteration:
    """A loop that was going round, or a branch that was taken.

    Attributes:
      kind: ``"scan"``, ``"while"`` or ``"cond"``.
      index: which iteration, from 0, or which branch. For a scan it is the index into what it scans over,
        so that one that runs backwards counts down.
      length: how many there are; None where that is not known beforehand.
    """

    kind: str
    index: int
    length: int | None = None

    def __str__(self) -> str:
        if self.kind == "cond":
            return f"branch {self.index} of cond"
        return f"iteration {self.index}{'' if self.length is None else f' of {self.length}'} of {self.kind}"


@dataclasses.dataclass(frozen=True)
class Operand:
    """What an operation was given.

    Attributes:
      name: the input that it is, such as ``params/w``; empty for a value on the way.
      summary: its statistics; None for random keys and the like.
      value: the value at the place where the result is not finite; None where no place corresponds.
    """

    name: str
    summary: LeafSummary | None
    value: float | None = None

    def __str__(self) -> str:
        if self.summary is None:
            return self.name or "?"
        leaf = self.summary
        words = [f"{self.name or 'value'} {leaf.description}"]
        if self.value is not None:
            words.append(f"{number(self.value)} there")
        if leaf.count > 1 and leaf.absmax >= 0:
            words.append(f"from {number(leaf.min)} to {number(leaf.max)}")
        words += [
            f"{n:,} {name}" for n, name in ((leaf.nan, "NaN"), (leaf.posinf, "+∞"), (leaf.neginf, "-∞")) if n
        ]
        return ", ".join(words)


@dataclasses.dataclass(frozen=True)
class Fault:
    """An operation whose result is not finite.

    Attributes:
      primitive: jax's name of the operation; ``"input"`` where an argument was not finite to begin with.
      value: what it gave: NaN, ∞ or -∞, at ``index``.
      index: the first place where the result is not finite.
      indices: the first few such places.
      count: how many there are.
      result: dtype and shape of the result, in one word.
      source: the line of your code that it comes from; None where jax knows none.
      phase: ``"forward"``, ``"backward"`` or ``"optimizer"``.
      scope: the names of the `jax.named_scope`s around it, joined by ``/``.
      iterations: the loops and branches around it, outermost first.
      operands: what it was given.
      near: the inputs that the operands come from most directly, such as the layer's parameters.
      written: True if the program itself holds the value: ``jnp.inf`` in the code.
      vanished: True for a loop that is not finite as it is compiled, and is when its iterations run
        operation by operation.
    """

    primitive: str
    value: float
    index: tuple[int, ...]
    indices: tuple[tuple[int, ...], ...]
    count: int
    result: str
    source: Source | None
    phase: str = "forward"
    scope: str = ""
    iterations: tuple[Iteration, ...] = ()
    operands: tuple[Operand, ...] = ()
    near: tuple[str, ...] = ()
    written: bool = False
    vanished: bool = False

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"  {line}" for line in self._lines())])

    @property
    def headline(self) -> str:
        """The fault in one line."""
        value = _symbol(self.value)
        if self.primitive == "input":
            return f"{self.near[0]} holds {value}"
        if self.vanished:
            return f"{self.primitive} gives {value}; run operation by operation it is finite"
        if self.written:
            return f"{value} is written in the program, where {self.primitive} takes it"
        seen = [operand.summary for operand in self.operands if operand.summary is not None]
        finite = all(summary.finite for summary in seen)
        return f"{self.primitive} gives {value} for {'finite' if finite else 'infinite'} arguments"

    def _lines(self) -> list[str]:
        lines = []
        if self.source is not None:
            lines.append(f"at       {self.source}")
            if self.source.text:
                lines.append(f"           {self.source.text}")
        where = [f"{self.phase} pass" if self.phase != "optimizer" else "the optimizer's update"]
        where += [self.scope] if self.scope else []
        where += [str(iteration) for iteration in self.iterations]
        if self.primitive != "input":
            lines.append(f"in       {', '.join(where)}")
        at = f" at {list(self.index)}" if self.index else ""
        total = f" ({self.count:,} such values)" if self.count > 1 else ""
        lines.append(f"result   {self.result}: {_symbol(self.value)}{at}{total}")
        lines += [f"operand  {operand}" for operand in self.operands]
        if self.near and self.primitive != "input":
            lines.append(f"near     {', '.join(self.near)}")
        return lines


@dataclasses.dataclass(frozen=True)
class Autopsy:
    """The answer of `first_nonfinite`.

    Attributes:
      fault: the first operation whose result is not finite although its arguments are, of those that
        lead to a result that is not; None if there is none.
      became_nan: the operation that turned the fault's infinity into NaN, if one did.
      reaches: the results that are not finite.
      compiled_finite: whether the compiled function itself gave finite results; None where it was not
        run, because a plain function runs operation by operation anyway.
      replay_finite: whether the replay gave finite results; None where the compiled function did, so
        that there was nothing to replay.
      operations: how many operations were replayed.
      step: of a training step, its number, counted as steps done after it; None for a function.
      batch: of a training step, what it was given.
    """

    fault: Fault | None
    became_nan: Fault | None
    reaches: tuple[str, ...]
    compiled_finite: bool | None
    replay_finite: bool | None
    operations: int = 0
    step: int | None = None
    batch: Mapping[str, Any] | None = None

    @property
    def finite(self) -> bool:
        """True if all results are finite."""
        return self.compiled_finite is not False and self.replay_finite is not False

    @property
    def vanished(self) -> bool:
        """True if the compiled function is not finite and its replay is, so that nothing was found."""
        return self.compiled_finite is False and self.replay_finite is True

    def __repr__(self) -> str:
        if self.finite:
            return "Everything is finite"
        if self.vanished:
            return (
                f"The compiled function is not finite in {_names(self.reaches)}.\n"
                "Replayed operation by operation it is finite. A compiler that fuses operations rounds"
                " differently: a value at the very edge of its type overflows in one order and not in the"
                " other. Look for large values: toolshed.insight.leaf_statistics(…).worst()."
            )
        lines = [str(self.fault)]
        if self.became_nan is not None:
            source = f" at {self.became_nan.source}" if self.became_nan.source else ""
            lines.append(f"  then     {self.became_nan.primitive} makes NaN of it{source}")
        lines.append(f"  reaches  {_names(self.reaches)}")
        return "\n".join([*lines, *([] if self.step is None else [f"  step     {self.step:,}"])])


def _symbol(value: float) -> str:
    return "NaN" if value != value else "∞" if value > 0 else "-∞"


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
