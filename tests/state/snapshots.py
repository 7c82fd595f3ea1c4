"""States to take snapshots of, and a file to write them to."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

import toolshed
from tests import zoo
from toolshed import TrainState
from toolshed.keys import is_key

SECTIONS = ["params", "frozen", "model_state", "opt_state", "loss_fn_state", "metrics"]


def state_of(name: str, seed: int = 1, optimizer: Any = None, **fields: Any) -> TrainState:
    """The initial state of a model of the zoo."""
    return TrainState.initial_state(
        zoo.ZOO[name]().model, optimizer or optax.adam(0.1), jax.random.key(seed), **fields
    )


def after_steps(name: str, steps: int = 2) -> TrainState:
    """A state of a model of the zoo that was trained a little."""
    case = zoo.ZOO[name]()
    state = TrainState.initial_state(case.model, optax.adam(0.1), jax.random.key(1))
    step = toolshed.build_train_step(case.loss_fn, fields=("loss_total",))
    for _ in range(steps):
        state, _ = step(state, case.batch)
    return state


def to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def bits(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Every leaf as dtype, shape and exact bytes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return [(str(leaf.dtype), leaf.shape, to_numpy(leaf).tobytes()) for leaf in leaves]


def through_npz(snapshot: Mapping[str, Any], *, words: bool = True) -> dict[str, Any]:
    """The snapshot written by np.savez and read by np.load without pickle; names are the paths, as JSON.

    Words and numbers come back as arrays of no axis; with ``words`` they are made plain again.
    """

    def leaves(tree: Any, *path: str) -> Any:
        if isinstance(tree, Mapping):
            for key, value in tree.items():
                yield from leaves(value, *path, key)
        else:
            yield json.dumps(path), tree

    file = io.BytesIO()
    np.savez(file, **dict(leaves(snapshot)))
    file.seek(0)
    nested: dict[str, Any] = {name: {} for name in SECTIONS}
    with np.load(file, allow_pickle=False) as loaded:
        for name in loaded.files:
            *path, last = json.loads(name)
            place = nested
            for key in path:
                place = place.setdefault(key, {})
            value = loaded[name]
            place[last] = value.item() if words and value.dtype.kind == "U" else value
    return nested
