"""Loops and branches, looked into: the iteration in which a value stopped being finite.

A loop runs compiled, as it would without us, until an iteration whose results are not finite where those
of the iteration before were. That one is looked into, operation by operation, and the loop goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from toolshed.insight.autopsy import Iteration
from toolshed.insight.events import NOWHERE, Origins
from toolshed.insight.finite import flags, nonfinite
from toolshed.insight.operations import Label, Operation, Program

_STOPS = 24  # iterations of one loop that are looked into

Run = Callable[..., tuple[list[Any], list[Origins]]]
"""`toolshed.insight.replay.Replay.run`."""


class Call(NamedTuple):
    """A loop or branch as it was called.

    Attributes:
      operation: the loop.
      arguments: what it was given.
      origins: where those come from that are not finite.
      labels: the inputs that they come from.
      iterations: the loops around it, outermost first.
      forward: which results are wanted for their own sake, not for a derivative's.
    """

    operation: Operation
    arguments: list[Any]
    origins: list[Origins]
    labels: list[tuple[Label, ...]]
    iterations: tuple[Iteration, ...]
    forward: list[bool]


class _Stop(NamedTuple):
    """An iteration after which something is not finite that was before.

    Attributes:
      number: which iteration, in the order in which they run.
      carry: what it started from.
      bad: which of its results are not finite.
    """

    number: int
    carry: list[Any]
    bad: list[bool]


def _stops(
    step: Callable[[Any, Any, list[Any]], list[Any]],
    goes_on: Callable[[Any, Any, list[Any]], Any],
    fixed: Any,
    carry: list[Any],
    others: int,
) -> Iterator[_Stop]:
    """The iterations of a loop in which a value stops being finite.

    Args:
      step: the results of an iteration, from what is fixed, its number and what is carried into it; the
        first of them are carried into the next.
      goes_on: whether there is an iteration of that number, given the same.
      fixed: what is the same in all iterations.
      carry: what is carried into the first.
      others: how many results are not carried on.
    """

    # The state is that of the last iteration: its number, what was carried into it and what out of it, and
    # which results were not finite before it and after it.
    @jax.jit
    def search(fixed: Any, state: Any) -> Any:
        def ahead(state: Any) -> Any:
            number, _, after, was, now = state
            return ~(now & ~was).any() & goes_on(fixed, number + 1, after)

        def advance(state: Any) -> Any:
            number, _, carry, _, was = state
            made = step(fixed, number + 1, carry)
            return number + 1, carry, made[: len(carry)], was, jnp.stack([flags(value) for value in made])

        return lax.while_loop(ahead, advance, state)

    now = jnp.stack([*(flags(value) for value in carry), *(jnp.zeros(2, bool) for _ in range(others))])
    number, after = jnp.int32(-1), carry
    for _ in range(_STOPS):
        number, before, after, was, now = search(fixed, (number, after, after, now, now))
        if not np.any(np.asarray(now) & ~np.asarray(was)):
            return
        yield _Stop(int(number), before, [bool(bits.any()) for bits in np.asarray(now)])


def explain_scan(run: Run, call: Call) -> list[Origins]:
    """For each result of a scan, the events that made it not finite; nowhere for one that was not found.

    Args:
      run: runs the program of one iteration.
      call: the scan.
    """
    operation, arguments, given = call.operation, call.arguments, call.origins
    params = operation.eqn.params
    length, n_consts, n_carry = params["length"], params["num_consts"], params["num_carry"]
    first = n_consts + n_carry
    fixed = (arguments[:n_consts], arguments[first:])
    function = jex.jaxpr_as_fun(params["jaxpr"])
    body = Program(params["jaxpr"], operation.trail, operation.scope)

    def index(number: Any) -> Any:
        return length - 1 - number if params["reverse"] else number

    def given_to(fixed: Any, number: Any, carry: list[Any]) -> list[Any]:
        consts, xs = fixed
        return [*consts, *carry, *(lax.dynamic_index_in_dim(x, index(number), keepdims=False) for x in xs)]

    def step(fixed: Any, number: Any, carry: list[Any]) -> list[Any]:
        return function(*given_to(fixed, number, carry))

    def goes_on(fixed: Any, number: Any, carry: list[Any]) -> Any:
        del fixed, carry
        return number < length

    origins = [*given[n_consts:first], *(NOWHERE for _ in body.outputs[n_carry:])]
    others = len(body.outputs) - n_carry
    for stop in _stops(step, goes_on, fixed, arguments[n_consts:first], others):
        into = given_to(fixed, stop.number, stop.carry)
        of_rows = zip(into[first:], given[first:], strict=True)
        known = [*given[:n_consts], *origins[:n_carry]]
        known += [origin if nonfinite(row) else NOWHERE for row, origin in of_rows]
        here = Iteration("scan", int(index(stop.number)), length)
        around = ((*call.iterations, here), _carried(call.forward, n_carry))
        _, made = run(body, into, known, call.labels, *around)
        origins = _after(origins, made, stop.bad, n_carry)
    return origins


def explain_while(run: Run, call: Call) -> list[Origins]:
    """For each result of a while loop, the events that made it not finite; see `explain_scan`."""
    operation, arguments, given = call.operation, call.arguments, call.origins
    params = operation.eqn.params
    n_test = params["cond_nconsts"]
    first = n_test + params["body_nconsts"]
    fixed = (arguments[:n_test], arguments[n_test:first])
    test, function = (jex.jaxpr_as_fun(params[name]) for name in ("cond_jaxpr", "body_jaxpr"))
    body = Program(params["body_jaxpr"], operation.trail, operation.scope)

    def step(fixed: Any, number: Any, carry: list[Any]) -> list[Any]:
        del number
        return function(*fixed[1], *carry)

    def goes_on(fixed: Any, number: Any, carry: list[Any]) -> Any:
        del number
        return test(*fixed[0], *carry)[0]

    origins = given[first:]
    for stop in _stops(step, goes_on, fixed, arguments[first:], 0):
        into = [*given[n_test:first], *origins]
        here = Iteration("while", stop.number)
        around = ((*call.iterations, here), _carried(call.forward, len(origins)))
        _, made = run(body, [*fixed[1], *stop.carry], into, call.labels[n_test:], *around)
        origins = _after(origins, made, stop.bad, len(origins))
    return origins


def explain_cond(run: Run, call: Call) -> list[Origins]:
    """For each result of a branch that was taken, the events that made it not finite."""
    branches = call.operation.eqn.params["branches"]
    taken = min(max(int(call.arguments[0]), 0), len(branches) - 1)
    body = Program(branches[taken], call.operation.trail, call.operation.scope)
    around = ((*call.iterations, Iteration("cond", taken, len(branches))), call.forward)
    return run(body, call.arguments[1:], call.origins[1:], call.labels[1:], *around)[1]


def _carried(forward: list[bool], carried: int) -> list[bool]:
    """Which results of an iteration are wanted: what it carries on, if any result of the loop is."""
    return [wanted or (number < carried and any(forward)) for number, wanted in enumerate(forward)]


def _after(
    before: Sequence[Origins], made: Sequence[Origins], bad: Sequence[bool], carried: int
) -> list[Origins]:
    """The origins after an iteration: of what is carried on, its own; of other results, all so far."""
    after = []
    for number, (old, new, is_bad) in enumerate(zip(before, made, bad, strict=True)):
        kept = NOWHERE if number < carried else old
        after.append(kept | (new or old if is_bad else NOWHERE))
    return after


INSIDE: dict[str, Callable[..., list[Origins]]] = {
    "scan": explain_scan,
    "while": explain_while,
    "cond": explain_cond,
}
"""The operations that can be looked into, by the names of their primitives."""
