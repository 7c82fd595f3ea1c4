"""What is gathered over a window of steps: the loss, the metrics and an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from toolshed.run.publisher import OWN_NAMES, Publisher
from toolshed.state import TrainState
from toolshed.training import Trainer


class Gathering:
    """The values of windows. Belongs to the run's thread.

    Args:
      trainer: whose metrics.
      publisher: writes them down.
      window: steps over which metrics gather.
    """

    def __init__(self, trainer: Trainer, publisher: Publisher, window: int):
        self._trainer = trainer
        self._publisher = publisher
        self._window = window

    @property
    def names(self) -> frozenset[str]:
        """The names of the values that are written here, and of those that the publisher adds."""
        metrics = [] if self._trainer.metrics is None else self._trainer.metrics.names
        gathered = [f"{split}/{name}" for split in ("train", "eval") for name in ("loss", *metrics)]
        return frozenset((*gathered, *OWN_NAMES))

    def end(self, step: int, state: TrainState) -> None:
        """Hands over the metrics of the window that ends here."""
        metrics = state.metrics
        if metrics is not None:
            kept = metrics.with_states(jax.tree.map(lambda leaf: leaf.copy(), metrics.states))
            self._publisher.values(step, lambda: _named("train", kept.compute()))

    def evaluate(self, step: int, state: TrainState, data: Any) -> dict[str, float]:
        """Loss and metrics of a state on other data. Waits for the device."""
        values = _named("eval", self._trainer.evaluate(state, data))
        self._publisher.values(step, lambda: values, kind="evaluated")
        return values

    def values(self, step: int, state: TrainState) -> dict[str, float]:
        """The mean loss and the metrics of the window that ends here. Waits for what was handed over."""
        self._publisher.finish()
        series = self._publisher.history.series("train/loss")
        recent = series.values[series.steps > step - self._window]
        values = {"train/loss": float(np.mean(recent))} if len(recent) else {}
        return values | _named("train", state.compute_metrics())


def _named(split: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{split}/{name}": value for name, value in values.items()}
