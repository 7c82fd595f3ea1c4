"""Futures of a run: what the next steps would be with other hyperparameters, tried out aside."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from toolshed import paths
from toolshed.errors import RunError
from toolshed.keys import raw_key
from toolshed.run.edits import set_values
from toolshed.run.engine import Engine
from toolshed.run.run import Run
from toolshed.run.timeline import size_of
from toolshed.run.track import Series
from toolshed.state import TrainState
from toolshed.training import Trainer
from toolshed.training.carried import Carried
from toolshed.training.program import Computation, Skeleton
from toolshed.training.stepper import Stepper

_PAST = 1000  # losses of the run itself that are kept
_LAST = 0.1  # of the steps: what the futures are compared by
_AT_ONCE = 2**28  # bytes that the states may take to be trained side by side


@dataclasses.dataclass(frozen=True)
class Futures:
    """The losses of futures that `what_if` tried out.

    Attributes:
      step: steps done when they begin.
      steps: the steps of the losses; int64[m].
      values: the hyperparameters of each future.
      losses: the loss of each step of each future; float32[futures, m].
      past: the run's own losses up to ``step``, at most 1,000 of them, spread evenly.
    """

    step: int
    steps: Int[np.ndarray, " m"]
    values: tuple[Mapping[str, float], ...]
    losses: Float[np.ndarray, "futures m"]
    past: Series

    @property
    def best(self) -> int:
        """Which future has the lowest mean loss over the last tenth of its steps; NaN is never lower."""
        return int(np.argmin(self._ends()))

    def label(self, number: int) -> str:
        """The hyperparameters of a future in words: ``learning_rate 0.003``."""
        return ", ".join(f"{name} {value:.3g}" for name, value in self.values[number].items())

    def _ends(self) -> np.ndarray:
        last = max(1, round(_LAST * len(self.steps)))
        ends = self.losses[:, -last:].astype(np.float64).mean(axis=1)
        return np.where(np.isfinite(ends), ends, np.inf)

    def __repr__(self) -> str:
        head = f"{len(self.values)} futures of {len(self.steps):,} steps from step {self.step:,}"
        names = [self.label(number) for number in range(len(self.values))]
        width = max(map(len, names))
        lines = [
            f"  {name:<{width}}  loss {end:.4g}{'  ← best' if number == self.best else ''}"
            for number, (name, end) in enumerate(zip(names, self._ends(), strict=True))
        ]
        return "\n".join([head, *lines])


def what_if(run: Run, steps: int = 50, *, at_once: bool | None = None, **values: Sequence[float]) -> Futures:
    """Tries out how the run would go on with other hyperparameters, and changes nothing.

    ``what_if(run, learning_rate=[1e-4, 1e-3, 1e-2])`` trains three copies of the state on the run's next
    batches. Nothing is written down, the data goes back to where it was, and a training in the background
    waits meanwhile. One after another, each future is bit for bit what ``run.edit`` and ``run.train`` would
    give; at once they agree to rounding. Waits for the device.

    Args:
      run: whose future.
      steps: how many.
      at_once: whether to train all copies side by side in one program; by default where the states take
        less than 256 MB and lie on one device.
      **values: for each hyperparameter (see `Run.hyperparameters`) one value a future.

    Raises:
      RunError: there is no such hyperparameter, or the numbers of values differ.
      DataError: the run's data can be read only forwards.
    """
    if not isinstance(run, Run):
        raise RunError(f"Expected a Run, got {paths.describe(run)}.")
    if not isinstance(steps, int) or steps < 1:
        raise RunError(f"steps is {steps!r}; expected a whole number from 1.")
    futures = _futures(values)
    return run._aside(lambda engine: _try_out(engine, futures, steps, at_once))


def _futures(values: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], ...]:
    """The hyperparameters of each future, from the values of each hyperparameter."""
    lists = {name: list(np.atleast_1d(np.asarray(given, dtype=object))) for name, given in values.items()}
    lengths = {name: len(given) for name, given in lists.items()}
    if not lists or len(set(lengths.values())) > 1 or not all(lengths.values()):
        came = ", ".join(f"{n} for {name}" for name, n in lengths.items()) or "none"
        raise RunError(
            f"what_if got {came}; expected as many values for each hyperparameter, one a future, such as"
            " learning_rate=[1e-4, 1e-3]."
        )
    count = next(iter(lengths.values()))
    return tuple({name: given[i] for name, given in lists.items()} for i in range(count))


def _try_out(
    engine: Engine, futures: tuple[dict[str, float], ...], steps: int, at_once: bool | None
) -> Futures:
    state = engine.state()
    states = [set_values(state, values) for values in futures]  # raises before anything is computed
    if at_once is None:
        at_once = len(state.step.devices()) == 1 and len(states) * size_of(state) <= _AT_ONCE
    batches = (engine.feed.take() for _ in range(steps))
    losses = (_side_by_side if at_once else _one_by_one)(engine, states, batches)
    numbers = np.arange(engine.step + 1, engine.step + steps + 1)
    named = tuple({name: float(value) for name, value in values.items()} for values in futures)
    return Futures(engine.step, numbers, named, losses, _past(engine))


def _one_by_one(engine: Engine, states: list[TrainState], batches: Iterable[Any]) -> np.ndarray:
    """The losses by the run's own programs; float32[futures, steps]."""
    losses, batches = [], list(batches)
    for state in states:
        stepper, tape = Stepper(state), engine.programs.quick.tape()
        for number, batch in enumerate(batches, engine.step):
            engine.check_halt()
            engine.programs.make(stepper, number, [batch], tape)
        losses.append(tape.take().values[:, 0])
    return np.stack(losses)


