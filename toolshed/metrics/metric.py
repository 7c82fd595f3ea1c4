"""Metrics as values: a small state per batch that merges with any other.

Merging two states equals computing over both their batches at once, in any order. An empty metric is
NaN, never 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32
from penzai import pz

from toolshed.errors import ToolshedError
from toolshed.paths import describe
from toolshed.structs import STATIC, struct


@runtime_checkable
class Metric(Protocol):
    """What a metric is; implementations are frozen dataclasses whose fields are Context paths."""

    def empty(self) -> Any:
        """The state of no example at all: a pytree of arrays."""
        ...

    def state_from(self, context: Any) -> Any:
        """The state of one step. Pure; runs inside the compiled step."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """The state of both together."""
        ...

    def compute(self, state: Any) -> jax.Array:
        """The value of a state, a scalar."""
        ...


_SumAndCount = tuple[Float32[Array, ""], Float32[Array, ""]]


class _Ratio:
    """What metrics that are a sum over a count share."""

    def empty(self) -> _SumAndCount:
        return jnp.zeros(()), jnp.zeros(())

    def merge(self, a: _SumAndCount, b: _SumAndCount) -> _SumAndCount:
        return a[0] + b[0], a[1] + b[1]

    def compute(self, state: _SumAndCount) -> Float32[Array, ""]:
        total, count = state
        return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), jnp.nan)


def _sum_and_count(values: Any, mask: Any, what: str) -> _SumAndCount:
    """Sum and number of the values whose mask is true. A masked NaN stays out."""
    values = jnp.asarray(values, jnp.float32)
    if mask is None:
        return values.sum(), jnp.asarray(values.size, jnp.float32)
    mask = jnp.asarray(mask)
    if mask.shape != values.shape[: mask.ndim]:
        raise ToolshedError(
            f"The mask is {describe(mask)} and {what} is {describe(values)}: a mask needs the first axes of"
            " what it masks."
        )
    mask = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)) != 0, values.shape)
    return jnp.where(mask, values, 0).sum(), mask.sum(dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Mean(_Ratio):
    """The mean of all values at a path, over all steps.

    Attributes:
      values: a Context path.
      mask: a Context path of what counts, with the first axes of the values; None counts all.
    """

    values: str
    mask: str | None = None

    def state_from(self, context: Any) -> _SumAndCount:
        mask = None if self.mask is None else context[self.mask]
        return _sum_and_count(context[self.values], mask, self.values)


@dataclasses.dataclass(frozen=True)
class Accuracy(_Ratio):
    """The share of examples whose largest prediction is at the target's class.

    Attributes:
      predictions: a Context path of scores, float[..., classes].
      targets: a Context path of classes, int[...].
      mask: a Context path of what counts, bool[...] or its first axes; None counts all.
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = None

    def state_from(self, context: Any) -> _SumAndCount:
        scores, targets = jnp.asarray(context[self.predictions]), jnp.asarray(context[self.targets])
        if scores.shape[:-1] != targets.shape:
            raise ToolshedError(
                f"{self.predictions} is {describe(scores)}, {self.targets} is {describe(targets)}; expected"
                " predictions with one more axis than the targets, the last one over classes."
            )
        mask = None if self.mask is None else context[self.mask]
        return _sum_and_count(scores.argmax(-1) == targets, mask, self.targets)


class Definition:
    """The metrics of a collection by name; compared by identity, as it is part of a compiled step."""

    def __init__(self, metrics: Mapping[str, Metric]):
        self.metrics = dict(metrics)

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

    def compute(self) -> dict[str, float]:
        """Each metric's value by name, NaN for one that saw no example. Waits for the device."""
        metrics = self.definition.metrics
        values = {name: metrics[name].compute(self.states[name]) for name in metrics}
        return {name: float(value) for name, value in jax.device_get(values).items()}


def collection(**metrics: Metric) -> Collection:
    """An empty collection of metrics by name."""
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise ToolshedError(
                f"The metric {name!r} is {describe(metric)}; expected one like toolshed.metrics.Accuracy()."
            )
    definition = Definition(metrics)
    return Collection({name: metric.empty() for name, metric in metrics.items()}, definition)
