"""A process that saves checkpoints until it is killed, and one that makes such processes quickly.

`python -m tests.crash.worker` imports everything, then reads one order in JSON from each line of its
input, forks a process that saves as it says, and prints the process's exit status once it has ended.
Where the order names a number of file operations, the process kills itself before that one: the operating
system ends it there, with nothing flushed and nothing cleaned up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from orbax.checkpoint import v1 as _  # noqa: F401  (loaded here, so that the forked processes have it)

import toolshed
from toolshed.checkpoints import Repository

MODES = ("keep all", "retention", "same step", "tagged best")
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.truncate")
SIZE = 20_000  # of an array that is stored by itself


class Order(NamedTuple):
    """What a process has to do.

    Attributes:
      root: the repository.
      mode: one of `MODES`.
      asynchronous: save in the background, with a donating step after each save.
      first: the number of the first state.
      acknowledged: a file that gets a line for each state that is saved.
      operations: before which file operation to kill itself, or None.
    """

    root: str
    mode: str
    asynchronous: bool
    first: int
    acknowledged: str
    operations: int | None


def loss(n: int) -> float:
    """A number that jumps up and down with n."""
    return (n * 7919 % 101) / 101


def values(n: int) -> dict[str, np.ndarray]:
    """What the n-th state's parameters are."""
    return {"w": np.arange(SIZE, dtype=np.float32) + n, "b": np.asarray([n, -n], np.float32)}


def state(n: int) -> toolshed.TrainState:
    """The n-th state."""
    return toolshed.TrainState.create(
        params=values(n),
        model_without_params=(),
        optimizer_def=optax.sgd(0.1),
        root_rng=jax.random.key(n),
        step=n,
    )


def repository(order: Order) -> Repository:
    """The repository as its mode says."""
    rules: dict[str, Any] = {
        "retention": {"keep_last": 2, "keep_best": ("loss", "min", 1)},
        "tagged best": {"keep_last": 1},
    }
    return Repository(order.root, **rules.get(order.mode, {}))


def work(order: Order) -> None:
    """Saves one state after another, without end."""
    here = repository(order)
    log = os.open(order.acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    donate = jax.jit(lambda params: jax.tree.map(lambda x: x * 0 - 1, params), donate_argnums=0)
    best = min((one.metrics["loss"] for one in here.find(tags="best")), default=2.0)
    n, current = order.first, state(order.first)
    jax.block_until_ready((current.params, donate(state(0).params)))
    os.write(log, b"ready\n")
    if order.operations is not None:
        kill_at(order.operations, order.root)
    while True:
        is_best = order.mode == "tagged best" and loss(n) < best
        saving = here.save(
            current,
            step=7 if order.mode == "same step" else None,
            tags=["best"] if is_best else [],
            metrics={"loss": loss(n)},
            metadata={"n": n},
            wait=not order.asynchronous,
        )
        saving.add_done_callback(lambda done, n=n: acknowledge(log, n, done))
        if is_best:
            saving.wait()
            best = loss(n)
            for old in here.find(tags="best")[:-1]:
                here.untag(old, "best")
        if order.asynchronous:
            donate(current.params)
        n += 1
        current = state(n)


def acknowledge(log: int, n: int, saving: Any) -> None:
    """Writes down that the n-th state is saved; a file keeps what a killed process wrote to it."""
    assert saving.status == "saved", saving
    os.write(log, f"{n}\n".encode())


def kill_at(operations: int, root: str) -> None:
    """Kills this process before its n-th operation on files under a directory."""
    left = [operations]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and arguments and str(arguments[0]).startswith(root):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def serve(begin: Callable[[str], tuple[str, Callable[[], None]]]) -> None:
    """Forks a process for each line of the input, one after another.

    Args:
      begin: gives a file for the process's errors and what it has to do, from the line.
    """
    warnings.simplefilter("ignore", RuntimeWarning)  # jax's on forks; its threads begin in the child
    for line in sys.stdin:
        errors, task = begin(line)
        process = os.fork()
        if process == 0:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT, 0o644), 2)
            try:
                task()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


def begin(line: str) -> tuple[str, Callable[[], None]]:
    """The file for errors and the task of an order."""
    order = Order(**json.loads(line))
    return f"{order.acknowledged}.errors", lambda: work(order)


if __name__ == "__main__":
    serve(begin)
