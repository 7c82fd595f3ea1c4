"""Watches: what `Trainer.fit` asks at the end of each window, to stop, slow down, or keep a state.

A watch is any function ``(step, values, state) -> TrainState | None``. ``values`` are the window's
numbers by name (``train/loss``, ``eval/accuracy``); a state that it gives back is trained on with; it may
raise `EarlyStop`. The classes here remember what they have seen, and begin anew with each `fit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed import paths
from toolshed.data import Stream
from toolshed.errors import DataError, ToolshedError
from toolshed.state import TrainState

Watch = Callable[[int, Mapping[str, Any], TrainState], TrainState | None]


class EarlyStop(Exception):  # noqa: N818  (a signal, not an error)
    """Raise it in a ``report`` or a watch to end `Trainer.fit`, which then returns the state it has."""


class Monitor:
    """What watches of one value share: which value, and whether it got better.

    Attributes:
      monitor: the name of the value.
      mode: ``"min"`` or ``"max"``: which is better.
      min_delta: by how much a value must be better to count.
      best: the best value so far; NaN before there is one.
      best_step: the number of steps that were done then; None before.
    """

    def __init__(self, monitor: str, *, mode: str, min_delta: float):
        if mode not in ("min", "max"):
            raise ToolshedError(f"mode is {mode!r}; expected 'min' or 'max'.")
        if not min_delta >= 0:
            raise ToolshedError(f"min_delta is {min_delta!r}; expected a number from 0.")
        self.monitor, self.mode, self.min_delta = monitor, mode, min_delta
        self.restart()

    def restart(self) -> None:
        """Forgets what was seen."""
        self.best = math.nan
        self.best_step: int | None = None

    def check(self, names: Iterable[str], state: TrainState) -> None:
        """Checks, before the first step, that there will be such a value.

        Raises:
          ToolshedError: there will not; the message names those that there are.
        """
        del state
        names = list(names)
        if self.monitor not in names:
            close = paths.nearest(self.monitor, names, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(names)}."
            raise ToolshedError(f"{type(self).__name__} has no value {self.monitor!r} to monitor. {hint}")

    def _improved(self, step: int, values: Mapping[str, Any]) -> bool:
        """Whether this value is the best so far, which it then becomes. NaN never is."""
        value = values[self.monitor]
        if np.ndim(value):
            raise ToolshedError(
                f"{type(self).__name__} monitors {self.monitor!r}, which is {paths.describe(value)}; expected"
                " a metric whose value is a scalar."
            )
        gain = self.best - value if self.mode == "min" else value - self.best
        if math.isnan(value) or not (math.isnan(self.best) or gain > self.min_delta):
            return False
        self.best, self.best_step = value, step
        return True


class EarlyStopping(Monitor):
    """Ends training when a value has not got better for a while.

    Args:
      monitor: ``train/loss``, ``eval/accuracy`` and so on.
      patience: how many windows in a row may pass without a better value.
      min_delta: by how much a value must be better to count.
      mode: ``"min"`` or ``"max"``.
    """

    def __init__(self, monitor: str, *, patience: int, min_delta: float = 0.0, mode: str = "min"):
        self.patience = _whole("patience", patience)
        super().__init__(monitor, mode=mode, min_delta=min_delta)

    def restart(self) -> None:
        super().restart()
        self._waited = 0

    def __call__(self, step: int, values: Mapping[str, Any], state: TrainState) -> None:
        """Raises `EarlyStop` in the window in which patience ends."""
        del state
        self._waited = 0 if self._improved(step, values) else self._waited + 1
        if self._waited >= self.patience:
            raise EarlyStop(f"{self.monitor} was best after step {self.best_step}: {self.best:.6g}.")


class ReduceOnPlateau(Monitor):
    """Lowers the learning rate when a value has not got better for a while.

    The optimiser must keep its learning rate in its state:
    ``optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)``.

    Args:
      monitor: ``train/loss``, ``eval/accuracy`` and so on.
      factor: what the learning rate is multiplied by.
      patience: how many windows in a row may pass without a better value; counted anew after each cut.
      min_delta: by how much a value must be better to count.
      mode: ``"min"`` or ``"max"``.
      minimum: the learning rate is not made smaller than this.
      hyperparameter: its name in the optimiser's state.
    """

    def __init__(
        self,
        monitor: str,
        *,
        patience: int,
        factor: float = 0.5,
        min_delta: float = 0.0,
        mode: str = "min",
        minimum: float = 0.0,
        hyperparameter: str = "learning_rate",
    ):
        if not 0 < factor < 1:
            raise ToolshedError(f"factor is {factor!r}; expected a number between 0 and 1.")
        self.patience, self.factor = _whole("patience", patience), factor
        self.minimum, self.hyperparameter = minimum, hyperparameter
        super().__init__(monitor, mode=mode, min_delta=min_delta)

    def restart(self) -> None:
        super().restart()
        self._waited = 0

    def check(self, names: Iterable[str], state: TrainState) -> None:
        super().check(names, state)
        name, nodes = self.hyperparameter, _injected(state.opt_state)
        held = [node for node in nodes if name in node.hyperparams]
        if not held:
            raise ToolshedError(
                f"The optimiser does not keep {name!r} in its state, so ReduceOnPlateau cannot change it."
                f" Make it with optax.inject_hyperparams(optax.adam)({name}=…)."
            )
        if any(name in getattr(node, "hyperparams_states", {}) for node in held):
            raise ToolshedError(
                f"A schedule sets {name!r} anew at each step, so ReduceOnPlateau cannot change it. Give the"
                " optimiser a number."
            )

    def __call__(self, step: int, values: Mapping[str, Any], state: TrainState) -> TrainState | None:
        """The state with a lower learning rate, in the window in which patience ends; otherwise None."""
        self._waited = 0 if self._improved(step, values) else self._waited + 1
        if self._waited < self.patience:
            return None
        self._waited = 0
        return state.replace(opt_state=self._lowered(state.opt_state))

    def _lowered(self, opt_state: Any) -> Any:
        name = self.hyperparameter

        def lower(node: Any) -> Any:
            if not _is_injected(node) or name not in node.hyperparams:
                return node
            old = node.hyperparams[name]
            new = jnp.maximum(old * self.factor, jnp.minimum(self.minimum, old)).astype(old.dtype)
            return node._replace(hyperparams={**node.hyperparams, name: new})

        return jax.tree.map(lower, opt_state, is_leaf=_is_injected)


class KeepBest(Monitor):
    """Keeps the state with the best value.

    Attributes:
      state: that state; None before there is one.

    Args:
      monitor: ``train/loss``, ``eval/accuracy`` and so on.
      mode: ``"min"`` or ``"max"``.
      min_delta: by how much a value must be better to count.
    """

    def __init__(self, monitor: str, *, mode: str = "min", min_delta: float = 0.0):
        self.state: TrainState | None = None
        super().__init__(monitor, mode=mode, min_delta=min_delta)

    def restart(self) -> None:
        super().restart()
        self.state = None

    def __call__(self, step: int, values: Mapping[str, Any], state: TrainState) -> None:
        """Keeps this state if its value is the best so far."""
        if self._improved(step, values):
            self.state = state


def _is_injected(node: Any) -> bool:
    return isinstance(getattr(node, "hyperparams", None), Mapping)


def _injected(opt_state: Any) -> list[Any]:
    return [node for node in jax.tree.leaves(opt_state, is_leaf=_is_injected) if _is_injected(node)]


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ToolshedError(f"{name} is {value!r}; expected a whole number from 1.")
    return value


def saving_in(checkpoints: Any, data: Any) -> Watch:
    """A watch that saves each state in a repository, with the window's numbers and the place in the data.

    It belongs behind all others, so that it sees what they changed.

    Raises:
      ToolshedError: it is no repository.
    """
    if not callable(getattr(checkpoints, "save", None)):
        raise ToolshedError(f"checkpoints is {checkpoints!r}; expected a toolshed.checkpoints.Repository.")

    def save(step: int, values: Mapping[str, Any], state: TrainState) -> None:
        del step
        numbers = {name: value for name, value in values.items() if np.ndim(value) == 0}
        position = data.state() if isinstance(data, Stream) else None
        checkpoints.save(state, metrics=numbers, data_state=position)

    return save


def checked_window(window: Any, data: Any) -> int:
    """The number of steps between two calls of watches; None for as many as the data have batches.

    Raises:
      DataError: it is no whole number from 1, or the data do not tell.
    """
    if window is None:
        try:
            window = len(data)
        except TypeError:
            raise DataError(
                f"How many steps is a window? {type(data).__name__} does not tell its number of batches:"
                " pass window=…."
            ) from None
    if not isinstance(window, int) or window < 1:
        raise DataError(f"window is {window!r}; expected a whole number from 1.")
    return window
