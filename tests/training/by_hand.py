"""Training written by hand with jax and optax alone: what toolshed's steps are compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from penzai import pz

import toolshed
from tests import zoo
from toolshed.keys import raw_key
from toolshed.paths import path_string

COMPILED = "/jax/core/compile/backend_compile_duration"


class Trained(NamedTuple):
    """What a training by hand came to: parameters by path, and the loss of each step."""

    params: dict[str, np.ndarray]
    losses: list[float]


def batches(case: zoo.Case, n: int) -> list[dict[str, np.ndarray]]:
    """``n`` different batches in the shapes of the case's own."""
    rng = np.random.default_rng(0)

    def vary(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        if leaf.dtype.kind == "f":
            return leaf + 0.3 * rng.normal(size=leaf.shape).astype(leaf.dtype)
        return ((leaf + rng.integers(0, zoo.VOCABULARY, leaf.shape)) % zoo.VOCABULARY).astype(leaf.dtype)

    return [{name: vary(leaf) for name, leaf in case.batch.items()} for _ in range(n)]


def train(
    case: zoo.Case, optimizer: optax.GradientTransformation, root_rng: jax.Array, data: Iterable[Any]
) -> Trained:
    """The loop that anyone would write: one jitted function, optax, a key folded from the step."""
    skeleton, frozen = pz.unbind_params(case.model, freeze=True)
    values = {parameter.label: parameter.value for parameter in frozen}

    @jax.jit
    def step(values: Any, opt_state: Any, number: Any, batch: Any) -> Any:
        rng = jax.random.fold_in(root_rng, number)

        def loss_of(values: Any) -> Any:
            bound = [
                pz.ParameterValue(value=value, label=label, metadata={}) for label, value in values.items()
            ]
            model = pz.bind_variables(skeleton, bound)
            return case.loss_fn(model=model, state=None, rng=rng, **batch)[0]

        loss, grads = jax.value_and_grad(loss_of)(values)
        updates, opt_state = optimizer.update(grads, opt_state, values)
        return optax.apply_updates(values, updates), opt_state, loss

    opt_state, losses = optimizer.init(values), []
    for number, batch in enumerate(data):
        values, opt_state, loss = step(values, opt_state, number, batch)
        losses.append(float(loss))
    return Trained({label: np.asarray(jax.tree.leaves(value)[0]) for label, value in values.items()}, losses)


def new_state(
    case: zoo.Case, optimizer: optax.GradientTransformation | None = None, **parts: Any
) -> toolshed.TrainState:
    """A fresh state of the case's model; its root key is ``jax.random.key(1)``."""
    root_rng = parts.pop("root_rng", jax.random.key(1))
    return toolshed.TrainState.initial_state(case.model, optimizer or optax.adam(1e-2), root_rng, **parts)


def on_host(tree: Any) -> dict[str, np.ndarray]:
    """Copies of all arrays of a tree by path; typed keys as their bits, named arrays opened."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_string(keys): np.array(raw_key(leaf)) for keys, leaf in leaves if hasattr(leaf, "dtype")}


def values_of(state: toolshed.TrainState) -> dict[str, np.ndarray]:
    """Copies of all that a step can change in a state."""
    fields = ("step", "params", "opt_state", "model_state", "loss_fn_state")
    return on_host({name: getattr(state, name) for name in fields})


def differing(left: Any, right: Any) -> list[str]:
    """Paths whose arrays differ in any bit, or that are on one side alone. NaN equals the same NaN."""
    left, right = on_host(left), on_host(right)
    return [
        path
        for path in {**left, **right}
        if path not in left
        or path not in right
        or left[path].dtype != right[path].dtype
        or left[path].shape != right[path].shape
        or left[path].tobytes() != right[path].tobytes()
    ]


@contextlib.contextmanager
def count_compilations() -> Iterator[list[str]]:
    """A list that grows by the name of each function that XLA compiles in this block."""
    compiled: list[str] = []

    def listen(event: str, duration: float, **info: Any) -> None:
        if event == COMPILED:
            compiled.append(str(info.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
