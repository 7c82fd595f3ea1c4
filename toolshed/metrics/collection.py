"""Named metrics and what they have seen, as one value."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from penzai import pz

from toolshed.errors import CapacityWarning, ToolshedError
from toolshed.metrics.metric import Metric
from toolshed.paths import describe
from toolshed.structs import STATIC, struct


class Definition:
    """The metrics of a collection by name; compared by identity, as it is part of a compiled step."""

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = dict(metrics)
        self.compute = jax.jit(self._compute)

    def _compute(self, states: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The value of each metric, and how many examples those have seen that can hold only so many."""
        values = {name: metric.compute(states[name]) for name, metric in self.metrics.items()}
        limited: dict[str, Any] = {
            name: metric
            for name, metric in self.metrics.items()
            if getattr(metric, "capacity", None) is not None
        }
        return values, {name: metric.seen(states[name]) for name, metric in limited.items()}

    def __repr__(self) -> str:
        return ", ".join(f"{name}={metric}" for name, metric in self.metrics.items())


@struct(eq=False)
class Collection(pz.Struct):
    """Named metrics and what they have seen, as one immutable value.

    Attributes:
      states: a state by name.
      definition: the metrics by name. Static.

    Example:
      >>> import toolshed
      >>> metrics = toolshed.metrics.collection(accuracy=toolshed.metrics.Accuracy())
      >>> metrics.compute()
      {'accuracy': nan}
    """

    states: dict[str, Any]
    definition: Definition = dataclasses.field(metadata=STATIC)

    @property
    def names(self) -> list[str]:
        """The keys of what `compute` gives."""
        metrics = self.definition.metrics
        return [
            f"{name}/{path}" if path else name
            for name in metrics
            for path in getattr(metrics[name], "names", ()) or ("",)
        ]

    def states_from(self, context: Any) -> dict[str, Any]:
        """The states of one step alone, by name."""
        return {name: metric.state_from(context) for name, metric in self.definition.metrics.items()}

    def merge_states(self, states: Mapping[str, Any]) -> Collection:
        """This collection with the states of more steps merged in."""
        metrics = self.definition.metrics
        return self.with_states(
            {name: metrics[name].merge(self.states[name], states[name]) for name in metrics}
        )

    def with_states(self, states: dict[str, Any]) -> Collection:
        """The same metrics with other states."""
        return Collection(states, self.definition)

    def update(self, context: Any) -> Collection:
        """This collection, having also seen one step."""
        return self.merge_states(self.states_from(context))

    def merge(self, other: Collection) -> Collection:
        """This collection and another of the same metrics together."""
        return self.merge_states(other.states)

    def reset(self) -> Collection:
        """The same metrics, having seen nothing."""
        return self.with_states({name: metric.empty() for name, metric in self.definition.metrics.items()})

    def compute(self) -> dict[str, Any]:
        """Each metric's value by name, NaN for one that saw no example. Waits for the device, once.

        Returns:
          A float for a scalar, a numpy array for a metric by class or a matrix. A metric that names the
          entries of its value (`toolshed.metrics.Mapped`) has an entry ``name/path`` for each.

        Warns:
          CapacityWarning: a metric came to more examples than it can hold, and is NaN.
        """
        values, seen = jax.device_get(self.definition.compute(self.states))
        for name, number in seen.items():
            _warn_beyond(name, self.definition.metrics[name], int(number))
        return {
            path: float(value) if np.ndim(value) == 0 else np.asarray(value)
            for name in self.definition.metrics
            for path, value in _entries(name, self.definition.metrics[name], values[name])
        }


def collection(**metrics: Metric) -> Collection:
    """An empty collection of metrics by name."""
    for name, metric in metrics.items():
        if not isinstance(metric, Metric) or isinstance(metric, type):
            raise ToolshedError(
                f"The metric {name!r} is {describe(metric)}; expected one like toolshed.metrics.Accuracy()."
            )
    definition = Definition(metrics)
    return Collection({name: metric.empty() for name, metric in metrics.items()}, definition)


def _entries(name: str, metric: Metric, value: Any) -> list[tuple[str, Any]]:
    names = getattr(metric, "names", ())
    if names:
        return [(f"{name}/{path}", part) for path, part in zip(names, value, strict=True)]
    return [(name, value)]


def _warn_beyond(name: str, metric: Any, seen: int) -> None:
    if seen > metric.capacity:
        warnings.warn(
            f"The metric {name!r} has seen {seen} examples and holds {metric.capacity}: its value is NaN. Set"
            f" capacity={seen} or more, or bins=1000 for a state of fixed size.",
            CapacityWarning,
            stacklevel=3,
        )