def _side_by_side(engine: Engine, states: list[TrainState], batches: Iterable[Any]) -> np.ndarray:
    """The losses by one program for all; float32[futures, steps]."""
    first = states[0].replace(metrics=None)
    skeleton = Skeleton(first.model_without_params)
    carried = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_carried, states))
    run = _kept_program(first, skeleton, engine)
    losses = []
    for batch in batches:
        engine.check_halt()
        carried, loss = run(carried, skeleton.constants, raw_key(first.root_rng), batch)
        losses.append(loss)
    return np.stack(jax.device_get(losses), axis=1).astype(np.float32)


def _carried(state: TrainState) -> Carried:
    return Carried(state.params, state.opt_state, state.model_state, (state.step, state.loss_fn_state, None))


_programs: weakref.WeakKeyDictionary[Trainer, tuple[Any, Any]] = weakref.WeakKeyDictionary()
"""The newest program of each trainer, with what it is for."""


def _kept_program(state: TrainState, skeleton: Skeleton, engine: Engine) -> Any:
    identity = (skeleton.identity, state.optimizer_def, str(getattr(state.root_rng, "dtype", "")))
    kept = _programs.get(engine.trainer)
    if kept is None or kept[0] != identity:
        kept = _programs[engine.trainer] = (identity, _program(state, skeleton, engine))
    return kept[1]


def _program(state: TrainState, skeleton: Skeleton, engine: Engine) -> Any:
    """One step of several states on one batch, compiled: what they carry, and their losses."""
    computation = Computation(
        state,
        skeleton,
        loss_fn=engine.trainer.loss_fn,
        gradient_strategy=engine.trainer.gradient_strategy,
        outputs=("loss_total",),
        record=(),
        steps_per_call=1,
        check_finite=False,
    )

    def one(carried: Carried, constants: Any, key: Any, batch: Any) -> Any:
        after, fields, _ = computation(*carried, constants, key, batch, None)
        return Carried(*after), fields["loss_total"]

    return jax.jit(jax.vmap(one, in_axes=(0, None, None, None)), donate_argnums=0)


def _past(engine: Engine) -> Series:
    engine.publisher.finish()
    history = engine.publisher.history
    if "train/loss" not in history.names:
        return Series(np.zeros(0, np.int64), np.zeros(0, np.float32))
    series = history.series("train/loss")
    here = np.flatnonzero(series.steps <= engine.step)
    kept = here[np.unique(np.linspace(0, len(here) - 1, min(_PAST, len(here))).astype(int))]
    return Series(series.steps[kept], series.values[kept])
