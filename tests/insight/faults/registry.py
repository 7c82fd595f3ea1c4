"""What a computation with a fault is, and the lists of them all."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import new_state

MARK = "#" + " FAULT"


@dataclasses.dataclass(frozen=True)
class Fault:
    """What must be found.

    Attributes:
      build: gives the function (or step) and its arguments; one line in it is marked.
      primitive: the operation.
      index: the first place; None where it does not matter.
      phase, iterations, near, became_nan: as in the report; None where they do not matter.
    """

    build: Callable[[], tuple[Any, ...]]
    primitive: str
    index: tuple[int, ...] | None = None
    phase: str = "forward"
    iterations: tuple[str, ...] = ()
    near: str | None = None
    became_nan: str | None = None

    @property
    def line(self) -> int | None:
        """The number of the marked line; None where none is."""
        lines, first = inspect.getsourcelines(self.build)
        marked = [number for number, line in enumerate(lines) if MARK in line]
        return first + marked[0] if marked else None


FAULTS: dict[str, Fault] = {}
HEALTHY: dict[str, Callable[[], tuple[Any, ...]]] = {}


def fault(primitive: str, **expected: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def register(build: Callable[[], Any]) -> Callable[[], Any]:
        FAULTS[build.__name__] = Fault(build, primitive, **expected)
        return build

    return register


def healthy(build: Callable[[], Any]) -> Callable[[], Any]:
    HEALTHY[build.__name__] = build
    return build


X = jnp.array([1.0, 0.0, 2.0, 3.0])
ONES = jnp.ones(4)


def small() -> zoo.Case:
    """2 → 1: three parameters in two arrays, and four examples."""
    model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 1])
    return zoo.Case(model, zoo.regression_loss, zoo.regression_batch(examples=4, features=2))


def a_step(loss_fn: Any = None, optimizer: Any = None, **changes: Any) -> tuple[Any, ...]:
    case = small()
    state = new_state(case, optimizer or optax.sgd(0.1))
    changes = {"fields": ("loss_total",), **changes}
    step = toolshed.build_train_step(loss_fn or case.loss_fn, **changes)
    return step, state, case.batch
