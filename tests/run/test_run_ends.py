"""A run that nobody holds, or whose interpreter ends, ends as well and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests.run.small import new_run, slow_stream, until

ROOT = Path(__file__).parents[2]


def threads_of(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if name in thread.name]


def all_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("toolshed: ")}


# --- nobody holds it --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["ready", "finished", "paused", "stepped", "failed", "training"])
def test_a_run_that_nobody_holds_is_gone(way: str):
    run: Any = new_run(slow_stream(0.001), name=f"dropped while {way}")
    told: list[Any] = []
    run.subscribe(told.append)
    if way == "stepped":
        run.step()
    if way in ("finished", "failed"):
        run.train(3, wait=True)
    if way == "failed":
        with pytest.raises(ZeroDivisionError):
            run.train(until=lambda step, values: 1 / 0, wait=True)
    if way in ("paused", "training"):
        run.train(wait=False)
        until(lambda: run.progress.step > 3)
    if way == "paused":
        run.pause()
        run.wait()
    gone, memory = weakref.ref(run), weakref.ref(run.state)
    del run
    gc.collect()
    assert gone() is None
    assert memory() is None
    if way == "training":
        until(lambda: told[-1].text == "stopped", 5)


def test_the_threads_of_runs_that_are_gone_end_too():
    until(lambda: not threads_of("dropped while"), 5)


def test_a_training_that_somebody_waits_for_or_watches_goes_on():
    run: Any = new_run(slow_stream(0.001), name="held by its watch", eval_every=5)
    seen: list[Any] = []
    run.train(40, watch=lambda step, values, state, run=run: seen.append((run.status, step)), wait=False)
    del run
    gc.collect()
    until(lambda: len(seen) == 8, 10)
    assert seen[-1][1] == 40


def test_all_threads_end_about_a_second_after_there_is_nothing_left_to_do():
    gc.collect()
    others = all_threads()  # of other tests' runs, such as those whose disk had failed
    run = new_run()
    run.train(5, wait=True)
    run.step()
    assert threads_of(run.name)
    assert len(all_threads() - others) >= 2
    until(lambda: all_threads() <= others, 8)
    run.train(5, wait=True)  # and others begin
    assert int(run.state.step) == 11


# --- the interpreter ends ---------------------------------------------------------------------------

PROGRAM = """
    import atexit, time
    atexit.register(lambda: print(time.monotonic() - end, flush=True))  # after those that come later
    from tests.compiling import compile_quickly
    compile_quickly()
    from tests.run.small import new_run, slow_stream, until
    run = new_run(slow_stream())
    run.train(wait=False)
    until(lambda: run.progress.step > 20, 60)
    end = time.monotonic()
"""


def test_a_program_that_ends_while_a_run_trains_ends_at_once_and_in_peace():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    came = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert came.returncode == 0, came.stderr
    assert "Traceback" not in came.stderr
    assert "Fatal" not in came.stderr
    assert float(came.stdout) < 3  # of the five seconds that it would wait for a step
