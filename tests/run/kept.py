"""Small runs that are kept on the disk."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from toolshed.state import snapshot as snapshots


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What orbax leaves behind where it fails is collected here, where a mark says that it is no error."""
    yield
    gc.collect()


def trainer(optimizer: Any = None, model: Any = None) -> toolshed.Trainer:
    """An MLP of 49 parameters whose learning rate can be edited."""
    chosen = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2) if optimizer is None else optimizer
    return toolshed.Trainer(zoo.mlp().model if model is None else model, chosen, zoo.regression_loss)


def data(seed: int = 0) -> toolshed.data.Stream:
    """Eleven shuffled batches of four."""
    source = np.random.default_rng(seed)
    x, y = source.normal(size=(44, 4)).astype("f"), source.normal(size=(44, 1)).astype("f")
    return toolshed.data.from_arrays({"x": x, "y": y}, batch_size=4, seed=3)


def bits(state: toolshed.TrainState) -> dict[str, bytes]:
    """All arrays of a state."""
    plain: Callable[[Any], Any] = lambda leaf: (  # noqa: E731
        jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )
    return {path: np.asarray(plain(leaf)).tobytes() for path, leaf in snapshots.arrays(state).items()}


def table(history: toolshed.run.History, branch: str | None = None) -> dict[str, tuple[Any, bytes]]:
    """All values but those of the clock."""
    return {
        name: (history.series(name, branch).steps.tolist(), history.series(name, branch).values.tobytes())
        for name in history.names
        if not name.startswith(("speed/", "memory/"))
    }


def let_go(run: toolshed.Run) -> None:
    """What a killed process does: nothing more is written, and the lock is free."""
    durable: Any = run._durable
    durable.saves.finish()
    durable._keeper._ends()
    durable._keeper._serial.put(lambda: None).done.wait()
    durable.repository.close()
    durable._keeper._close()
    durable._keeper.lock.release()
    toolshed.run.durable._ALL.discard(durable)
    durable._control.keeps, durable.ended = None, True
