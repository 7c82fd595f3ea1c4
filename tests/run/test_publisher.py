"""What is handed over is written down in order and then told; nobody who listens holds it up."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from toolshed.run import Event
from toolshed.run.publisher import Pace, Publisher
from toolshed.run.recording import Recording


def block(rows: dict[int, list[float]], capacity: int = 8) -> Any:
    """A tape's block with some rows: a step's number, before its increment, and the scalars' bits."""
    width = len(next(iter(rows.values())))
    filled = np.full((capacity, width + 1), -1, np.int32)
    for step, values in rows.items():
        filled[step % capacity] = [step, *np.float32(values).view(np.int32)]
    return jnp.asarray(filled)


RECORDING = Recording((), (), ("train/loss", "optim/grad_norm"), (1, 2), 2)


def found_nothing(step: int, loss: float) -> None:
    raise AssertionError(f"found {loss} at step {step}")


def as_dict(publisher: Publisher, name: str, branch: str | None = None) -> dict[int, float]:
    series = publisher.history.series(name, branch)
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def notes(publisher: Publisher) -> list[str]:
    publisher.finish()
    return [event.text for event in publisher.listeners.kept if event.kind == "note"]


def test_rows_are_written_by_steps_done_and_a_column_only_where_it_has_values():
    publisher = Publisher()
    publisher.rows(
        [block({6: [0.5, 60], 7: [0.25, math.nan]}), block({8: [0.125, 80]})], RECORDING, found_nothing
    )
    publisher.finish()
    assert as_dict(publisher, "train/loss") == {7: 0.5, 8: 0.25, 9: 0.125}
    assert as_dict(publisher, "optim/grad_norm") == {7: 60, 9: 80}


def test_the_first_loss_of_a_block_that_is_not_finite_is_found():
    publisher, found = Publisher(), []
    rows = {3: [1.0, 0.0], 4: [math.inf, 0.0], 5: [math.nan, 0.0]}
    publisher.rows([block(rows)], RECORDING, lambda step, loss: found.append((step, loss)))
    publisher.finish()
    assert found == [(5, math.inf)]
    np.testing.assert_array_equal(publisher.history.series("train/loss").values, [1, math.inf, math.nan])


def test_values_land_on_the_branch_that_was_the_current_one_when_they_were_handed_over():
    publisher = Publisher()
    publisher.rows([block({0: [1, 0], 1: [2, 0], 2: [3, 0]})], RECORDING, found_nothing)
    publisher.begin_branch("other", at=1)
    publisher.values(2, lambda: {"eval/loss": 20.0})
    publisher.rows([block({1: [22, 0]})], RECORDING, found_nothing)
    publisher.switch("main")
    publisher.values(3, lambda: {"eval/loss": 3.0})
    publisher.finish()
    assert as_dict(publisher, "train/loss", "main") == {1: 1, 2: 2, 3: 3}
    assert as_dict(publisher, "train/loss", "other") == {1: 1, 2: 22}
    assert as_dict(publisher, "eval/loss", "main") == {3: 3}
    assert as_dict(publisher, "eval/loss", "other") == {2: 20}


def test_a_listener_that_hangs_has_few_events_wait_for_it_and_none_that_matter_are_lost():
    publisher, told, go_on = Publisher(), [], threading.Event()
    publisher.listeners.add(lambda event: (go_on.wait(10), told.append(event.kind)))
    for number in range(1500):
        publisher.values(number, lambda: {"eval/loss": 1.0}, kind="evaluated")
    publisher.event("status", 1500, "main", "paused")
    publisher.finish()
    assert publisher._telling.waiting < 1100
    go_on.set()
    publisher.finish(told=True)
    assert told[-1] == "status"
    assert len(as_dict(publisher, "eval/loss")) == 1500


def test_listeners_are_told_after_what_was_handed_over_before_is_written():
    publisher, seen = Publisher(), []

    def listen(event: Event) -> None:
        seen.append((event.kind, publisher.history.last("train/loss"), publisher.history.branch))

    publisher.listeners.add(listen)
    publisher.rows([block({0: [1, 0], 1: [2, 0]})], RECORDING, found_nothing)
    publisher.begin_branch("b", at=2)
    publisher.event("branched", 2, "b", "b begins", name="b", parent="main")
    publisher.finish(told=True)
    assert [kind for kind, _, _ in seen] == ["rows", "branched"]
    assert seen[0][1] == (2, 2.0)
    assert seen[1] == ("branched", (2, 2.0), "b")


def test_a_listener_that_hangs_holds_up_no_value():
    publisher, release, entered = Publisher(), threading.Event(), threading.Event()

    def hang(event: Event) -> None:
        entered.set()
        release.wait(10)

    publisher.listeners.add(hang)
    publisher.event("note", 0, "main", "something")
    assert entered.wait(10)
    publisher.values(1, lambda: {"a/b": 1.0})
    publisher.finish()
    assert as_dict(publisher, "a/b") == {1: 1.0}
    release.set()
    publisher.finish(told=True)


def test_a_listener_may_itself_wait_until_all_is_written():
    publisher, done = Publisher(), []

    def listen(event: Event) -> None:
        publisher.values(event.step, lambda: {"a/b": 1.0})
        publisher.finish(told=True)
        done.append(publisher.history.names)

    publisher.listeners.add(listen)
    publisher.event("note", 4, "main", "something")
    publisher.finish(told=True)
    assert done == [["a/b"]]


