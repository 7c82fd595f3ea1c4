"""A run that stopped at a value that is not finite finds out by itself where it came from."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

import toolshed
from tests.run.kept import let_go
from tests.run.small import events_of, until
from tests.run.test_finite import good_batches, new_run, root_loss, with_a_bad_batch
from toolshed.errors import NonFiniteError
from toolshed.live.autopsies import newest
from toolshed.run import inquest


def autopsies(run: Any) -> list[Any]:
    return events_of(run, "autopsy")


def failed(data: Any, *arguments: Any) -> Any:
    run = new_run(data, *arguments)
    with pytest.raises(NonFiniteError) as raised:
        run.train(len(data), wait=True)
    return run, raised.value


@pytest.fixture(scope="module")
def bad() -> Any:
    """A run that stopped at step 5, whose batch holds an infinity in its third example."""
    return failed(with_a_bad_batch(at=4, n=8))


def test_the_autopsy_is_an_event_of_the_guilty_step(bad):
    run, _ = bad
    (event,) = autopsies(run)
    assert (event.step, event.branch) == (5, "main")
    assert event.text == "batch/x holds ∞"
    assert event.data["primitive"] == "input"
    assert event.data["lines"][-1] == "  step     5"
    assert json.loads(json.dumps(event.data, allow_nan=False)) == event.data


def test_it_tells_the_batch_and_the_example(bad):
    run, _ = bad
    batch = autopsies(run)[0].data["batch"]
    x, y = (run.autopsy().batch[name] for name in ("x", "y"))
    assert batch["place"] == "batch 5 of epoch 1"
    assert (batch["size"], batch["left_out"]) == (8, 0)
    assert [field["path"] for field in batch["fields"]] == ["x", "y"]
    found = batch["fields"][0]
    assert (found["nan"], found["infinite"], found["examples"], found["bad"]) == (0, 1, [2], 1)
    finite = np.asarray(x)[np.isfinite(x)]
    assert (found["min"], found["max"]) == (float(finite.min()), float(finite.max()))
    assert found["type"] == "float32[8,4]"
    assert batch["fields"][1]["min"] == float(np.min(y))
    assert batch["fields"][1]["bad"] == 0


def test_the_error_carries_it_and_asking_for_it_does_not_make_it_again(bad, monkeypatch):
    run, error = bad
    (note,) = error.__notes__
    assert note.splitlines()[0] == "batch/x holds ∞"
    monkeypatch.setattr(inquest, "search", None)
    assert repr(run.autopsy()) == note
    assert len(autopsies(run)) == 1


def test_an_operation_is_named_with_its_line_and_the_loss_of_a_finite_batch():
    data = good_batches(8)
    data[3] = {name: np.zeros_like(value) for name, value in data[3].items()}
    run, _ = failed(data, root_loss)
    (event,) = autopsies(run)
    source = event.data["source"]
    assert event.step == 4
    assert (source["file"], source["function"]) == ("test_finite.py", "root_loss")
    assert "sqrt" in source["text"]
    assert event.text.endswith(f", at test_finite.py:{source['line']} in root_loss")
    assert [field["bad"] for field in event.data["batch"]["fields"]] == [0, 0]


def held(monkeypatch: Any) -> tuple[threading.Event, threading.Event]:
    """A search that has begun, and does not go on before it may."""
    begun, free = threading.Event(), threading.Event()
    search = inquest.search

    def slow(*arguments: Any, between: Any) -> Any:
        begun.set()
        while not free.is_set():
            between()
            free.wait(0.001)
        return search(*arguments, between=between)

    monkeypatch.setattr(inquest, "search", slow)
    return begun, free


def stopped(monkeypatch: Any) -> tuple[Any, threading.Event]:
    """A run that has stopped in the background and looks for the reason."""
    begun, free = held(monkeypatch)
    run = new_run(with_a_bad_batch(at=4, n=8))
    run.train(8, wait=False)
    assert begun.wait(20)
    return run, free


def test_whoever_looks_meanwhile_is_served_and_the_search_goes_on(monkeypatch):
    run, free = stopped(monkeypatch)
    assert run.status == "failed"
    assert int(run.state.step) == 4
    assert autopsies(run) == []
    free.set()
    with pytest.raises(NonFiniteError):
        run.wait()
    assert len(autopsies(run)) == 1


@pytest.mark.parametrize("goes_on", ["step", "train", "stop", "back"])
def test_it_is_given_up_as_soon_as_somebody_goes_on(monkeypatch, goes_on):
    run, free = stopped(monkeypatch)
    {
        "step": lambda: run.step(),
        "train": lambda: run.train(0, wait=False),
        "stop": run.stop,
        "back": lambda: run.back(2),
    }[goes_on]()
    until(run._control._inquest.over.is_set)
    assert not free.is_set()
    assert autopsies(run) == []
    free.set()
    assert run.autopsy().step == 5  # it can still be asked for


def test_a_search_that_fails_is_said_and_harms_nothing(monkeypatch):
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("by the test")

    monkeypatch.setattr(inquest, "search", fail)
    run, error = failed(with_a_bad_batch(at=4, n=8))
    assert not hasattr(error, "__notes__")
    note = "no autopsy of step 5 could be made: ZeroDivisionError: by the test"
    assert [event.text for event in events_of(run, "note")] == [note]
    assert int(run.state.step) == 4
    assert autopsies(run) == []


def test_ctrl_c_while_it_is_waited_for_gives_it_up_and_loses_no_error(monkeypatch):
    run, free = stopped(monkeypatch)
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    assert not free.is_set()
    with pytest.raises(NonFiniteError) as raised:
        run.wait()
    assert not hasattr(raised.value, "__notes__")
    assert autopsies(run) == []


def test_it_is_in_the_store_and_there_after_attaching(tmp_path):
    run = new_run(with_a_bad_batch(at=4, n=8), store=tmp_path, name="kept")
    with pytest.raises(NonFiniteError):
        run.train(8, wait=True)
    run._durable._keeper.sync()
    let_go(run)
    (event,) = autopsies(run)
    (kept,) = [one for one in toolshed.runs(tmp_path)["kept"].events if one.kind == "autopsy"]
    assert kept == event
    again = toolshed.attach("kept", run.trainer, good_batches(8), path=tmp_path)
    assert newest(again.events)["headline"] == "batch/x holds ∞"
    let_go(again)
