"""Small runs: real models and data, with programs that are compiled once for all tests of a process."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

import toolshed
from tests import zoo
from tests.training.by_hand import batches

LENGTH = 5
RATE = 1e-2


@functools.cache
def data() -> tuple[dict[str, np.ndarray], ...]:
    """Five different batches of 8 examples."""
    return tuple(batches(zoo.mlp(), LENGTH))


@functools.cache
def trainer() -> toolshed.Trainer:
    """4 → 8 → 1 with adam, whose learning rate can be edited, and one metric."""
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=RATE)
    metrics = toolshed.metrics.collection(norm=toolshed.metrics.Norm("params"))
    return toolshed.Trainer(zoo.mlp().model, optimizer, zoo.regression_loss, metrics=metrics)


def new_run(source: Any = None, **options: Any) -> toolshed.Run:
    """A run of `trainer` from its first step on."""
    return toolshed.Run(trainer(), list(data()) if source is None else source, **options)


@functools.cache
def clean() -> list[dict[str, np.ndarray]]:
    """The parameters of a run that nothing disturbs, at each of its first 40 steps."""
    run = new_run()
    seen = [params_of(run)]
    for _ in range(40):
        run.train(1, wait=False)
        run.wait()
        seen.append(params_of(run))
    return seen


def params_of(run: toolshed.Run) -> dict[str, np.ndarray]:
    return {path: np.array(value) for path, value in run.state.params.items()}


def is_clean(run: toolshed.Run) -> bool:
    """Whether the run's parameters are those, bit for bit, that a clean run has at this step."""
    expected, found = clean()[int(run.state.step)], params_of(run)
    return all(found[path].tobytes() == expected[path].tobytes() for path in expected)


def slowly(seconds: float = 0.002) -> Iterator[dict[str, np.ndarray]]:
    """The batches without end, each after a while, so that a training lasts and hands over its values."""
    number = 0
    while True:
        time.sleep(seconds)
        yield data()[number % LENGTH]
        number += 1


def slow_stream(seconds: float = 0.01) -> Any:
    """The same as a stream that can go back."""

    def batch(number: int) -> dict[str, np.ndarray]:
        time.sleep(seconds)
        return data()[number % LENGTH]

    return toolshed.data.from_function(batch, LENGTH)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for a condition to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come true"
        time.sleep(0.002)


def events_of(run: toolshed.Run, kind: str) -> list[toolshed.run.Event]:
    return [event for event in run.events if event.kind == kind]


def values(run: toolshed.Run, name: str, branch: str | None = None) -> dict[int, float]:
    """The values of a name by step."""
    series = run.history.series(name, branch)
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def in_thread(fn: Callable[[], Any]) -> Any:
    """What a function gives, or raises, that is called in a thread of its own."""
    came: list[Any] = []

    def call() -> None:
        try:
            came.append(fn())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    assert came, "it is still waiting"
    if isinstance(came[0], BaseException):
        raise came[0]
    return came[0]


def is_alive(state: toolshed.TrainState) -> bool:
    """Whether all arrays of a state can be read; raises where one was given away."""
    return all(math.isfinite(float(np.sum(np.asarray(leaf)))) for leaf in jax.tree.leaves(state.params))