def test_numbers_of_any_type_are_written_and_what_is_none_is_left_out():
    publisher = Publisher()
    values = {
        "a/1": 1,
        "a/2": jnp.float32(2),
        "a/3": np.float64(3),
        "a/4": True,
        "a/5": jnp.ones(3),
        "a/6": [1, 2],
    }
    publisher.values(1, lambda: values)
    publisher.finish()
    assert publisher.history.names == ["a/1", "a/2", "a/3", "a/4"]
    assert notes(publisher) == []


def test_a_value_that_cannot_be_computed_or_written_is_told_and_the_others_are_written():
    publisher = Publisher()
    publisher.values(1, lambda: {"a/b": 1.0})
    publisher.values(1, lambda: {"a/b": 2.0, "a/c": 3.0})
    publisher.values(2, lambda: {"a/b": 1 / 0})
    publisher.values(3, lambda: {"a/b": "no number", "a/c": 4.0})
    publisher.finish()
    assert as_dict(publisher, "a/b") == {1: 1.0}
    assert as_dict(publisher, "a/c") == {1: 3.0, 3: 4.0}
    repeated, failed, text = notes(publisher)
    assert "a/b: step 1 on branch 'main', which has values up to step 1" in repeated
    assert failed == "A value was not written down. ZeroDivisionError: division by zero"
    assert "no number" in text


def test_what_goes_wrong_again_and_again_is_told_a_bounded_number_of_times():
    publisher = Publisher()
    for step in range(1, 60):
        for _ in range(3):
            publisher.values(step, lambda: {"a/b": 1.0})
        publisher.values(step, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert 1 <= len(notes(publisher)) <= 20
    assert len(publisher.history.series("a/b").values) == 59


def test_an_evaluation_is_an_event_that_every_reader_of_json_takes():
    publisher, told = Publisher(), []
    publisher.listeners.add(told.append)
    publisher.values(7, lambda: {"eval/loss": math.nan, "eval/accuracy": 0.5}, kind="evaluated")
    publisher.finish(told=True)
    (event,) = told
    assert (event.kind, event.step, event.text) == ("evaluated", 7, "eval/loss nan, eval/accuracy 0.5")
    assert json.loads(json.dumps(event.data, allow_nan=False)) == {
        "values": {"eval/loss": "nan", "eval/accuracy": 0.5}
    }
    assert publisher.listeners.kept == ()


def test_the_speed_is_that_of_the_steps_and_examples_of_the_last_five_seconds():
    publisher = Publisher()
    for pace in (Pace(10, 80, 0.0), Pace(20, 160, 0.5), Pace(50, 400, 2.0), Pace(54, 432, 6.0)):
        publisher.pace(pace)
    publisher.finish()
    assert as_dict(publisher, "speed/steps_per_second") == {50: 20.0, 54: 1.0}
    assert as_dict(publisher, "speed/examples_per_second") == {50: 160.0, 54: 8.0}
    assert (publisher.steps_per_second, publisher.examples_per_second) == (1.0, 8.0)


def test_time_without_a_step_makes_no_speed_and_time_at_rest_counts_for_none():
    publisher = Publisher()
    for pace in (Pace(10, 0, 0.0), Pace(30, 0, 2.0), Pace(30, 0, 9.0)):
        publisher.pace(pace)
    publisher.begin(Pace(30, 0, 9.0))
    for pace in (Pace(35, 0, 10.0), Pace(5, 0, 11.0), Pace(9, 0, 12.0)):
        publisher.pace(pace)
    publisher.finish()
    # back at step 5 the history would be on a branch; here it is not, and says so
    assert as_dict(publisher, "speed/steps_per_second") == {30: 10.0, 35: 5.0}
    assert publisher.steps_per_second == 4.0
    assert len(notes(publisher)) >= 1


def test_the_speed_of_a_short_training_is_its_mean_and_a_longer_one_leaves_compiling_out():
    publisher = Publisher()
    publisher.begin(Pace(0, 0, 0.0))
    publisher.pace(Pace(1, 8, 0.5))  # compiled, and made one step
    assert publisher.steps_per_second == 2.0
    publisher.pace(Pace(11, 88, 0.75))
    assert publisher.steps_per_second == 40.0
    publisher.begin(Pace(11, 88, 0.75))
    publisher.pace(Pace(12, 96, 0.8125))
    assert publisher.steps_per_second == 16.0


def test_handing_over_does_not_wait_for_the_device_or_the_disk():
    publisher, release = Publisher(), threading.Event()

    def slow() -> dict[str, float]:
        release.wait(10)
        return {"a/b": 1.0}

    publisher.values(1, slow)
    start = time.monotonic()
    publisher.rows([block({0: [1, 0]})], RECORDING, found_nothing)
    publisher.event("note", 0, "main", "something")
    assert time.monotonic() - start < 5
    release.set()
    publisher.finish()
    assert publisher.history.names == ["a/b", "train/loss", "optim/grad_norm"]


@pytest.mark.parametrize("told", [False, True])
def test_finishing_what_is_finished_returns(told):
    publisher = Publisher()
    publisher.finish(told=told)
    publisher.finish(told=told)
