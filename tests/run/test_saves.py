"""Checkpoints of a run: by steps, by time, by hand and by a button; none stops the training."""

from __future__ import annotations

import datetime
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import toolshed
from tests.run.kept import bits, data, trainer
from tests.run.test_keeping import begin, until
from toolshed.errors import CheckpointError, SaveError

TRAINER = trainer()


def saved(run: toolshed.Run) -> dict[int, tuple[str, ...]]:
    """Steps and tags of all checkpoints, once none is under way."""
    durable: Any = run._durable
    durable.saves.finish()
    return {one.step: one.tags for one in run.checkpoints.find()}


def test_the_first_state_and_the_last_are_saved_and_those_between_by_steps(tmp_path):
    run = begin(tmp_path, checkpoint_every=5)
    for steps in (3, 3, 1):
        run.train(steps, wait=True)
        saved(run)
    assert saved(run) == {0: ("start",), 5: (), 6: (), 7: ()}


def test_what_nobody_asked_for_is_thinned_out_and_what_somebody_saved_stays(tmp_path):
    run = begin(tmp_path)
    for number in range(6):
        run.train(2, wait=True)
        if number == 1:
            run.save("good", wait=True)
        if number == 2:
            run.save(wait=True)
        saved(run)
    there = saved(run)
    assert there == {0: ("start",), 4: ("good",), 6: ("saved",), 8: (), 10: (), 12: ()}


def test_a_checkpoint_has_the_values_and_the_place_in_the_data(tmp_path):
    run = begin(tmp_path, eval_data=[next(iter(data()))], eval_every=4)
    run.train(8, wait=True)
    run.edit(learning_rate=1e-3)
    manifest = run.save("good", wait=True).wait()
    assert manifest.metrics["train/loss"] == run.history.last("train/loss")[1]
    assert manifest.metrics["eval/loss"] == run.history.last("eval/loss")[1]
    assert manifest.data_state["branch"] == "main"
    assert manifest.data_state["edits"] == 1
    assert manifest.data_state["data"] == run.data_position
    assert bits(run.checkpoints.load("good", like=run.state)) == bits(run.state)


def test_saving_by_time(tmp_path):
    run = begin(tmp_path, checkpoint_every=datetime.timedelta(milliseconds=50))
    run.train(until=lambda step, values: False, wait=False)
    assert until(lambda: len(run.checkpoints.steps()) >= 2, 20)
    run.stop()
    run.wait()


def test_a_save_in_the_middle_of_training_is_of_one_step(tmp_path):
    run = begin(tmp_path)
    run.train(until=lambda step, values: False, wait=False)
    assert until(lambda: run.progress.step > 20, 20)
    manifest = run.save("middle").wait(30.0)
    assert run.status == "training"
    run.stop()
    run.wait()
    state = run.checkpoints.load("middle", like=run.state)
    assert int(state.step) == manifest.step
    run.goto(manifest.step)
    assert bits(state) == bits(run.state)


def test_the_button_saves_and_says_so(tmp_path):
    run = begin(tmp_path)
    run.train(4, wait=True)
    assert run.can_save
    run.request("save", tag="best")
    assert until(lambda: any(event.kind == "saved" for event in run.events), 20)
    (event,) = [event for event in run.events if event.kind == "saved"]
    assert (event.step, event.text, event.data) == (4, "saved step 4 as 'best'", {"tag": "best"})
    assert run.progress.message == "saved step 4 as 'best'"
    run.request("save", tag="latest")
    assert until(lambda: "The tag 'latest' means" in run.progress.message, 5)
    with pytest.raises(CheckpointError, match="The tag 'latest' means"):
        run.save("latest")


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_next_one_can(tmp_path, capsys):
    run = begin(tmp_path)
    run.train(4, wait=True)
    saved(run)
    steps = run.checkpoints.path / "staging"
    shutil.rmtree(steps)
    steps.touch()  # a file where a directory has to be
    start = time.monotonic()
    with pytest.raises(SaveError, match="A checkpoint was not saved in"):
        run.save("lost", wait=True)
    assert until(lambda: any(event.kind == "error" for event in run.events), 1.0)
    assert time.monotonic() - start < 5
    assert run.progress.message.startswith("A checkpoint was not saved in")
    run.train(4, wait=True)
    assert run.status == "finished"
    steps.unlink()
    assert run.save("found", wait=True).wait().step == 8
    assert "lost" not in {tag for one in run.checkpoints.find() for tag in one.tags}
    assert "Training goes on." in capsys.readouterr().err


def test_branches_and_changed_models_are_saved_at_once(tmp_path: Path):
    run = begin(tmp_path)
    run.train(6, wait=True)
    run.back(2)
    run.fork("other")
    saved(run)
    assert run.checkpoints.latest is not None
    assert run.checkpoints.latest.data_state["branch"] == "other"
    run.edit_model(lambda model: model)
    saved(run)
    assert run.checkpoints.latest.step == 4
