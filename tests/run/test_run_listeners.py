"""A run is read and asked from threads, listeners, watches and its own data while it trains."""

from __future__ import annotations

import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests.run.small import LENGTH, data, is_alive, is_clean, new_run, slow_stream, until, values
from toolshed.errors import ListenerWarning, RunError

# --- reading from elsewhere -------------------------------------------------------------------------


def test_everything_can_be_read_while_steps_give_their_memory_away():
    run, odd, seen = new_run(), [], []
    run.train(5, wait=True)
    run.train(100_000, wait=False)

    def look() -> None:
        try:
            for _ in range(15):
                state = run.state
                time.sleep(0.001)  # steps go on
                assert is_alive(state)
                context = run.context
                assert np.isfinite(np.asarray(context.loss_total))
                seen.append((int(state.step), int(context.step)))
                assert len(run.history.series("train/loss").steps) <= run.progress.step
                assert run.history.window("train/loss", 0, 10**6, 50).steps.size
                repr(run), repr(run.timeline), run.events, run.hyperparameters, run.data_position
        except BaseException as error:
            odd.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert run.status == "training"
    run.stop()
    run.wait()
    assert odd == []
    assert len(seen) == 45
    assert all(step <= made + 1 for step, made in seen)  # the context was asked for after the state
    assert len({step for step, _ in seen}) > 5


def test_a_function_is_called_with_the_live_state_between_two_steps():
    run = new_run(slow_stream())
    run.train(30, wait=False)
    norm = run.call(lambda state: float(optax.tree.norm(state.params)))
    assert norm > 0
    assert run.status == "training"
    kept = run.call(lambda state: state)
    until(lambda: run.progress.step > int(run.state.step) or run.status != "training")
    with pytest.raises(ValueError, match="of the function"):
        run.call(lambda state: (_ for _ in ()).throw(ValueError("of the function")))
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 30)
    assert is_clean(run)
    with pytest.raises((RuntimeError, ValueError), match="deleted"):  # as its docstring says
        jax.block_until_ready(jax.tree.map(jnp.copy, kept.params))


def test_a_function_that_is_called_may_ask_the_run_for_more():
    run = new_run()
    run.train(6, wait=True)

    def look(state: Any) -> tuple[int, int, int]:
        run.edit(learning_rate=0.5)
        return int(state.step), int(run.state.step), int(run.explain(3).step)

    assert run.call(look) == (6, 6, 2)
    assert run.hyperparameters["learning_rate"] == 0.5
    with pytest.raises(RunError, match=r"^The training cannot wait for its own end\. Call run\.wait\(\)"):
        run.call(lambda state: run.train(5, wait=True))
    assert run.progress.step == 6


# --- from inside ------------------------------------------------------------------------------------


def test_a_listener_may_do_what_a_cell_may():
    run, found = new_run(slow_stream(), eval_every=5), []

    def listen(event: Any) -> None:
        if event.kind == "rows" and run.progress.step > 5 and not found:
            found.append(int(run.state.step))
            run.pause()
            run.wait()
            found.append(run.status)
            run.log("my/number", 3.0)
            found.append(int(run.step().step))

    stop = run.subscribe(listen)
    run.train(2000, wait=False)
    until(lambda: len(found) == 3)
    stop()
    assert found[1] == "paused"
    assert found[2] == run.progress.step - 1
    assert values(run, "my/number").popitem() == (found[2], 3.0)


def test_a_listener_that_fails_is_shown_once_and_harms_nothing():
    run, told = new_run(slow_stream(0.01)), []

    def fail(event: Any) -> None:
        raise ValueError(f"of the listener, at {event.kind}")

    run.subscribe(fail)
    run.subscribe(told.append)
    with pytest.warns(
        ListenerWarning, match=r"(?s)is not called any more\. Training goes on\..*of the liste"
    ):
        run.train(30, wait=True)
    assert {"status", "rows"} <= {event.kind for event in told}
    assert is_clean(run)


def test_a_watch_may_edit_pause_and_go_on_by_itself():
    run = new_run(eval_every=4)

    def watch(step: int, values: Any, state: Any) -> None:
        if step == 4:
            run.edit(learning_rate=0.02)
        if step == 8:
            run.pause()
        with pytest.raises(RunError, match="cannot wait for its own end"):
            run.wait()

    run.train(20, watch=watch, wait=True)
    assert (run.status, run.progress.step) == ("paused", 8)
    rates = values(run, "optim/learning_rate")
    assert rates[4] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.02)


def test_the_data_may_look_at_the_run_and_log_but_not_move_it():
    run: Any = None
    found: dict[str, Any] = {}

    def attempt(name: str, fn: Any) -> None:
        try:
            found[name] = fn()
        except RunError as error:
            found[name] = str(error)

    def batch(number: int) -> Any:
        if number == 3 and run is not None and not found:
            attempt("state", lambda: int(run.state.step))
            attempt("log", lambda: run.log("my/number", 1.5))
            attempt("goto", lambda: run.goto(1))
            attempt("step", run.step)
            attempt("edit", lambda: run.edit(learning_rate=1.0))
            attempt("pause", run.pause)
        return data()[number % LENGTH]

    run = new_run(toolshed.data.from_function(batch, LENGTH))
    run.train(40, wait=True)
    assert found["state"] <= 3  # batches of quick steps are read several at once
    for name in ("goto", "step", "edit"):
        assert found[name].startswith("This was called from inside reading its data, which the run is in")
    assert run.status == "paused"
    assert found["state"] < run.progress.step < 40
    assert values(run, "my/number") == {found["state"]: 1.5}
    run.resume()
    run.wait()
    assert run.progress.step == 40
    assert is_clean(run)
