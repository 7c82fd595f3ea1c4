"""What a run is made of: a trainer, a first state and data, from the arguments that people give."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import optax

from toolshed import paths
from toolshed.data import Stream, stream
from toolshed.errors import DataError, RunError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.metrics import Collection
from toolshed.state import TrainState
from toolshed.training import Trainer
from toolshed.training.watches import Watch


def parts_of(
    what: tuple[Any, ...], metrics: Collection | None, strategy: GradientStrategy, seed: int
) -> tuple[Trainer, TrainState, Any]:
    """The trainer, the first state and the data, from what `Run` is called with."""
    seed = whole_number("seed", seed, 0)
    if what and isinstance(what[0], Trainer):
        if metrics is not None or strategy is not backprop:
            raise RunError("metrics and gradient_strategy are the trainer's: pass them to Trainer(…).")
        if len(what) == 3 and isinstance(what[1], TrainState):
            return what[0], what[1], what[2]
        if len(what) == 2 and not isinstance(what[1], TrainState):
            return what[0], what[0].init(jax.random.key(seed)), what[1]
    elif len(what) == 4 and isinstance(what[1], optax.GradientTransformation):
        model, optimizer, loss_fn, data = what
        trainer = Trainer(model, optimizer, loss_fn, metrics=metrics, gradient_strategy=strategy)
        return trainer, trainer.init(jax.random.key(seed)), data
    came = ", ".join(paths.describe(part) for part in what) or "nothing"
    raise RunError(
        "Expected Run(trainer, state, data), Run(trainer, data) or Run(model, optimizer, loss_fn, data),"
        f" got {came}."
    )


def whole_number(name: str, value: Any, least: int) -> int:
    """A whole number of any type as Python's own.

    Raises:
      RunError: it is none, or below ``least``.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise RunError(f"{name} is {value!r}; expected a whole number from {least}.")
    return number


def whole_number_or_none(name: str, value: Any, least: int) -> int | None:
    """The same, or None."""
    return None if value is None else whole_number(name, value, least)


def check_name(what: str, name: Any) -> None:
    """Checks what a run or a branch is to be called.

    Raises:
      RunError: it is no text of one line.
    """
    if not isinstance(name, str) or not name.strip() or len(name.splitlines()) > 1:
        raise RunError(f"{what} is to be called {name!r}; expected a name in one line.")


def check_eval_data(data: Any) -> None:
    """Checks what is to be evaluated, again and again.

    Raises:
      DataError: it cannot be iterated, or only once.
    """
    if data is None:
        return
    source = data if isinstance(data, Stream) or hasattr(data, "in_order") else stream(data)
    if isinstance(data, Iterator) or not getattr(source, "goes_back", True):
        raise DataError(
            f"eval_data is read at the end of each window, and {type(data).__name__} can be read only once."
            " Pass something that can be iterated again: a list, toolshed.data.from_arrays or from_function."
        )


def checked_watches(watch: Any) -> tuple[Watch, ...]:
    """What `Run.train` was given as ``watch``, as a tuple.

    Raises:
      RunError: one is no function.
    """
    watches = tuple(watch) if isinstance(watch, Sequence) else (watch,)
    for one in watches:
        if not callable(one):
            raise RunError(f"Expected a watch to be a function, got {paths.describe(one)}.")
    return watches
