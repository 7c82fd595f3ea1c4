"""Random data in uneven, masked batches whose states are merged in any order and grouping."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolshed import Context
from toolshed.metrics import Metric

SIZES = (1, 6)  # few shapes, so that few programs are compiled
TOLERANCE = 1e-6  # relative, or absolute below 1

Arrays = dict[str, np.ndarray]


def for_any_seed(test: Callable[..., None]) -> Callable[..., None]:
    """Calls a test with ten values of its argument ``seed``."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    ten = settings(deadline=None, max_examples=10, suppress_health_check=slow)
    return ten(given(seed=st.integers(0, 2**32 - 1))(test))


def context_of(arrays: Arrays) -> Context:
    """``preds`` as the model's output, ``aux/…`` as auxiliary, the rest as entries of the batch."""
    batch = {
        name: jnp.asarray(value) for name, value in arrays.items() if "/" not in name and name != "preds"
    }
    aux = {name[4:]: jnp.asarray(value) for name, value in arrays.items() if name.startswith("aux/")}
    fields: Any = {"preds": jnp.asarray(arrays["preds"])} if "preds" in arrays else {}
    return Context(step=0, batch=batch, aux=aux, **fields)


def random_batches(
    seed: int,
    make: Callable[[np.random.Generator, int], Arrays],
    *,
    sizes: tuple[int, ...] = SIZES,
    most: int = 5,
) -> tuple[list[Arrays], Arrays]:
    """One to ``most`` batches, each with a mask, and what counts of all, in one piece and in float64.

    What is masked is NaN where it can be.
    """
    rng = np.random.default_rng(seed)
    batches = []
    for n in rng.choice(sizes, rng.integers(1, most + 1)):
        batch = make(rng, int(n))
        mask = rng.random(n) < rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.6, 0.3])
        for value in batch.values():
            if value.dtype.kind == "f":
                value[~mask] = np.nan
        batches.append({**batch, "mask": mask})
    whole = {
        name: _wide(np.concatenate([batch[name][batch["mask"]] for batch in batches])) for name in batches[0]
    }
    return batches, whole


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if values.dtype.kind == "f" else values


class Compiled:
    """A metric whose functions are compiled, as they are in a step."""

    def __init__(self, metric: Metric):
        self.metric = metric
        self.state_from = jax.jit(lambda arrays: metric.state_from(context_of(arrays)))
        self.merge = jax.jit(metric.merge)
        self.compute = jax.jit(metric.compute)


compiled = functools.cache(Compiled)


@dataclasses.dataclass(frozen=True)
class Several:
    """Metrics as one: its programs have those of all of them, which takes less time to compile."""

    metrics: tuple[Metric, ...]

    def empty(self) -> Any:
        return [metric.empty() for metric in self.metrics]

    def state_from(self, context: Any) -> Any:
        return [metric.state_from(context) for metric in self.metrics]

    def merge(self, a: Any, b: Any) -> Any:
        return [metric.merge(*states) for metric, *states in zip(self.metrics, a, b, strict=True)]

    def compute(self, state: Any) -> Any:
        return [metric.compute(own) for metric, own in zip(self.metrics, state, strict=True)]


def value_of(metric: Metric, **arrays: Any) -> Any:
    """A metric of one batch."""
    one = compiled(metric)
    return np.asarray(
        one.compute(one.state_from({name: np.asarray(value) for name, value in arrays.items()}))
    )


def merged(metric: Metric, batches: list[Arrays], seed: int) -> Any:
    """The value of all batches, merging two states at a time until one is left, an empty one among them."""
    return merged_each([metric], batches, seed)[0]


def merged_each(metrics: Sequence[Metric], batches: list[Arrays], seed: int) -> list[Any]:
    """The value of each metric over all batches; see `merged`."""
    several, rng = compiled(Several(tuple(metrics))), np.random.default_rng(seed)
    states = [several.state_from(batch) for batch in batches]
    states.insert(int(rng.integers(len(states) + 1)), several.metric.empty())
    while len(states) > 1:
        a = states.pop(int(rng.integers(len(states))))
        b = states.pop(int(rng.integers(len(states))))
        states.append(several.merge(a, b))
    return [np.asarray(value) for value in several.compute(states[0])]


def check(value: Any, expected: Any) -> None:
    """Within a relative error of 1e-6, or an absolute one of 1e-6 for values below 1; NaN equals NaN."""
    expected = np.asarray(expected)
    assert np.shape(value) == expected.shape
    np.testing.assert_allclose(value, expected, rtol=TOLERANCE, atol=TOLERANCE)
