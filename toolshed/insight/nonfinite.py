"""The first value that is not finite: which operation made it, in which line, out of what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolshed.insight.autopsy import Autopsy
from toolshed.insight.events import NOWHERE, constant_fault, input_fault
from toolshed.insight.finite import nonfinite
from toolshed.insight.operations import Program
from toolshed.insight.replay import Replay
from toolshed.insight.sources import step_of
from toolshed.insight.subject import subject_of


def first_nonfinite(step_or_fn: Any, *args: Any, **kwargs: Any) -> Autopsy:
    """Runs a step or a function again, and finds where its first NaN or infinity comes from.

    The answer names the first operation whose result is not finite although its arguments are, of those
    that lead to a result that is not: jax's primitive, the line of your code, the pass (forward, backward,
    the optimiser's update), the loops around it with their iteration, what the operation was given, where
    in the result the value is, and which parameters are near. An infinity that does no harm, such as a
    mask of -∞ before a softmax, is not counted.

    A training step and a function made by ``jax.jit`` are run as they are first, on copies of what they
    are given; where that is finite, the answer is that everything is. Otherwise, and for any other
    function at once, the computation is traced and replayed in parts: compiled while the results are
    finite, operation by operation where they are not. Effects (`jax.debug.print`) happen again.

    Args:
      step_or_fn: a `toolshed.TrainStep`, a `toolshed.Trainer` or its ``step``; or any function of arrays,
        for gradients ``jax.grad(f)``.
      *args: a state and a batch for a step; the function's arguments otherwise. Nothing is donated.
      **kwargs: the function's arguments by name.

    Returns:
      What was found; it reads as text. ``finite`` is True if there was nothing to find.

    Raises:
      ToolshedError: the first argument is no function, or a step was not given a state and a batch.
      StateError: the state's arrays were donated and are gone.

    Note:
      A compiler fuses operations and rounds differently. A value at the very edge of its type may be
      finite in the replay; the answer then says so (``vanished``). The replay needs memory for the values
      of the function without fusion. In the backward rule of a `jax.custom_vjp`, jax knows the line of the
      call alone. `jax.shard_map` and kernels are one operation each: nothing inside is looked at.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> def entropy(p):
      ...     return -jnp.sum(p * jnp.log(p))
      >>> found = toolshed.insight.first_nonfinite(entropy, jnp.array([0.5, 0.0, 0.5]))
      >>> found.fault.primitive, found.fault.index, found.became_nan.primitive
      ('log', (1,), 'mul')
    """
    return search(step_or_fn, args, kwargs)


def search(
    step_or_fn: Any, args: Sequence[Any], kwargs: Mapping[str, Any], between: Callable[[], None] | None = None
) -> Autopsy:
    """What `first_nonfinite` does, in a way that can be broken off.

    Args:
      step_or_fn: as there.
      args: the arguments.
      kwargs: the arguments by name.
      between: called between two operations of the replay; what it raises ends the search.
    """
    subject = subject_of(step_or_fn, args, kwargs)
    step, batch = (int(args[0].step) + 1, args[1]) if step_of(step_or_fn) is not None else (None, None)
    compiled_bad = None if subject.run is None else subject.run()
    if compiled_bad == ():
        return Autopsy(None, None, (), compiled_finite=True, replay_finite=None, step=step, batch=batch)
    replay = Replay(between)
    origins = [
        replay.log.add(input_fault(name, value)) if nonfinite(value) else NOWHERE
        for name, value in zip(subject.names, subject.arguments, strict=True)
    ]
    labels = [((0, name),) for name in subject.names]
    judged = [name not in subject.excused for name in subject.results]
    # What the compiled function gave tells which results are not finite: the rest need not be replayed.
    enough = None if compiled_bad is None else judged
    results, found = replay.run(Program(subject.closed), subject.arguments, origins, labels, enough=enough)
    bad = {
        name: origin or replay.log.add(constant_fault(value))
        for name, value, origin, counts in zip(subject.results, results, found, judged, strict=True)
        if nonfinite(value) and counts
    }
    fault, became_nan = replay.log.root(NOWHERE.union(*bad.values()))
    return Autopsy(
        fault,
        became_nan,
        tuple(bad) if compiled_bad is None else compiled_bad,
        compiled_finite=None if compiled_bad is None else False,
        replay_finite=not bad,
        operations=replay.operations,
        step=step,
        batch=batch,
    )
