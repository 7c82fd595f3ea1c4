"""Ctrl-C at random moments: the state is always one that a clean run had, and training goes on from it.

The short form interrupts a few times in each way. The long one, 300 times: ``python -m
tests.run.test_interrupts 75``.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, values_of

STEPS = 400
WAYS = ("in the foreground", "while waiting for the background", "while stepping by hand", "while going back")


def digest(state: toolshed.TrainState) -> str:
    """One word for all bits of a state."""
    values = values_of(state)
    return hashlib.sha256(b"".join(values[path].tobytes() for path in sorted(values))).hexdigest()


def new_run() -> toolshed.Run:
    case = zoo.dropout_mlp()
    examples = {k: np.concatenate([b[k] for b in batches(case, 6)]) for k in case.batch}
    data = toolshed.data.from_arrays(examples, batch_size=8, seed=3)
    return toolshed.Run(case.model, optax.adam(1e-2), case.loss_fn, data, name="interrupted")


def clean_run(steps: int) -> list[str]:
    """What the state is at each step of a run that nothing interrupts."""
    run, seen = new_run(), []
    for _ in range(steps + 1):
        seen.append(digest(run.state))
        run.train(1, wait=True)
    return seen


class Interrupter:
    """Sends this process one Ctrl-C after a while."""

    def __init__(self, delay: float):
        self._timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))

    def __enter__(self) -> Interrupter:
        self._timer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._timer.join()
        time.sleep(0.001)  # a signal that came at the very end is delivered here


def interrupted(run: toolshed.Run, way: str, delay: float) -> bool:
    """Does something for as long as the interrupt takes to come; whether it came out of it."""
    try:
        with Interrupter(delay):
            end = time.monotonic() + delay + 0.02
            while time.monotonic() < end:
                left = STEPS - run.progress.step
                if left < 2:
                    run.goto(20, "main")
                elif way == "in the foreground":
                    run.train(min(5, left), wait=True)
                elif way == "while waiting for the background":
                    run.train(min(50, left), wait=False)
                    run.wait()
                elif way == "while stepping by hand":
                    run.step(2)
                else:
                    run.goto(max(0, run.progress.step - 7))
                    run.goto(run.timeline.here.head)
    except KeyboardInterrupt:
        return True
    return False


def check(way: str, times: int, expected: list[str], seed: int = 0) -> int:
    """Interrupts a run again and again; compares its state with the clean run's each time."""
    draw, run, came = random.Random(seed), new_run(), 0
    run.train(20, wait=True)
    for _ in range(times):
        came += interrupted(run, way, draw.uniform(0.0, 0.05))
        run.wait()
        state = run.state
        state.check_alive()
        assert digest(state) == expected[int(state.step)], f"{way}: at step {int(state.step)}"
        assert int(state.step) == run.progress.step
    left = STEPS - run.progress.step
    run.train(left, wait=True)
    assert digest(run.state) == expected[STEPS]
    return came


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return clean_run(STEPS)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_interrupted_the_state_is_that_of_a_completed_step(way: str, expected: list[str]):
    assert check(way, 8, expected) > 0


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 75
    jax.config.update("jax_platforms", "cpu")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts with & ignore it
    clean = clean_run(STEPS)
    total: Any = 0
    for way in WAYS:
        came = check(way, times, clean, seed=times)
        total += came
        print(f"{way}: {times} interrupts, {came} raised, each state that of a clean run", flush=True)
    print(f"{total} KeyboardInterrupts in {4 * times} attempts; all final states equal")
