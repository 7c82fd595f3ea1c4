"""How long saving holds up a training loop, beside orbax alone and numpy's savez.

    python tests/benchmarks/checkpoint.py [--megabytes 10 500] [--rounds 5] [--folder DIR]

The loop makes donating steps over 100 arrays and waits for each. Stall is how long the call that saves takes,
and by how much the step after it is longer than its like; saved is the time until the disk has it. Each way
is warmed up once, for memory that a process touches for the first time is slow; toolshed's repository stays
open from save to save, as in a training, and keeps the last checkpoint. Only toolshed's files are checksummed
and synced to the disk.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from orbax.checkpoint import v1 as orbax

from toolshed import TrainState
from toolshed.checkpoints import Repository

LEAVES = 100
STEPS = 5  # between two saves

Save = Callable[[TrainState, Path], Callable[[], Any]]
"""Begins to save a state under a path of its own; what it returns waits for the end."""


def nothing() -> None:
    """There is nothing left to wait for."""


def toolshed_async(folder: Path) -> Save:
    repository = Repository(folder, keep_last=1)
    return lambda state, path: repository.save(state, step=int(path.name)).wait


def toolshed_sync(folder: Path) -> Save:
    repository = Repository(folder, keep_last=1)

    def save(state: TrainState, path: Path) -> Callable[[], Any]:
        repository.save(state, step=int(path.name), wait=True)
        return nothing

    return save


def orbax_async(folder: Path) -> Save:
    del folder
    return lambda state, path: orbax.save_checkpointables_async(path, {"state": state.params}).result


def orbax_sync(folder: Path) -> Save:
    del folder

    def save(state: TrainState, path: Path) -> Callable[[], Any]:
        orbax.save_checkpointables(path, {"state": state.params})
        return nothing

    return save


def savez_sync(folder: Path) -> Save:
    folder.mkdir()

    def save(state: TrainState, path: Path) -> Callable[[], Any]:
        np.savez(path, **{name: np.asarray(value) for name, value in state.params.items()})
        return nothing

    return save


def savez_thread(folder: Path) -> Save:
    folder.mkdir()

    def save(state: TrainState, path: Path) -> Callable[[], Any]:
        copies = {name: jnp.copy(value) for name, value in state.params.items()}
        write = lambda: np.savez(path, **{name: np.asarray(value) for name, value in copies.items()})  # noqa: E731
        thread = threading.Thread(target=write)
        thread.start()
        return thread.join

    return save


WAYS: dict[str, Callable[[Path], Save]] = {
    "toolshed, async": toolshed_async,
    "toolshed, sync": toolshed_sync,
    "orbax, async": orbax_async,
    "orbax, sync": orbax_sync,
    "savez in a thread": savez_thread,
    "savez": savez_sync,
}


class Times(NamedTuple):
    """Of one save, in milliseconds.

    Attributes:
      stall: that the loop is held up.
      saved: from the call to the end.
    """

    stall: float
    saved: float


def measure(state: TrainState, way: Callable[[Path], Save], folder: Path, rounds: int) -> list[Times]:
    """Saves in a loop, some steps apart."""
    step = jax.jit(lambda params: {name: x * 0.999 for name, x in params.items()}, donate_argnums=0)
    params = {name: jnp.copy(value) for name, value in state.params.items()}
    times: list[Times] = []
    save = way(folder)
    for n in range(rounds + 1):
        lengths = []
        for _ in range(STEPS):
            params, length = timed_step(step, params)
            lengths.append(length)
        begun = time.perf_counter()
        wait = save(state.replace(params=params), folder / f"{n}")
        called = time.perf_counter() - begun
        params, length = timed_step(step, params)
        stall = called + max(0.0, length - statistics.median(lengths))
        wait()
        times.append(Times(1e3 * stall, 1e3 * (time.perf_counter() - begun)))
        for own in folder.glob(f"{n}*"):  # of orbax and savez; a repository tidies up itself
            shutil.rmtree(own) if own.is_dir() else own.unlink()
    return times[1:]


def timed_step(step: Callable[[Any], Any], params: Any) -> tuple[Any, float]:
    """One step, and how long it took in seconds."""
    begun = time.perf_counter()
    params = jax.block_until_ready(step(params))
    return params, time.perf_counter() - begun


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Times how long saving holds up a training loop.")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 500])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to save (default: where temporary files are)")
    options = parser.parse_args()
    for megabytes in options.megabytes:
        values = jax.random.normal(jax.random.key(0), (megabytes * 1_000_000 // 4 // LEAVES,))
        state = TrainState.create(
            params={f"layer_{i}/w": values + i for i in range(LEAVES)},
            model_without_params=(),
            optimizer_def=optax.sgd(0.1),
            root_rng=jax.random.key(1),
        )
        medians: dict[str, Times] = {}
        for name, way in WAYS.items():
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                times = measure(state, way, Path(folder) / "saves", options.rounds)
                gc.collect()  # a repository that is forgotten is closed
            medians[name] = Times(*map(statistics.median, zip(*times, strict=True)))
            stall, saved = medians[name]
            print(f"{megabytes:>5} MB  {name:<18} stall {stall:8.1f} ms   saved after {saved:8.1f} ms")
        share = medians["toolshed, async"].stall / medians["toolshed, sync"].saved
        print(f"{megabytes:>5} MB  toolshed's stall is {100 * share:.1f} % of saving and waiting for it\n")


if __name__ == "__main__":
    main()
